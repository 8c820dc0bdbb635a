"""OAuth 2.0: known answers, and refusals that say why."""

from __future__ import annotations

import base64
import json

import pytest
from leaks import told

from aiosmtpclient import bearer
from aiosmtpclient.exchange import Complaint, Mechanism, Peer
from aiosmtpclient.sasl import Credentials

TOKEN = "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg"


def complaint(mechanism: Mechanism, challenge: bytes) -> Complaint:
    next(mechanism)
    answer = mechanism.send(challenge)
    assert isinstance(answer, Complaint)
    return answer


def test_xoauth2_gives_the_example_of_googles_documentation() -> None:
    response = next(bearer.xoauth2(Credentials("someuser@example.com", TOKEN)))

    assert response == f"user=someuser@example.com\x01auth=Bearer {TOKEN}\x01\x01".encode()
    assert base64.b64encode(response) == (
        b"dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52YjNSbGNrQmhk"
        b"SFJoZG1semRHRXVZMjl0Q2cBAQ=="
    )


def test_oauthbearer_gives_the_example_of_rfc_7628() -> None:
    credentials = Credentials("user@example.com", "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==")
    response = next(bearer.oauthbearer(credentials, Peer("server.example.com", 143)))

    assert base64.b64encode(response) == (
        b"bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9QmVhcmVyIHZGOWR"
        b"mdDRxbVRjMk52YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB"
    )


def test_oauthbearer_needs_no_user() -> None:
    assert next(bearer.oauthbearer(Credentials("", TOKEN))) == f"n,,\x01auth=Bearer {TOKEN}\x01\x01".encode()


def test_oauthbearer_acts_as_somebody_else_and_writes_commas_out() -> None:
    response = next(bearer.oauthbearer(Credentials("me", TOKEN, "a=b,c")))

    assert response.startswith(b"n,a=a=3Db=2Cc,\x01")


@pytest.mark.parametrize(("mechanism", "answer"), [(bearer.xoauth2, b""), (bearer.oauthbearer, b"\x01")])
def test_a_refusal_is_read_and_answered(mechanism, answer) -> None:
    said = b'{"status":"401","schemes":"bearer","scope":"https://mail.google.com/"}'

    assert complaint(mechanism(Credentials("me", TOKEN)), said) == (
        answer,
        {"status": "401", "schemes": "bearer", "scope": "https://mail.google.com/"},
    )


@pytest.mark.parametrize(
    "said", [b"", b"\xff", b"[1]", b'"x"', b"{", b"[" * 9000, b'{"status": ' + b"9" * 9000 + b"}"]
)
def test_a_refusal_that_cannot_be_read_is_still_answered(said) -> None:
    assert complaint(bearer.xoauth2(Credentials("me", TOKEN)), said) == (b"", {})


def test_what_is_said_is_kept_as_short_printable_text() -> None:
    said = json.dumps({"status": 401, "scope": "x" * 9000, "\x1b[31m": None, "nested": {"a": [1]}}).encode()

    details = complaint(bearer.xoauth2(Credentials("me", TOKEN)), said).details

    assert details == {"status": "401", "scope": "x" * 500, "\\x1b[31m": "null", "nested": '{"a": [1]}'}


def test_what_is_said_is_changed_only_where_it_could_not_be_printed() -> None:
    said = json.dumps({"schön 'für' \\": "a\tb\u2028é"}, ensure_ascii=False).encode()

    details = complaint(bearer.xoauth2(Credentials("me", TOKEN)), said).details

    assert details == {"schön 'für' \\": "a\\tb\\u2028é"}


@pytest.mark.parametrize("peer", [Peer("mail.test", 0), Peer("", 587), Peer()])
def test_oauthbearer_says_where_only_if_it_knows_all_of_it(peer: Peer) -> None:
    response = next(bearer.oauthbearer(Credentials("", TOKEN), peer))

    assert response == f"n,,\x01auth=Bearer {TOKEN}\x01\x01".encode()


@pytest.mark.parametrize("before", ["", "a", "ab"])
def test_a_server_that_echoes_the_token_is_redacted(before) -> None:
    echo = base64.b64encode((before + TOKEN).encode()).decode()
    said = json.dumps({"status": f"bad token {TOKEN}", "hint": echo, TOKEN: "x"}).encode()

    details = complaint(bearer.oauthbearer(Credentials("me", TOKEN)), said).details

    assert details["status"] == "bad token ***"
    assert details["***"] == "x"
    assert "***" in details["hint"]


@pytest.mark.parametrize("mechanism", [bearer.xoauth2, bearer.oauthbearer])
def test_a_second_challenge_is_one_too_many(mechanism) -> None:
    exchange = mechanism(Credentials("me", TOKEN))
    complaint(exchange, b"{}")

    with pytest.raises(StopIteration):
        exchange.send(b"{}")


@pytest.mark.parametrize("mechanism", [bearer.xoauth2, bearer.oauthbearer])
@pytest.mark.parametrize(
    "token", ["", "Bearer " + TOKEN, TOKEN + "\n", TOKEN + "\x01auth=Bearer x", TOKEN + "é"]
)
def test_what_is_no_token_is_refused_without_showing_it(mechanism, token) -> None:
    words = r'^a token is one word of visible ASCII, without "Bearer" before it$'
    with pytest.raises(ValueError, match=words) as caught:
        next(mechanism(Credentials("me", token)))

    assert TOKEN not in told(caught.value)


@pytest.mark.parametrize("mechanism", [bearer.xoauth2, bearer.oauthbearer])
def test_a_user_name_cannot_smuggle_a_part_of_the_message(mechanism) -> None:
    with pytest.raises(ValueError, match=r"^a control character in the user name$"):
        next(mechanism(Credentials("me\x01auth=Bearer x", TOKEN)))


def test_xoauth2_needs_a_user() -> None:
    with pytest.raises(ValueError, match=r"^XOAUTH2 needs a user name$"):
        next(bearer.xoauth2(Credentials("", TOKEN)))
