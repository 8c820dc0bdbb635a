"""Replies: octets in pieces of any size become the same values, and memory stays bounded."""

from __future__ import annotations

import contextlib
import io
import itertools
import pickle
import re
import smtplib
import unicodedata
from collections.abc import Iterable, Iterator
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aiosmtpclient import replies
from aiosmtpclient.replies import (
    MAX_CHALLENGE_LINE,
    MAX_LINE,
    MAX_REPLY,
    EnhancedCode,
    Reply,
    ReplyParser,
    printable,
)

Outcome = tuple[list[Reply], str | None]


def feed(parser: ReplyParser, pieces: Iterable[bytes]) -> Outcome:
    read = [reply for piece in pieces for reply in parser.feed(piece)]
    return read, parser.error


def octet_by_octet(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def parse(data: bytes, max_line: int = MAX_LINE) -> Outcome:
    """What comes out, after proving that it does not depend on how the octets arrived."""
    outcomes = []
    for pieces in ([data], data.splitlines(keepends=True), octet_by_octet(data)):
        parser = ReplyParser()
        parser.max_line = max_line
        outcomes.append((*feed(parser, pieces), parser.pending))
    assert outcomes[0] == outcomes[1] == outcomes[2]
    read, error, _ = outcomes[0]
    return read, error


def held(parser: ReplyParser) -> int:
    """Octets that the parser holds, each list entry counted as at least a pointer."""
    return len(parser._buffer) + len(parser._text)


def read_by_smtplib(data: bytes) -> list[tuple[int, bytes]]:
    smtp = smtplib.SMTP(local_hostname="client.example.org")
    smtp.file = io.BytesIO(data)
    read = []
    while smtp.file.tell() < len(data):
        read.append(smtp.getreply())
    return read


# The grammar (RFC 5321 section 4.2)


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"250 ok\r\n", Reply(250, b"ok")),
        (b"200 x\r\n", Reply(200, b"x")),
        (b"599 x\r\n", Reply(599, b"x")),
        (b"250 ok\n", Reply(250, b"ok")),
        (b"250\r\n", Reply(250, b"")),
        (b"250\n", Reply(250, b"")),
        (b"250 \r\n", Reply(250, b"")),
        (b"250   \r\n", Reply(250, b"")),
        (b"250  ok \t\r\n", Reply(250, b"ok")),
        (b"250 ok\r\r\n", Reply(250, b"ok")),
        (b"250 a\rb\r\n", Reply(250, b"a\rb")),
        (b"250 a-b c\r\n", Reply(250, b"a-b c")),
        (b"250-\r\n250\r\n", Reply(250, b"\n")),
        (b"250-one\r\n250-two\r\n250 three\r\n", Reply(250, b"one\ntwo\nthree")),
        (b"250-one\n250-two\r\n250 three\n", Reply(250, b"one\ntwo\nthree")),
        (b"250-mx.example.org\r\n250-PIPELINING\r\n250\r\n", Reply(250, b"mx.example.org\nPIPELINING\n")),
        (b"250 --\r\n", Reply(250, b"--")),
        (b"250 Xylophone X\r\n", Reply(250, b"Xylophone X")),
        (b"250 \x0bpage\x0c\r\n", Reply(250, b"\x0bpage\x0c")),
        (b"250-\x0bone X\x0c\r\n250 X\x0b\r\n", Reply(250, b"\x0bone X\x0c\nX\x0b")),
        (b"550 caf\xc3\xa9 \xff\x00\r\n", Reply(550, b"caf\xc3\xa9 \xff\x00")),
    ],
)
def test_a_reply_is_read_and_smtplib_agrees(octets: bytes, expected: Reply) -> None:
    assert parse(octets) == ([expected], None)
    assert read_by_smtplib(octets) == [expected]


def test_several_replies_in_one_read_come_out_in_order() -> None:
    read, error = parse(b"250 one\r\n550-two\r\n550 two\r\n354 three\r\n")
    assert read == [Reply(250, b"one"), Reply(550, b"two\ntwo"), Reply(354, b"three")]
    assert error is None


