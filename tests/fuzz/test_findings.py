"""What fuzzing has found: each once, under the name of its symptom."""

from __future__ import annotations

import pytest
from letters import modern, ready


@pytest.mark.parametrize("name", ["From", "Sender", "To", "Cc"])
@pytest.mark.parametrize("value", ["\xad\udce9", "\xad\udce9\x7fb.test"])
def test_an_address_header_of_which_no_octets_can_be_made_is_no_error_of_a_codec(
    name: str, value: str
) -> None:
    """The standard library's own folding fails on it, while the addresses are read."""
    message = modern(**{name: value})
    with pytest.raises(ValueError, match=f"addresses in the header {name}") as caught:
        ready(message)
    assert not isinstance(caught.value, UnicodeError)
