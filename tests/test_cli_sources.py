"""What bulk reads: files, folders, Maildirs, mbox files, JSON lines, and what is wrong with them."""

from __future__ import annotations

import asyncio
import io
import json
import mailbox
import os
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest

from aiosmtpclient.cli import feeding, mboxes
from aiosmtpclient.cli.exits import Exit, Failure, exit_of
from aiosmtpclient.cli.feeding import Feed
from aiosmtpclient.cli.letters import Desk, Letter
from aiosmtpclient.cli.sources import Found, Sources


def letter(subject: str, body: str = "hello\n") -> bytes:
    return f"From: ann@example.org\nTo: bob@example.net\nSubject: {subject}\n\n{body}".encode()


def found(*arguments: object, format: str | None = None, kind: str = "mboxrd") -> list[Found]:
    return list(Sources([str(each) for each in arguments], format, kind, threading.Event()))


def octets(*arguments: object, format: str | None = None, kind: str = "mboxrd") -> list[bytes]:
    all_found = found(*arguments, format=format, kind=kind)
    assert [each.problem for each in all_found] == [None] * len(all_found)
    return [each.octets for each in all_found]


def problem(*arguments: object, format: str | None = None, kind: str = "mboxrd") -> Exception:
    [one] = found(*arguments, format=format, kind=kind)
    assert one.problem is not None
    assert one.octets == b""
    return one.problem