NOT_REPLY_LINES = [
    b"250ok",
    b"2500",
    b"2500 ok",
    b"2_5 ok",
    b"",
    b" ",
    b"25",
    b"-250 ok",
    b"+25 ok",
    b" 250 ok",
    b"250\tok",
    b"250\x00",
    b"250\rok",
    b"000 x",
    b"100 x",
    b"199 x",
    b"600 x",
    b"ok",
    b"HTTP/1.1 400 Bad Request",
    b"\x16\x03\x01\x02\x00",
    b"\xff\xff\xff ok",
    "２５０ ok".encode(),
    "٢٥٠ ok".encode(),
]


@pytest.mark.parametrize("line", NOT_REPLY_LINES)
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_what_is_not_a_reply_line_stops_the_parser(line: bytes, end: bytes) -> None:
    read, error = parse(b"250 before\r\n" + line + end + b"250 after\r\n")
    assert read == [Reply(250, b"before")]
    assert error == f"a line that is no reply: {printable(line)!r}"


@pytest.mark.parametrize("line", [b"", b"ok", b"2500 ok", b"250_ok", b"251", b"251 ok", b"550-no"])
def test_what_does_not_continue_a_reply_stops_the_parser_inside_it(line: bytes) -> None:
    read, error = parse(b"220 hi\r\n250-one\r\n" + line + b"\r\n250 two\r\n")
    assert read == [Reply(220, b"hi")]
    assert error is not None


def test_a_reply_with_different_codes_is_not_mended() -> None:
    assert parse(b"250-one\r\n251 two\r\n") == ([], "the code 251 inside a reply with code 250")


def test_an_error_shows_the_start_of_a_line_and_none_of_its_escape_sequences() -> None:
    _, error = parse(b"\x1b]0;owned\x07" + b"x" * 500 + b"\r\n")
    assert error is not None
    assert error.isprintable()
    assert error.startswith("a line that is no reply: ")
    assert len(error) < 120


def test_an_error_shows_eighty_octets_of_a_line_and_no_more() -> None:
    assert parse(b"x" * 80 + b"\r\n") == ([], f"a line that is no reply: {'x' * 80!r}")
    assert parse(b"x" * 81 + b"\r\n") == ([], f"a line that is no reply: {'x' * 80!r}")


@pytest.mark.parametrize("octets", [b"junk\r\n250 o", b"x" * (MAX_LINE + 2)])
def test_a_parser_that_stopped_holds_nothing(octets: bytes) -> None:
    parser = ReplyParser()
    parser.feed(octets)
    assert parser.error is not None
    assert not parser.pending
    assert held(parser) == 0


def test_nothing_is_read_after_an_error() -> None:
    parser = ReplyParser()
    assert feed(parser, [b"junk\r\n"]) == ([], "a line that is no reply: 'junk'")
    assert feed(parser, [b"250 ok\r\n", b"250-a\r\n250 b\r\n"]) == ([], "a line that is no reply: 'junk'")


def test_what_follows_an_error_does_not_rewrite_its_cause() -> None:
    assert parse(b"junk\r\n" + b"x" * (MAX_LINE + 2)) == ([], "a line that is no reply: 'junk'")
    assert parse(b"junk\r\n" + b"x" * (MAX_LINE + 2) + b"\r\n") == ([], "a line that is no reply: 'junk'")
    assert parse(b"junk\r\nmore junk\r\n") == ([], "a line that is no reply: 'junk'")


# What is still owed


@pytest.mark.parametrize(
    "octets", [b"2", b"250", b"250 ok", b"250 ok\r", b"250-ok\r\n", b"250-ok\r\n25", b"\r"]
)
def test_half_a_reply_is_pending(octets: bytes) -> None:
    parser = ReplyParser()
    assert parser.feed(octets) == []
    assert parser.pending
    assert parser.error is None


def test_nothing_is_pending_before_or_after_whole_replies() -> None:
    parser = ReplyParser()
    assert not parser.pending
    parser.feed(b"250-one\r\n250 two\r\n")
    assert not parser.pending
    assert parser.feed(b"") == []
    assert not parser.pending


def test_half_a_reply_is_finished_by_the_next_read() -> None:
    parser = ReplyParser()
    assert parser.feed(b"250-one\r\n25") == []
    assert parser.feed(b"0 two\r\n550 th") == [Reply(250, b"one\ntwo")]
    assert parser.feed(b"ree\r\n") == [Reply(550, b"three")]


