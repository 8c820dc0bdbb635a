"""A password must not be seen by accident."""

import base64
import copy
import dataclasses
import pickle
import pprint
import traceback

import pytest

from aiosmtpclient.secret import Credentials, Secret, redacted, traces_of

PASSWORD = "correct horse battery staple"


def test_no_way_of_printing_shows_the_text() -> None:
    secret = Secret(PASSWORD)

    assert repr(secret) == "Secret(***)"
    for shown in (str(secret), f"{secret}", f"{secret!r}", f"{secret!s}", pprint.pformat([secret])):
        assert PASSWORD not in shown


def test_the_text_is_there_when_asked_for() -> None:
    assert Secret(PASSWORD).reveal() == PASSWORD


def test_a_traceback_with_locals_shows_no_password() -> None:
    def fail(secret: Secret) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError) as caught:
        fail(Secret(PASSWORD))

    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert PASSWORD not in "".join(told.format())
    assert "Secret(***)" in "".join(told.format())


def test_equality_goes_by_text_and_never_with_plain_strings() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2


def test_an_empty_secret_is_false() -> None:
    assert not Secret("")
    assert Secret("a")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_secret_is_never_pickled_in_clear(protocol: int) -> None:
    with pytest.raises(TypeError, match=r"^a Secret is not pickled: its text would stand there in clear$"):
        pickle.dumps(Secret(PASSWORD), protocol)


def test_a_copy_is_the_same_secret_so_that_asdict_works_without_revealing() -> None:
    @dataclasses.dataclass
    class Holder:
        password: Secret

    secret = Secret(PASSWORD)

    assert copy.copy(secret) is secret
    assert copy.deepcopy(secret) is secret
    assert dataclasses.asdict(Holder(secret)) == {"password": secret}


@pytest.mark.parametrize("before", ["", "a", "ab", "abc", "abcd"])
@pytest.mark.parametrize("behind", ["", "x", "xy", "xyz"])
@pytest.mark.parametrize("text", [PASSWORD, "fünf€", "abcdefg"])
def test_a_secret_is_found_in_base64_wherever_it_stands_in_it(before: str, text: str, behind: str) -> None:
    encoded = base64.b64encode(f"{before}{text}{behind}".encode()).decode()

    assert "***" in redacted(f"535 no: {encoded}", [Secret(text)])


@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("behind", [1, 2, 3])
@pytest.mark.parametrize("text", [PASSWORD, "fünf€", "abcdefgh", "abcdefg", "abcdef", "abcde", "abcd"])
def test_every_character_of_base64_that_is_the_secrets_own_is_cut_out(
    before: int, text: str, behind: int
) -> None:
    octets = text.encode()
    encoded = base64.b64encode(b"<" * before + octets + b">" * behind).decode()
    inside = range(before, before + len(octets))
    own = [k for k in range(len(encoded)) if 6 * k // 8 in inside and (6 * k + 5) // 8 in inside]
    start, end = own[0], own[-1] + 1

    expected = f"{encoded[:start]}***{encoded[end:]}" if len(own) >= 6 else encoded
    assert redacted(encoded, [Secret(text)]) == expected


@pytest.mark.parametrize("text", ["abcdefg", "abcdefgh", "abcdefghi"])
def test_nothing_is_left_of_the_base64_of_a_secret_alone(text: str) -> None:
    assert redacted(f"<{base64.b64encode(text.encode()).decode()}>", [Secret(text)]) == "<***>"


def test_another_proof_leaves_the_person_the_same() -> None:
    other = Credentials("kurt", PASSWORD, "ursel").with_secret(Secret("token"))
    assert other == Credentials("kurt", "token", "ursel")


def test_redacting_leaves_everything_else() -> None:
    assert redacted(f"a {PASSWORD} b", [Secret(PASSWORD)]) == "a *** b"
    assert redacted("535 5.7.8 no", [Secret("x"), Secret("")]) == "535 5.7.8 no"


def test_what_is_left_of_a_short_secret_in_base64_is_not_looked_for() -> None:
    """A few letters of base64 would be found everywhere."""
    assert traces_of(Secret("ab")) == (b"ab", b"YWI=")
    assert traces_of(Secret("")) == ()