def fill(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(letter(name))
    return folder


# Files and folders


def test_files_are_read_in_the_order_of_the_arguments(tmp_path: Path) -> None:
    folder = fill(tmp_path, "b.eml", "a", "c.txt")
    names = ["b.eml", "a", "c.txt"]
    assert octets(*(folder / name for name in names)) == [letter(name) for name in names]


def test_a_folder_gives_its_messages_by_name_and_nothing_else(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", "b.eml", "a.eml", "notes.txt")
    assert octets(folder) == [letter("a.eml"), letter("b.eml")]
    assert [each.label for each in found(folder)] == [str(folder / "a.eml"), str(folder / "b.eml")]


def test_places_do_not_depend_on_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fill(tmp_path / "in", "a.eml")
    here = found(folder)
    monkeypatch.chdir(folder)
    there = [*found("a.eml"), *found(".")]
    assert {each.place for each in [*here, *there]} == {str(folder / "a.eml")}
    assert [each.label for each in there] == ["a.eml", "./a.eml"]


def test_a_message_that_is_named_twice_is_two_messages(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", "a.eml", "b.eml")
    places = [each.place for each in found(folder, folder / "b.eml", folder / "b.eml")]
    b = str(folder / "b.eml")
    assert places == [str(folder / "a.eml"), b, f"{b} (2)", f"{b} (3)"]


def test_a_file_that_is_missing_is_a_message_that_cannot_be_sent(tmp_path: Path) -> None:
    fill(tmp_path, "a.eml")
    missing, there = found(tmp_path / "no.eml", tmp_path / "a.eml")
    assert isinstance(missing.problem, Failure)
    assert exit_of(missing.problem) is Exit.NOINPUT
    assert str(missing.problem) == f"{tmp_path / 'no.eml'}: No such file or directory"
    assert there.octets == letter("a.eml")


def test_a_file_that_vanishes_while_others_are_read_is_a_message_too(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", "a.eml", "b.eml", "c.eml")
    reading = iter(Sources([str(folder)], None, "mboxrd", threading.Event()))
    next(reading)
    (folder / "b.eml").unlink()
    gone, last = reading
    assert "No such file" in str(gone.problem)
    assert last.octets == letter("c.eml")


def test_a_folder_named_like_a_message_is_a_message_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "in" / "a.eml").mkdir(parents=True)
    assert "Is a directory" in str(problem(tmp_path / "in"))


@pytest.mark.parametrize(
    ("name", "content", "count"),
    [
        ("a.mbox", b"From x\nA: b\n\n\nFrom y\nA: c\n\n", 2),
        ("a.MBX", b"From x\nA: b\n\n", 1),
        ("a", b"From x\nA: b\n\n\nFrom y\nA: c\n\n", 2),
        ("a", b"From: x\nA: b\n\nFrom y\n", 1),
        ("a.eml", b"From x\nA: b\n\n\nFrom y\nA: c\n\n", 1),
        ("a.jsonl", b'{"content":"a"}\n{"content":"b"}\n', 2),
        ("a.ndjson", b'{"content":"a"}\n', 1),
        ("a.json", b'{"content":"a"}\n{"content":"b"}\n', 1),
    ],
)
def test_what_a_file_is_goes_by_its_name_and_its_beginning(
    name: str, content: bytes, count: int, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    assert len(octets(tmp_path / name)) == count


def test_what_a_file_is_can_be_said(tmp_path: Path) -> None:
    path = tmp_path / "a.eml"
    path.write_bytes(b'{"content":"a"}\n{"content":"b"}\n')
    assert octets(path, format="jsonl") == [b"a", b"b"]


def test_the_share_that_was_read_grows_to_all_of_it(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", *(f"{n}.eml" for n in range(4)))
    lines = tmp_path / "in.jsonl"
    lines.write_text("".join(f'{{"content":"{n}"}}\n' for n in range(4)))
    sources = Sources([str(folder), str(lines)], None, "mboxrd", threading.Event())
    shares = [sources.share for _ in sources]
    assert shares == [0, 1 / 8, 2 / 8, 3 / 8, 5 / 8, 6 / 8, 7 / 8, 1]
    assert sources.share == 1


def test_nothing_more_is_read_when_nothing_more_is_wanted(tmp_path: Path) -> None:
    folder, stop = fill(tmp_path / "in", "a.eml", "b.eml"), threading.Event()
    reading = iter(Sources([str(folder)], None, "mboxrd", stop))
    next(reading)
    stop.set()
    assert list(reading) == []


# Maildirs


def maildir(tmp_path: Path, *subjects: str) -> mailbox.Maildir:
    box = mailbox.Maildir(tmp_path / "box")
    for subject in subjects:
        box.add(letter(subject))
    return box


def test_a_maildir_gives_what_is_new_and_what_was_seen(tmp_path: Path) -> None:
    box = maildir(tmp_path, "one", "two", "three")
    seen = mailbox.MaildirMessage(letter("seen"))
    seen.set_subdir("cur")
    seen.set_flags("S")
    box.add(seen)
    (tmp_path / "box" / "tmp" / "unfinished").write_bytes(b"x")
    (tmp_path / "box" / "new" / ".hidden").write_bytes(b"x")
    assert set(octets(tmp_path / "box")) == {letter(name) for name in ("one", "two", "three", "seen")}


def test_a_message_that_was_read_meanwhile_keeps_its_place(tmp_path: Path) -> None:
    box = maildir(tmp_path, "one")
    [before] = found(tmp_path / "box")
    [name] = os.listdir(tmp_path / "box" / "new")
    (tmp_path / "box" / "new" / name).rename(tmp_path / "box" / "cur" / f"{name}:2,RS")
    [after] = found(tmp_path / "box")
    assert (after.place, after.octets) == (before.place, before.octets)
    box.close()


def test_a_message_that_is_taken_out_of_a_maildir_meanwhile_is_named(tmp_path: Path) -> None:
    box = maildir(tmp_path, "one", "two")
    reading = iter(Sources([str(tmp_path / "box")], None, "mboxrd", threading.Event()))
    first = next(reading)
    [other] = [key for key in box.keys() if key not in first.place]  # noqa: SIM118
    box.remove(other)
    [gone] = reading
    assert "there no more" in str(gone.problem)
    assert other in gone.label


# mbox


def mbox(content: bytes, kind: str = "mboxrd") -> list[bytes]:
    messages = list(mboxes.messages(io.BytesIO(content), kind))
    return [each for each in messages if isinstance(each, bytes)] if messages else []


@pytest.mark.parametrize("kind", ["mboxrd", "mboxo"])
def test_an_mbox_gives_its_messages_without_what_is_between_them(kind: str) -> None:
    content = b"From ann Mon\nA: 1\n\none\n\nFrom bob Tue\nA: 2\n\ntwo\n\n\nFrom x\n\n\nFrom last\nA: 3"
    assert mbox(content, kind) == [b"A: 1\n\none\n", b"A: 2\n\ntwo\n\n", b"\n", b"A: 3"]


def test_line_ends_may_be_cr_lf() -> None:
    assert mbox(b"From a\r\nA: 1\r\n\r\nx\r\n\r\nFrom b\r\nA: 2\r\n\r\n") == [
        b"A: 1\r\n\r\nx\r\n",
        b"A: 2\r\n",
    ]


@pytest.mark.parametrize(
    ("kind", "meant"),
    [
        ("mboxrd", b"\nFrom a\n>From b\n> From c\nx From d\n"),
        ("mboxo", b"\nFrom a\n>>From b\n> From c\nx From d\n"),
    ],
)
def test_quoted_lines_are_unquoted_as_the_kind_says(kind: str, meant: bytes) -> None:
    assert mbox(b"From x\n\n>From a\n>>From b\n> From c\nx From d\n\n", kind) == [meant]


def test_a_line_that_was_not_quoted_cuts_no_message_in_two() -> None:
    assert mbox(b"From x\n\nhello\nFrom here on\n\n") == [b"\nhello\nFrom here on\n"]


def test_mboxcl2_counts_instead_of_quoting() -> None:
    body = b"\nFrom here\n\n>From there\n"
    head = f"A: 1\ncontent-length : {len(body)}\n\n".encode()
    content = b"From x\n" + head + body + b"\nFrom y\nContent-Length: 0\n\n\nFrom z\nContent-Length: 1\n\nx"
    assert mbox(content, "mboxcl2") == [head + body, b"Content-Length: 0\n\n", b"Content-Length: 1\n\nx"]


@pytest.mark.parametrize(
    "head", [b"A: 1\n", b"Content-Length: 2\n", b"Content-Length: 999\n", b"Content-Length: x\n"]
)
def test_a_length_that_does_not_fit_is_an_error_in_its_place(head: bytes) -> None:
    content = b"From x\n" + head + b"\nhello\n\n"
    after = b"From y\nContent-Length: 0\n\n"
    wrong, *rest = mboxes.messages(io.BytesIO(content + after), "mboxcl2")
    assert "Content-Length" in str(wrong)
    assert rest == ([] if b"999" in head else [b"Content-Length: 0\n\n"])


@pytest.mark.parametrize("kind", mboxes.KINDS)
@pytest.mark.parametrize("content", [b"hello\n", b"\n\nFrom: x\n"])
def test_a_file_that_is_no_mbox_is_named_once(kind: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.mbox"
    path.write_bytes(content)
    assert "no mbox" in str(problem(path, kind=kind))


@pytest.mark.parametrize("kind", mboxes.KINDS)
@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_an_empty_mbox_has_no_messages(kind: str, content: bytes) -> None:
    assert list(mboxes.messages(io.BytesIO(content), kind)) == []


def test_what_the_standard_library_writes_is_read(tmp_path: Path) -> None:
    box = mailbox.mbox(tmp_path / "box")
    written = [letter("one", "hello\nFrom here\n"), letter("two", "x\n\n\n"), letter("three")]
    for each in written:
        box.add(each)
    box.close()
    assert octets(tmp_path / "box", kind="mboxo") == written
    assert [each.label for each in found(tmp_path / "box")] == [f"{tmp_path / 'box'}#{n}" for n in (1, 2, 3)]


# JSON lines


def lines(tmp_path: Path, *each: object) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"".join(e if isinstance(e, bytes) else json.dumps(e).encode() + b"\n" for e in each))
    return path


def test_a_line_has_an_envelope_and_a_content(tmp_path: Path) -> None:
    fill(tmp_path / "sub", "a.eml")
    path = lines(
        tmp_path,
        {"from": "ann@example.org", "to": ["a@example.net", "b@example.net"], "file": "sub/a.eml"},
        b"\n",
        {"from": "", "to": "c@example.net", "content": "Subject: hé\n\nhello\n"},
        {"content": "A: b\n\n"},
    )
    first, second, third = found(path)
    assert (first.sender, first.recipients) == ("ann@example.org", ("a@example.net", "b@example.net"))
    assert first.octets == letter("a.eml")
    assert (second.sender, second.recipients) == ("", ("c@example.net",))
    assert second.octets == "Subject: hé\n\nhello\n".encode()
    assert (third.sender, third.recipients) == (None, None)
    assert [each.label for each in (first, second, third)] == [f"{path}:{n}" for n in (1, 3, 4)]


def test_files_are_relative_to_the_lines_not_to_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "a.eml")
    path = lines(tmp_path, {"file": "a.eml"})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert octets(path) == octets("../in.jsonl") == [letter("a.eml")]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"{\n", "no JSON"),
        (b"\xff\n", "not UTF-8"),
        (b"[]\n", "not list"),
        (b"[" * 100_000 + b"\n", "JSON"),
        ({"form": "a@example.org", "content": ""}, "unknown: form"),
        ({"to": "a@example.org"}, '"file" or "content"'),
        ({"file": "a", "content": "b"}, '"file" or "content"'),
        ({"file": 1}, '"file" is a text'),
        ({"content": 1}, '"content" is a text'),
        ({"from": ["a"], "content": ""}, '"from" is one address'),
        ({"to": [1], "content": ""}, '"to" is a list'),
        ({"to": {}, "content": ""}, '"to" is a list'),
        (b'{"to":"a@example.org","to":"b@example.org","content":""}\n', "twice"),
        ({"file": "missing.eml"}, "missing.eml: No such file"),
        ({"file": "a\0b"}, "null"),
        ({"content": "\ud800"}, "surrogates"),
    ],
)
def test_a_bad_line_is_a_message_that_cannot_be_sent_and_the_next_one_is_read(
    line: object, what: str, tmp_path: Path
) -> None:
    bad, good = found(lines(tmp_path, line, {"content": "good"}))
    assert isinstance(bad.problem, (ValueError, Failure))
    assert what in str(bad.problem)
    assert good.octets == b"good"


def test_a_file_that_many_lines_name_is_kept_until_it_changes(tmp_path: Path) -> None:
    fill(tmp_path, "a.eml")
    path = lines(tmp_path, *[{"file": "a.eml"}] * 3)
    reading = iter(Sources([str(path)], None, "mboxrd", threading.Event()))
    first, second = next(reading), next(reading)
    assert first.octets is second.octets
    (tmp_path / "a.eml").write_bytes(b"changed")
    assert next(reading).octets == b"changed"


# Standard input


class Pipe:
    """Standard input that is a pipe."""

    def __init__(self) -> None:
        self._reading, self.writing = os.pipe()

    def fileno(self) -> int:
        return self._reading

    def close(self) -> None:
        os.close(self._reading)


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    pipe = Pipe()
    monkeypatch.setattr(sys, "stdin", pipe)
    yield pipe
    pipe.close()


def test_standard_input_is_json_lines_as_they_come(pipe: Pipe) -> None:
    sources = Sources(["-"], None, "mboxrd", threading.Event())
    reading = iter(sources)
    os.write(pipe.writing, b'{"content":"a"}\n{"cont')
    assert next(reading).octets == b"a"
    os.write(pipe.writing, b'ent":"b"}\n{"content":"c"}')
    assert next(reading).octets == b"b"
    assert sources.share is None
    os.close(pipe.writing)
    [last] = reading
    assert (last.octets, last.place) == (b"c", "-:3")


@pytest.mark.parametrize(("format", "expected"), [("mbox", [b"A: 1\n", b"A: 2\n"]), ("eml", None)])
def test_standard_input_may_be_something_else(format: str, expected: list[bytes] | None, pipe: Pipe) -> None:
    content = b"From a\nA: 1\n\nFrom b\nA: 2\n\n"
    os.write(pipe.writing, content)
    os.close(pipe.writing)
    assert octets("-", format=format) == (expected or [content])


def test_standard_input_that_is_no_file_is_read_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"content":"a"}\n')))
    assert octets("-") == [b"a"]