@pytest.mark.parametrize(
    ("held", "may_be"),
    [
        (b"", True),
        (b"4", True),
        (b"42", True),
        (b"421", True),
        (b"421-bye\r\n", True),
        (b"421-bye\r\n25", True),
        (b"5", False),
        (b"422", False),
        (b"\r", False),
        (b"250-x\r\n", False),
        (b"250-x\r\n421", False),
    ],
)
def test_it_is_known_which_reply_a_part_may_become(held: bytes, may_be: bool) -> None:
    for pieces in ([held], octet_by_octet(held)):
        parser = ReplyParser()
        feed(parser, pieces)
        assert parser.begins(b"421") is may_be


def test_an_error_shows_of_a_line_only_what_may_be_shown() -> None:
    parser = ReplyParser(lambda line: line.replace(b"sesame", b"***"))
    # Cut after it was hidden: the cut must not leave the beginning of a secret standing.
    assert feed(parser, [b"x" * 76 + b"sesame\r\n"]) == ([], f"a line that is no reply: {'x' * 76 + '***'!r}")


# The caps


@pytest.mark.parametrize("cap", [MAX_LINE, MAX_CHALLENGE_LINE])
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_a_line_may_be_as_long_as_the_cap_and_no_longer(cap: int, end: bytes) -> None:
    longest = b"334 " + b"x" * (cap - 4)
    assert parse(longest + end, cap) == ([Reply(334, longest[4:])], None)
    assert parse(longest + b"x" + end, cap) == ([], f"a reply line of more than {cap} octets")
    assert parse(longest + b"xx" + end, cap) == ([], f"a reply line of more than {cap} octets")


def test_a_line_at_the_cap_waits_for_its_end() -> None:
    longest = b"250 " + b"x" * (MAX_LINE - 4)
    assert parse(longest) == ([], None)
    assert parse(longest + b"\r") == ([], None)
    assert parse(longest + b"\rx") == ([], f"a reply line of more than {MAX_LINE} octets")


def test_junk_longer_than_a_line_is_called_too_long_however_it_is_split() -> None:
    assert parse(b"x" * (MAX_LINE + 2) + b"\r\n") == ([], f"a reply line of more than {MAX_LINE} octets")


def test_a_long_challenge_is_read_only_while_one_is_owed() -> None:
    challenge = b"334 " + b"x" * 12288 + b"\r\n"
    parser = ReplyParser()
    parser.max_line = MAX_CHALLENGE_LINE
    assert parser.feed(challenge) == [Reply(334, b"x" * 12288)]
    parser.max_line = MAX_LINE
    assert parser.feed(challenge) == []
    assert parser.error == f"a reply line of more than {MAX_LINE} octets"


def lines_of(octets: int, code: bytes = b"250") -> bytes:
    """One reply of so many octets, line ends not counted."""
    full, rest = divmod(octets - 4, 1024)
    middle = code + b"-" + b"x" * 1020 + b"\r\n"
    return middle * full + code + b" " + b"y" * rest + b"\r\n"


def test_a_reply_may_be_as_long_as_the_cap_and_no_longer() -> None:
    read, error = parse(lines_of(MAX_REPLY))
    assert error is None
    assert [len(reply.lines) for reply in read] == [64]
    assert parse(lines_of(MAX_REPLY + 1)) == ([], f"a reply of more than {MAX_REPLY} octets")


def test_the_octets_of_each_reply_are_counted_anew() -> None:
    for octets in (40_000, MAX_REPLY):
        read, error = parse(lines_of(octets) * 3)
        assert len(read) == 3
        assert error is None


