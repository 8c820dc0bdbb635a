"""What fuzzing has found: each once, under the name of its symptom."""

from __future__ import annotations

import pytest
from letters import modern, ready

from aiosmtpclient import ProxyHeader


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


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("address", ["fe80::1%\r\nMAIL FROM:<x@x.test>\r\n", "fe80::1%eth0"])
def test_the_zone_of_an_address_puts_no_command_into_a_proxy_header(address: str, version: int) -> None:
    """Python's `ipaddress` takes anything for a zone, and shows it again."""
    with pytest.raises(ValueError, match="zone"):
        ProxyHeader((address, 25), ("::1", 25), version=version)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="zone"):
        ProxyHeader(("::1", 25), (address, 25), version=version)  # type: ignore[arg-type]