def test_files_of_standard_input_are_relative_to_where_one_stands(
    pipe: Pipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "a.eml")
    monkeypatch.chdir(tmp_path)
    os.write(pipe.writing, b'{"file":"a.eml"}\n')
    os.close(pipe.writing)
    assert octets("-") == [letter("a.eml")]


def test_who_waits_for_standard_input_can_be_stopped(pipe: Pipe) -> None:
    stop = threading.Event()
    sources = Sources(["-"], None, "mboxrd", stop)
    threading.Timer(0.05, stop.set).start()
    assert list(sources) == []
    os.close(pipe.writing)


# Letters


def made(one: Found, sender: str | None = None, recipients: list[str] | None = None, **more: bool) -> Letter:
    return Desk(sender, recipients, **more).letter(one)


def test_the_envelope_comes_from_the_source_then_from_the_arguments_then_from_the_headers() -> None:
    headers = Found("p", "l", letter("x"))
    said = Found("p", "l", letter("x"), "s@example.org", ("t@example.org",))
    assert made(headers).sender == "ann@example.org"
    assert made(headers).recipients == ("bob@example.net",)
    assert made(headers, "", ["c@example.net"]).sender == ""
    assert made(headers, "", ["c@example.net"]).recipients == ("c@example.net",)
    assert made(said, "", ["c@example.net"]).sender == "s@example.org"
    assert made(said, "", ["c@example.net"]).recipients == ("t@example.org",)