def test_empty_lines_of_a_reply_count_as_well() -> None:
    # 4 octets each: a server cannot grow the list of lines for nothing.
    assert parse(b"250-\r\n" * (MAX_REPLY // 4 + 1)) == ([], f"a reply of more than {MAX_REPLY} octets")


def most_held_of(parser: ReplyParser, piece: bytes, octets: int) -> int:
    """Feed the same piece for so many octets; the most that was held on the way."""
    most = 0
    for _ in range(octets // len(piece) + 1):
        assert parser.feed(piece) == []
        most = max(most, held(parser))
    return most


@pytest.mark.parametrize("start", [b"", b"250 ", b"250-a\r\n250-", b"junk\r\n", b"250-a\r\n550 b\r\n"])
@pytest.mark.parametrize("size", [1, 1000, 5000])
def test_an_endless_line_does_not_fill_the_memory(start: bytes, size: int) -> None:
    parser = ReplyParser()
    parser.feed(start)
    assert most_held_of(parser, b"x" * size, 4 * MAX_LINE) <= MAX_LINE + 100
    assert parser.error is not None


@pytest.mark.parametrize("line", [b"250-\r\n", b"250-x\r\n", b"250-" + b"x" * 8000 + b"\r\n"])
def test_an_endless_reply_does_not_fill_the_memory(line: bytes) -> None:
    parser = ReplyParser()
    some = line * max(1, 4000 // len(line))
    # At worst each 4 octets of the reply cost an entry of the list.
    assert most_held_of(parser, some, 6 * MAX_REPLY) <= MAX_REPLY + 8 * MAX_REPLY // 4
    assert parser.error == f"a reply of more than {MAX_REPLY} octets"


def test_good_replies_leave_nothing_behind() -> None:
    parser = ReplyParser()
    for _ in range(50):
        assert len(parser.feed(b"250 ok\r\n" * 1000)) == 1000
    assert held(parser) == 0
    assert parser._octets == 0


def test_a_reply_that_is_said_again_and_again_is_made_once() -> None:
    parser = ReplyParser()
    for line in (b"250 ok", b"250 " + b"x" * 75):
        first, again = parser.feed((line + b"\r\n") * 2)
        assert first is again


@pytest.mark.parametrize(
    "lines",
    [
        [b"250 " + b"x" * 76],  # with its CR one more than is worth it
        [b"550 no", b"220 hello", b"251 forwarded"],
        [b"250 queued as %d" % number for number in range(1000)],
    ],
    ids=["long", "other than 250 and 354", "many"],
)
def test_few_replies_are_remembered_and_only_short_ones(lines: list[bytes]) -> None:
    parser = ReplyParser()
    replies._known.clear()
    for line in lines:
        assert len(parser.feed(line + b"\r\n")) == 1
        assert len(replies._known) <= (256 if len(lines) == 1000 else 0)


# However the octets are split

ends = st.sampled_from([b"\r\n", b"\r\n", b"\n", b"\r", b"\r\r\n", b""])
codes = st.sampled_from([b"250", b"250", b"251", b"354", b"421", b"550", b"199", b"25", b"2500", b""])
separators = st.sampled_from([b" ", b"-", b"-", b"", b"\t"])
texts = st.one_of(st.just(b""), st.binary(max_size=12), st.integers(30, 45).map(lambda n: b"x" * n))
wild_lines = st.tuples(codes, separators, texts, ends).map(b"".join)
wild_streams = st.lists(wild_lines, max_size=12).map(b"".join)
good_lines = st.binary(max_size=30).map(lambda text: text.replace(b"\n", b"."))


@st.composite
def good_replies(draw: st.DrawFn) -> bytes:
    """One reply as RFC 5321 has it, with the liberties that servers take."""
    code = b"%d" % draw(st.integers(200, 599))
    end = draw(st.sampled_from([b"\r\n", b"\n"]))
    *middle, last = draw(st.lists(good_lines, min_size=1, max_size=5))
    final = code + draw(st.sampled_from([b" ", b" ", b""])) if not last else code + b" " + last
    return b"".join(code + b"-" + line + end for line in middle) + final + end


good_streams = st.lists(good_replies(), min_size=1, max_size=6).map(b"".join)


def split_at(data: bytes, cuts: list[int]) -> list[bytes]:
    points = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(points)]


@given(st.one_of(wild_streams, good_streams, st.binary()), st.lists(st.integers(0, 4096), max_size=20))
def test_the_outcome_does_not_depend_on_how_the_octets_were_split(data: bytes, cuts: list[int]) -> None:
    # Small caps, so that short streams run into them. What is known by heart was read with those there are.
    with mock.patch.object(replies, "MAX_REPLY", 80), mock.patch.dict(replies._known, clear=True):
        expected = parse(data, max_line=40)
        parser = ReplyParser()
        parser.max_line = 40
        assert feed(parser, split_at(data, cuts)) == expected


GRAMMAR = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)


def by_the_grammar(data: bytes, max_line: int, max_reply: int) -> tuple[list[Reply], bool]:
    """The replies in whole lines, and whether all of them fit, with no short cut for those of one line."""
    read: list[Reply] = []
    held: list[re.Match[bytes]] = []
    for line in data.split(b"\n")[:-1]:
        match = GRAMMAR.fullmatch(line.removesuffix(b"\r"))
        if match is None or len(match[0]) > max_line:
            return read, False
        held.append(match)
        if match[1] != held[0][1] or sum(len(each[0]) for each in held) > max_reply:
            return read, False
        if match[2] != b"-":
            read.append(Reply(int(match[1]), b"\n".join((each[3] or b"").strip(b" \t\r") for each in held)))
            held = []
    return read, True


@given(st.one_of(wild_streams, good_streams, st.binary()).map(lambda data: data + b"\n"))
@example(b"250 one\r\n251 two\r\n250 three\n")
@example(b"250-a\r\n250 " + b"x" * 36 + b"\r\n250 " + b"x" * 37 + b"\r\n250 ok\r\n")
def test_a_reply_of_one_line_has_no_grammar_of_its_own(data: bytes) -> None:
    with mock.patch.object(replies, "MAX_REPLY", 80), mock.patch.dict(replies._known, clear=True):
        parser = ReplyParser()
        parser.max_line = 40
        read, error = feed(parser, [data])
    assert (read, error is None) == by_the_grammar(data, max_line=40, max_reply=80)


@given(st.one_of(wild_streams, good_streams, st.binary()))
@example(b"250 one\r\n250 two\r\n354 go\r\n")
@example(b"250 one\r\n250 two\r\n250 queued as 1\r\n")
@example(b"250\r\n250 two\r\n")
@example(b"250 one\r\n354 go\r\n250 two\r\n")
@example(b"\n250 one\r\n")
def test_what_is_read_at_once_is_what_is_read_anyway(data: bytes) -> None:
    for _ in range(2):  # the second time it may be known by heart
        at_once, parser = replies.at_once(data), ReplyParser()
        read, error = feed(parser, [data])
        if at_once is not None:
            answers, others_positive, last = at_once
            assert (list(answers), None, False) == (read, error, parser.pending)
            codes = [reply.code for reply in read]
            assert (others_positive, last) == (all(code < 300 for code in codes[:-1]), codes[-1])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"250 ok",
        b"250-more\r\n250 end\r\n",
        b"250 ok\r\n250-more\r\n",
        b"334 cGFzcw==\r\n",
        b"250 ok\r\n421 bye\r\n",
        b"421 bye\r\n250 ok\r\n",
        b"199 ok\r\n",
        b"600 ok\r\n",
    ],
)
def test_whatever_is_more_than_an_answer_or_less_is_not_read_at_once(data: bytes) -> None:
    for _ in range(2):
        assert replies.at_once(data) is None


