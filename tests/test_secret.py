"""A password must not be seen by accident."""

import copy
import dataclasses
import pickle
import pprint
import traceback

import pytest

from aiosmtpclient.secret import Secret

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
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(Secret(PASSWORD), protocol)


def test_a_copy_is_the_same_secret_so_that_asdict_works_without_revealing() -> None:
    @dataclasses.dataclass
    class Holder:
        password: Secret

    secret = Secret(PASSWORD)

    assert copy.copy(secret) is secret
    assert copy.deepcopy(secret) is secret
    assert dataclasses.asdict(Holder(secret)) == {"password": secret}