def test_a_digest_covers_envelope_and_content_and_nothing_else() -> None:
    one = Found("p", "l", letter("x"))
    assert made(one).digest == made(Found("q", "m", letter("x"))).digest
    others = [
        made(Found("p", "l", letter("y"))),
        made(Found("p", "l", letter("x").replace(b"\n", b"\r\n"))),
        made(one, "eve@example.org"),
        made(one, None, ["eve@example.org"]),
        made(one, "ann@example.org", ["bob@example.net"], raw=True),
    ]
    assert len({made(one).digest, *(each.digest for each in others)}) == 6


@pytest.mark.parametrize(
    ("octets", "raw", "what"),
    [
        (b"To: a@example.org\n\n", False, "no Sender or From"),
        (b"From: a@example.org\n\n", False, "no recipients"),
        (b"From: a@example.org\nTo: <a@b\n\n", False, ""),
        (letter("x"), True, "--from and --to"),
    ],
)
def test_a_letter_without_an_envelope_has_a_problem(octets: bytes, raw: bool, what: str) -> None:
    one = made(Found("p", "l", octets), raw=raw)
    assert isinstance(one.problem, ValueError)
    assert what in str(one.problem)
    assert one.digest == b""


def test_a_list_of_nobody_is_a_problem() -> None:
    assert "no recipients" in str(made(Found("p", "l", letter("x"), "a@example.org", ())).problem)