def test_a_line_that_is_too_long_is_not_read_at_once() -> None:
    longest = b"250 " + b"x" * (MAX_LINE - 5) + b"\r\n"
    line = b"250 " + b"x" * MAX_LINE + b"\r\n"
    assert replies.at_once(longest) is not None
    assert replies.at_once(line) is None
    assert replies.at_once(b"250 ok\r\n" + line) is None
    assert replies.at_once(line + b"250 ok\r\n") is None


@pytest.fixture
def nothing_known() -> Iterator[None]:
    with contextlib.ExitStack() as forgotten:
        for known in (replies._known, replies._groups, replies._answers):
            forgotten.enter_context(mock.patch.dict(known, clear=True))
        yield


@pytest.mark.usefixtures("nothing_known")
def test_what_answers_an_envelope_is_known_by_heart_and_what_answers_content_is_not() -> None:
    envelope = b"250 a\r\n251 b\r"
    read = (Reply(250, b"a"), Reply(251, b"b"))
    final, go_on = Reply(250, b"queued as 1"), Reply(354, b"go")
    assert replies.at_once(envelope + b"\n250 queued as 1\r\n") == ((*read, final), True, 250)
    assert replies._groups == {envelope: (read, True)}
    assert not replies._answers
    assert replies.at_once(envelope + b"\n354 go\r\n") == ((*read, go_on), True, 354)
    assert replies._groups.keys() == {envelope}
    assert replies._answers.keys() == {envelope + b"\n354 go\r\n"}
    replies._groups[envelope] = by_heart = (Reply(250, b"by"), Reply(550, b"heart")), False
    assert replies.at_once(envelope + b"\n250 queued as 1\r\n") == ((*by_heart[0], final), False, 250)


