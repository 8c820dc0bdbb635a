"""A plain message between its first octet and its last yes: what is taken, and what it unfolds into."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiosmtpclient.plain import Plain
from aiosmtpclient.replies import Reply
from aiosmtpclient.steps import Phase

HEAD = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n"
BODY = b"Subject: x\r\n\r\n.y\r\n"
OK = b"250 ok\r\n"
GO = b"354 go\r\n"
QUEUED = b"250 queued\r\n"


def plain(*, chunked: bool = False, secrets: tuple[bytes, ...] = ()) -> tuple[Plain, bytes]:
    message = Plain(cast(Any, Future()), secrets, chunked=chunked)
    first = message.start((HEAD, 1, BODY))
    assert not message.ended
    message.ended = message.chunked
    return message, first


def owed(message: Plain) -> tuple[int, bool, bool]:
    return message.missing, message.behind is None, message.ended


def test_the_content_goes_behind_the_354_with_its_dots_doubled() -> None:
    message, first = plain()
    assert first == HEAD + b"DATA\r\n"
    assert not message.ended
    assert message.takes(OK + OK + GO)
    assert (message.missing, message.go_on()) == (0, b"Subject: x\r\n\r\n..y\r\n.\r\n")
    assert message.ended
    assert message.takes(QUEUED)
    assert (message.missing, message.replies[-1]) == (0, Reply(250, b"queued"))


def test_a_chunk_goes_with_its_envelope_as_it_is() -> None:
    message, first = plain(chunked=True)
    assert first == HEAD + b"BDAT 18 LAST\r\n" + BODY
    assert message.ended
    assert message.takes(OK + OK + QUEUED)
    assert (message.missing, message.replies[-1]) == (0, Reply(250, b"queued"))


@pytest.mark.parametrize("chunked", [False, True])
def test_replies_may_come_one_by_one(chunked: bool) -> None:
    message, _ = plain(chunked=chunked)
    for left in (2, 1):
        assert message.takes(OK)
        assert (message.missing, message.last_reply) == (left, Reply(250, b"ok"))
    assert message.decided_next is chunked
    assert message.takes(QUEUED if chunked else GO)
    assert message.missing == 0


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    "data",
    [
        b"250 o",
        b"550 no\r\n",
        b"250-more\r\n",
        b"421 bye\r\n",
        b"354 go\r\n",
        OK + b"550 no\r\n",
        OK + b"354 go\r\n",
        OK + b"550 no\r\n" + GO,
        OK + OK + b"550 no\r\n",
        OK + OK + OK + OK,
        OK + b"250 s3cret\r\n",
        OK + OK + b"250 s3cret\r\n",
    ],
)
def test_whatever_is_not_yes_to_what_it_answers_is_not_taken(data: bytes, chunked: bool) -> None:
    message, _ = plain(chunked=chunked, secrets=(b"s3cret",))
    before = owed(message)
    assert not message.takes(data)
    assert owed(message) == before
    assert message.last_reply is None
    assert message.unfold().received == []


def test_a_yes_where_the_server_should_ask_for_more_is_not_taken() -> None:
    message, _ = plain()
    assert not message.takes(OK + OK + QUEUED)
    message, _ = plain(chunked=True)
    assert not message.takes(OK + OK + GO)


@pytest.mark.parametrize("data", [b"354 more\r\n", b"550 no\r\n", QUEUED + QUEUED, QUEUED[:-1]])
def test_only_a_yes_to_the_content_is_taken(data: bytes) -> None:
    message, _ = plain()
    message.takes(OK + OK + GO)
    message.go_on()
    assert not message.takes(data)
    assert (message.missing, message.last_reply) == (1, Reply(354, b"go"))


def steps_of(message: Plain) -> list[tuple[Any, ...]]:
    message.unfold()
    return [
        (step.verbs, step.owed, step.lines, step.received, step.ended, step.performed, step.during)
        for step in message.steps
    ]


GROUP = ("MAIL", "RCPT", "DATA")
ENVELOPE = [Reply(250, b"ok"), Reply(250, b"ok"), Reply(354, b"go")]


def test_before_the_354_it_unfolds_into_the_envelope() -> None:
    message, _ = plain()
    assert steps_of(message) == [(GROUP, 3, 3, [], False, True, Phase.MAIL)]
    message, _ = plain()
    message.takes(OK)
    assert steps_of(message) == [(GROUP, 3, 3, ENVELOPE[:1], False, True, Phase.MAIL)]


def test_behind_the_354_it_unfolds_into_envelope_and_content() -> None:
    message, _ = plain()
    message.takes(OK)
    message.takes(OK + GO)
    message.go_on()
    envelope = (GROUP, 3, 3, ENVELOPE, False, True, Phase.MAIL)
    assert steps_of(message) == [
        envelope,
        (("end of content",), 1, 0, [], True, True, Phase.CONTENT),
    ]
    message.takes(QUEUED)
    assert steps_of(message) == [
        envelope,
        (("end of content",), 1, 0, [Reply(250, b"queued")], True, True, Phase.CONTENT),
    ]


def test_a_chunk_unfolds_into_one_step() -> None:
    verbs = ("MAIL", "RCPT", "end of content")
    message, _ = plain(chunked=True)
    message.takes(OK)
    assert steps_of(message) == [(verbs, 3, 2, [Reply(250, b"ok")], True, True, Phase.CONTENT)]


@given(
    st.booleans(), st.lists(st.sampled_from([OK, GO, QUEUED, b"550 no\r\n", b"25"]), max_size=6), st.data()
)
def test_the_cut_between_what_is_read_makes_no_difference_to_what_it_unfolds_into(
    chunked: bool, said: list[bytes], data: st.DataObject
) -> None:
    """Whatever was not taken is read by those who can: here only that nothing is lost or taken twice."""
    message, _ = plain(chunked=chunked)
    taken: list[bytes] = []
    while said:
        some = data.draw(st.integers(1, len(said)))
        if not message.takes(b"".join(said[:some])):
            break
        taken, said = taken + said[:some], said[some:]
        if not message.missing:
            if message.behind is None:
                break
            message.go_on()
    message.unfold()
    received = [reply for step in message.steps for reply in step.received]
    assert [reply.code for reply in received] == [int(line[:3]) for line in taken]


@pytest.mark.parametrize("chunked", [False, True])
def test_the_next_message_begins_with_nothing_of_the_one_before(chunked: bool) -> None:
    message, first = plain(chunked=chunked)
    for octets in (OK, OK) if chunked else (OK, OK + GO):
        message.takes(octets)
    if not chunked:
        message.go_on()
    message.takes(QUEUED)
    assert message.start((HEAD, 1, BODY)) == first
    assert (message.missing, message.ended, message.last_reply) == (3, False, None)
    message.ended = message.chunked
    assert message.ended is chunked
    assert message.unfold().received == []
    assert len(message.steps) == 1