def test_raw_octets_are_left_alone() -> None:
    content = made(Found("p", "l", b"\xff\r\n"), "a@example.org", ["b@example.org"], raw=True).content
    assert content == b"\xff\r\n"


def test_what_was_parsed_last_is_kept() -> None:
    desk, content = Desk(None, None), letter("x")
    first, second = desk.letters([Found("p", "l", content), Found("q", "l", content)])
    assert isinstance(first.content, EmailMessage)
    assert first.content is second.content
    assert desk.letter(Found("r", "l", letter("y"))).content is not first.content


# Feeding


async def test_a_feed_gives_everything_in_its_order() -> None:
    feed = Feed(range(1000), lambda number: 1, threading.Event())
    assert [number async for number in feed] == list(range(1000))
    await feed.close()


@pytest.mark.parametrize(("weight", "most"), [(1, feeding.AHEAD), (feeding.OCTETS_AHEAD // 4, 4)])
async def test_a_feed_reads_ahead_and_not_too_far(weight: int, most: int) -> None:
    read = 0
    full = threading.Event()

    def numbers() -> Iterator[int]:
        nonlocal read
        for number in range(1000):
            read += 1
            if number == most:
                full.set()
            yield number

    feed = Feed(numbers(), lambda number: weight, threading.Event())
    await asyncio.to_thread(full.wait)
    assert read == most + 1
    assert await anext(feed) == 0
    await feed.close()
    assert read <= most + 2


async def test_what_reading_raises_comes_after_what_was_read() -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    feed = Feed(numbers(), lambda number: 1, threading.Event())
    assert await anext(feed) == 1
    with pytest.raises(OSError, match="gone"):
        await anext(feed)
    await feed.close()


async def test_who_waits_for_a_feed_is_woken_when_it_is_stopped(pipe: Pipe) -> None:
    stop = threading.Event()
    feed = Feed(Sources(["-"], None, "mboxrd", stop), lambda each: 1, stop)
    waiting = asyncio.ensure_future(anext(feed, None))
    await asyncio.sleep(0)
    feed.stop()
    assert await waiting is None
    await feed.close()
    os.close(pipe.writing)


def test_memory_does_not_grow_with_the_number_of_messages(tmp_path: Path) -> None:
    text = "x" * 1000
    path = lines(tmp_path, *[{"content": text}] * 5000)
    box = tmp_path / "a.mbox"
    box.write_bytes((b"From x\nA: b\n\n" + text.encode() + b"\n\n") * 5000)
    for source in (path, box):
        sources = Sources([str(source)], None, "mboxrd", threading.Event())
        tracemalloc.start()
        count = sum(1 for _ in Desk("a@example.org", ["b@example.org"], raw=True).letters(sources))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == 5000
        assert peak < 500_000