@pytest.mark.usefixtures("nothing_known")
@pytest.mark.parametrize(("octets", "kept"), [(320, True), (321, False)])
def test_what_is_long_is_not_kept(octets: int, kept: bool) -> None:
    group = b"250 one\r\n250 " + b"x" * (octets - 14) + b"\r"
    assert len(group) == octets
    assert replies.at_once(group + b"\n250 two\r\n") is not None
    assert (group in replies._groups) is kept


@pytest.mark.usefixtures("nothing_known")
def test_what_is_known_of_a_server_that_never_repeats_itself_stays_small() -> None:
    parser, most = ReplyParser(), 0
    for number in range(3 * replies._KNOWN):
        assert replies.at_once(b"250 ok %d\r\n354 go %d\r\n" % (number, number)) is not None
        parser.feed(b"250 fine %d\r\n" % number)
        most = max(most, len(replies._known), len(replies._groups), len(replies._answers))
    assert most == replies._KNOWN


# Side by side with smtplib


@given(good_streams)
def test_smtplib_reads_the_same_code_and_message_from_the_same_octets(data: bytes) -> None:
    read, error = parse(data)
    assert error is None
    assert read == read_by_smtplib(data)


# A reply as a value


def test_a_reply_unpacks_and_compares_like_the_tuple_of_smtplib() -> None:
    code, message = reply = Reply(250, b"ok")
    assert (code, message) == (250, b"ok") == reply
    assert pickle.loads(pickle.dumps(reply)).positive


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        (200, "positive"),
        (299, "positive"),
        (300, "intermediate"),
        (399, "intermediate"),
        (400, "temporary"),
        (499, "temporary"),
        (500, "permanent"),
        (599, "permanent"),
        (-1, None),
        (199, None),
        (600, None),
    ],
)
def test_the_first_digit_decides(code: int, meaning: str | None) -> None:
    reply = Reply(code, b"")
    said = {name for name in ("positive", "intermediate", "temporary", "permanent") if getattr(reply, name)}
    assert said == ({meaning} if meaning else set())


def test_the_text_is_one_string_a_line() -> None:
    reply = Reply(250, b"mx.example.org\nPIPELINING\n\nSIZE 1000")
    assert reply.lines == ("mx.example.org", "PIPELINING", "", "SIZE 1000")
    assert reply.text == "mx.example.org\nPIPELINING\n\nSIZE 1000"
    assert reply.display == "250 mx.example.org / PIPELINING /  / SIZE 1000"


def test_a_reply_without_text_is_shown_as_its_code() -> None:
    assert Reply(250, b"").lines == ("",)
    assert Reply(250, b"").text == ""
    assert Reply(250, b"").display == "250"


def test_utf8_is_shown_and_other_octets_are_escaped() -> None:
    assert Reply(550, "Käse, 山田, 🙂".encode()).text == "Käse, 山田, 🙂"
    assert Reply(550, b"K\xe4se").text == r"K\xe4se"


def test_an_escape_sequence_of_the_server_does_not_reach_the_terminal() -> None:
    reply = Reply(550, b"\x1b[2Jgone\x00\x07\r\n\x9b31m red")
    assert reply.lines == (r"\x1b[2Jgone\x00\x07\r", r"\x9b31m red")
    assert reply.text == "\\x1b[2Jgone\\x00\\x07\\r\n\\x9b31m red"
    assert reply.display == r"550 \x1b[2Jgone\x00\x07\r / \x9b31m red"


@given(st.binary())
def test_lines_and_display_are_always_printable(message: bytes) -> None:
    reply = Reply(550, message)
    assert all(line.isprintable() for line in reply.lines)
    assert reply.display.isprintable()
    assert reply.text == "\n".join(reply.lines)


# Printable

BIDI = [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
ACTS_ON_A_TERMINAL = {"Cc", "Cf", "Cs", "Zl", "Zp"}


@pytest.mark.parametrize("code_point", [*range(0x20), *range(0x7F, 0xA0)])
def test_control_characters_are_escaped(code_point: int) -> None:
    shown = printable(b"a" + chr(code_point).encode() + b"b")
    assert shown == "a" + repr(chr(code_point))[1:-1] + "b"
    assert shown.isascii()


@pytest.mark.parametrize("octet", range(0x80, 0x100))
def test_an_octet_that_is_not_utf8_is_escaped(octet: int) -> None:
    assert printable(b"a" + bytes([octet]) + b"b") == f"a\\x{octet:02x}b"


@pytest.mark.parametrize("code_point", BIDI)
def test_bidi_controls_are_escaped(code_point: int) -> None:
    assert printable(f"a{chr(code_point)}b".encode()) == f"a\\u{code_point:04x}b"


def test_a_surrogate_is_escaped_octet_by_octet() -> None:
    assert printable("a\ud800b".encode("utf-8", "surrogatepass")) == r"a\xed\xa0\x80b"


def test_nothing_that_could_act_on_a_terminal_passes_unescaped() -> None:
    acting = [c for c in map(chr, range(0x110000)) if unicodedata.category(c) in ACTS_ON_A_TERMINAL]
    for character in acting:
        shown = printable(character.encode("utf-8", "surrogatepass"))
        assert shown.startswith("\\"), hex(ord(character))
        assert shown.isascii(), hex(ord(character))


def test_ordinary_text_is_left_alone() -> None:
    text = r"Grüße, Ελλάδα, עברית, 漢字, 🙂, \x1b, 'quoted' \ and | plain"
    assert printable(text.encode()) == text


# Enhanced status codes (RFC 2034, RFC 3463)


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        (250, b"2.1.0 ok", (2, 1, 0)),
        (250, b"2.0.0", (2, 0, 0)),
        (250, b"2.1.5\tok", (2, 1, 5)),
        (451, b"4.7.1 greylisted", (4, 7, 1)),
        (550, b"5.7.26 unauthenticated", (5, 7, 26)),
        (550, b"5.999.999 far", (5, 999, 999)),
        (550, b"5.1.1 first line\n5.1.2 second line", (5, 1, 1)),
        (550, b"5.1.1\nsecond line", (5, 1, 1)),
    ],
)
def test_an_enhanced_code_is_read(code: int, message: bytes, expected: tuple[int, int, int]) -> None:
    enhanced = Reply(code, message).enhanced_code
    assert enhanced == expected
    assert isinstance(enhanced, EnhancedCode)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (550, b"4.7.1 class of another reply"),
        (250, b"5.1.1 not ok"),
        (450, b"5.2.2 full"),
        (354, b"3.0.0 no such class"),
        (354, b"2.0.0 go on"),
        (250, b""),
        (250, b"ok 2.1.0"),
        (250, b" 2.1.0 ok"),
        (250, b"2.1 ok"),
        (250, b"2.1.0.0 ok"),
        (250, b"2.1.0ok"),
        (250, b"2.1.0-ok"),
        (250, b"2..0 ok"),
        (250, b"2.1. ok"),
        (550, b"5.1000.1 ok"),
        (550, b"5.1.1000 ok"),
        (550, "5.١.1 no".encode()),
        (550, b"192.0.2.1 is listed"),
        (550, b"no\n5.1.1 second line only"),
    ],
)
def test_what_is_no_enhanced_code_of_this_reply_is_not_taken_for_one(code: int, message: bytes) -> None:
    assert Reply(code, message).enhanced_code is None


def test_an_enhanced_code_is_written_with_dots() -> None:
    assert str(EnhancedCode(5, 7, 26)) == "5.7.26"
    assert EnhancedCode(5, 7, 26).class_ == 5
    assert (EnhancedCode(5, 7, 26).subject, EnhancedCode(5, 7, 26).detail) == (7, 26)
