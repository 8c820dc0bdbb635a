"""The journal: whatever ends a run, the next one sends what was not sent, and nothing twice."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from post import LATER, NEVER, Crash, Input, Post

from aiosmtpclient import Delivery, Reply
from aiosmtpclient.cli import journal as room
from aiosmtpclient.cli.account import Account
from aiosmtpclient.cli.counting import Counts
from aiosmtpclient.cli.exits import Exit, Failure
from aiosmtpclient.cli.journal import HEADER, Journal
from aiosmtpclient.cli.letters import Desk, Letter
from aiosmtpclient.cli.runs import Run
from aiosmtpclient.cli.sources import Found


def letter(name: str, *to: str, content: bytes | None = None) -> Letter:
    found = Found(f"/in/{name}", name, content if content is not None else name.encode())
    return Desk("ann@example.org", to or (f"{name}@example.net",), raw=True).letter(found)


LETTERS = (
    letter("one"),
    letter("two", "b@example.net", "never@example.net", "later@example.net", "d@example.net"),
    letter("lost", "lost@example.net"),
    letter("three", content=b"the same"),
    letter("four", "three@example.net", content=b"the same"),
    letter("fivë"),
)
ALL = [(address, each.content) for each in LETTERS for address in each.recipients]


class Ran:
    """What came of one run."""

    def __init__(self) -> None:
        self.accounts: list[Account] = []
        self.counts = Counts(lambda: 0.0)

    def of(self, label: str) -> Account:
        [account] = [each for each in self.accounts if each.file in (label, f"/in/{label}")]
        return account

    def unknown(self) -> set[tuple[str, str]]:
        """Whom the accounts name, with the message, as unknown."""
        return {
            (account.file.removeprefix("/in/"), outcome.address)
            for account in self.accounts
            for outcome in account.outcomes
            if outcome.delivery is Delivery.UNKNOWN
        }


def run(post: Post, path: Path, letters: Sequence[Letter] = LETTERS, **options: bool) -> Ran:
    ran = Ran()

    async def carry_out() -> None:
        with closing(Journal(str(path), **options)) as journal:
            await Run(Input(letters), journal, ran.counts, ran.accounts.append).carry_out(post)

    asyncio.run(carry_out())
    return ran


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def usual(address: str) -> Reply | None:
    return {"never@example.net": NEVER, "later@example.net": LATER}.get(address)


# What stands there


def test_each_message_is_taken_begun_and_ended(path: Path) -> None:
    run(Post(usual), path, LETTERS[:2])
    header, *rest = lines(path)
    assert header == {"journal": "aiosmtpclient bulk", "version": 1}
    assert [next(iter(line)) for line in rest] == ["take", "begin", "end"] * 2
    assert rest[3] == {
        "take": 2,
        "message": "/in/two",
        "digest": LETTERS[1].digest.hex(),
        "from": "ann@example.org",
        "to": list(LETTERS[1].recipients),
    }
    assert rest[5]["delivery"] == "accepted"
    assert rest[5]["outcomes"] == [
        ["b@example.net", "accepted", "250 2.0.0 queued"],
        ["never@example.net", "refused", "550 5.1.1 no such user"],
        ["later@example.net", "refused", "450 4.2.1 try later"],
        ["d@example.net", "accepted", "250 2.0.0 queued"],
    ]


def test_nobody_else_may_read_who_gets_mail(path: Path) -> None:
    run(Post(), path)
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_message_is_written_down_before_it_leaves_and_after_it_ended(path: Path) -> None:
    seen: list[list[str]] = []

    def look(address: str) -> None:
        seen.append([next(iter(line)) for line in lines(path)])

    run(Post(look), path, LETTERS[:1])
    assert seen == [["journal", "take", "begin"]]
    assert [next(iter(line)) for line in lines(path)][-1] == "end"


# Crashes


class Paper:
    """Takes so many octets, and then the process is gone."""

    def __init__(self, room_left: int, write: Callable[[int, bytes], None]) -> None:
        self.left = room_left
        self._write = write

    def __call__(self, descriptor: int, octets: bytes) -> None:
        self._write(descriptor, octets[: self.left])
        if len(octets) > self.left:
            self.left = 0
            raise Crash
        self.left -= len(octets)


def crashing(after: int, post: Post, path: Path, monkeypatch: pytest.MonkeyPatch, **options: bool) -> bool:
    """Run until so many octets were written; True if that ended it."""
    with monkeypatch.context() as patch:
        patch.setattr(room, "_write", Paper(after, room._write))
        try:
            run(post, path, **options)
        except Crash:
            return True
    return False


def check(post: Post, last: Ran, tolerated: set[str]) -> None:
    """Everybody got each message once, or is listed; `tolerated` are refused by what the test does."""
    unknown = last.unknown()
    for each in LETTERS:
        for address in each.recipients:
            if address in tolerated:
                assert post.delivered[address, each.content] == 0
                continue
            same = [e.label for e in LETTERS if e.content == each.content and address in e.recipients]
            listed = [label for label in same if (label, address) in unknown]
            times = post.delivered[address, each.content]
            assert len(same) - len(listed) <= times <= len(same), (each.label, address)


REFUSING = {"never@example.net", "later@example.net"}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("window", [1, 3])
def test_a_crash_at_any_octet_loses_nothing_and_sends_nothing_twice(
    window: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after = crashes = 0
    while True:
        path.unlink(missing_ok=True)
        post = Post(usual, window)
        if not crashing(after, post, path, monkeypatch):
            break
        resumed = run(post, path, resume=path.exists())
        check(post, resumed, REFUSING)
        assert len({label for label, _ in resumed.unknown()}) <= window
        if after % 5 == 0:
            again = run(post, path, resume=True)
            assert again.unknown() == resumed.unknown()
            check(post, again, REFUSING)
        crashes += 1
        after += 1
    assert crashes > 1500
    check(post, Ran(), REFUSING)


def test_crashes_upon_crashes_lose_nothing_and_send_nothing_twice(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twice = 0
    for first in range(40, 1500, 149):
        for second in range(0, 1200, 83):
            path.unlink(missing_ok=True)
            post = Post(usual, 2)
            assert crashing(first, post, path, monkeypatch)
            twice += crashing(second, post, path, monkeypatch, resume=True)
            check(post, run(post, path, resume=True), REFUSING)
    assert twice > 50


def test_what_was_begun_and_has_no_outcome_is_unknown(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    post = Post(window=2)
    run(post, path, LETTERS[:1])
    cut(path, '{"end"')
    ran = run(post, path, LETTERS[:2], resume=True)
    assert ran.of("one").delivery is Delivery.UNKNOWN
    assert "--resend-unknown" in str(ran.of("one").error)
    assert ran.of("two").delivery is Delivery.ACCEPTED
    assert post.delivered["one@example.net", b"one"] == 1


def cut(path: Path, before: str) -> None:
    """Cut the journal off before the last line that begins like this."""
    text = path.read_text("ascii")
    path.write_text(text[: text.rindex(before)], "ascii")


def test_unknown_is_sent_again_only_when_asked_for_in_so_many_words(path: Path) -> None:
    post = Post()
    run(post, path, LETTERS[:1])
    cut(path, '{"end"')
    ran = run(post, path, LETTERS[:1], resume=True, resend_unknown=True)
    assert post.delivered["one@example.net", b"one"] == 2
    assert ran.of("one").delivery is Delivery.ACCEPTED
    assert run(post, path, LETTERS[:1], resume=True, resend_unknown=True).accounts == []
    assert post.delivered["one@example.net", b"one"] == 2


# Who gets what on resume


def test_a_message_that_some_got_goes_to_the_others_only(path: Path) -> None:
    fates: dict[str, Delivery | Reply] = {
        "never@example.net": NEVER,
        "later@example.net": LATER,
        "d@example.net": Delivery.NOT_SENT,
    }
    post = Post(fates.get)
    run(post, path, LETTERS[1:2])
    fates.clear()
    ran = run(post, path, LETTERS[1:2], resume=True)
    assert [outcome.address for outcome in ran.of("two").outcomes] == ["d@example.net"]
    assert lines(path)[-2] == {"begin": 1, "positions": [3]}
    ran = run(post, path, LETTERS[1:2], resume=True, retry_refused=True)
    assert [outcome.address for outcome in ran.of("two").outcomes] == ["later@example.net"]
    assert run(post, path, LETTERS[1:2], resume=True, retry_refused=True).accounts == []
    assert post.delivered == {
        (name, b"two"): 1 for name in ("b@example.net", "d@example.net", "later@example.net")
    }


def test_a_crash_over_some_recipients_leaves_only_them_unknown(path: Path) -> None:
    fates: dict[str, Delivery | Reply] = {"d@example.net": Delivery.NOT_SENT}
    post = Post(fates.get)
    run(post, path, LETTERS[1:2])
    fates.clear()
    run(post, path, LETTERS[1:2], resume=True)
    cut(path, '{"end"')
    ran = run(post, path, LETTERS[1:2], resume=True)
    assert ran.unknown() == {("two", "d@example.net")}
    assert ran.of("two").outcomes[0].delivery is Delivery.ACCEPTED


@pytest.mark.parametrize(
    ("reply", "option", "sent"),
    [
        (LATER, False, 0),
        (LATER, True, 1),
        (NEVER, False, 0),
        (NEVER, True, 0),
    ],
)
def test_what_was_refused_is_sent_again_only_for_now_and_when_asked(
    reply: Reply, option: bool, sent: int, path: Path
) -> None:
    run(Post(lambda address: reply), path, LETTERS[:1])
    post = Post()
    ran = run(post, path, LETTERS[:1], resume=True, retry_refused=option)
    assert post.delivered.total() == sent
    assert ran.counts.before[Delivery.REFUSED] == 1 - sent


def test_what_was_not_sent_is_sent(path: Path) -> None:
    run(Post(lambda address: Delivery.NOT_SENT), path)
    post = Post()
    ran = run(post, path, resume=True)
    assert {account.delivery for account in ran.accounts} == {Delivery.ACCEPTED}
    assert len(ran.accounts) == len(LETTERS)


def test_a_message_that_did_not_turn_up_again_is_listed(path: Path) -> None:
    fates: dict[str, Delivery | Reply] = {
        "one@example.net": Delivery.NOT_SENT,
        "lost@example.net": Delivery.UNKNOWN,
    }
    run(Post(fates.get), path)
    ran = run(Post(), path, LETTERS[3:], resume=True)
    assert ran.of("one").delivery is Delivery.NOT_SENT
    assert ran.of("one").code == Exit.NOINPUT
    assert "in the input no more" in str(ran.of("one").error)
    assert ran.of("lost").delivery is Delivery.UNKNOWN
    assert len(ran.accounts) == 2


# Another input


def test_the_same_message_twice_is_two_messages(path: Path) -> None:
    twice = [letter("one"), letter("one (2)", "one@example.net", content=b"one")]
    post = Post()
    run(post, path, twice[:1])
    ran = run(post, path, twice, resume=True)
    assert [account.file for account in ran.accounts] == ["one (2)"]
    assert post.delivered["one@example.net", b"one"] == 2


@pytest.mark.parametrize(
    "changed",
    [
        letter("one", content=b"something else"),
        letter("one", "eve@example.net"),
    ],
)
def test_a_message_that_changed_since_it_was_sent_is_reported(changed: Letter, path: Path) -> None:
    post = Post()
    run(post, path, LETTERS[:1])
    ran = run(post, path, [changed], resume=True)
    assert post.delivered.total() == 1
    assert ran.of("one").delivery is Delivery.NOT_SENT
    assert "changed since it was sent" in str(ran.of("one").error)
    assert ran.of("one").code == Exit.DATAERR


@pytest.mark.parametrize("fate", [Delivery.NOT_SENT, NEVER])
def test_a_message_that_nobody_has_may_change(fate: Delivery | Reply, path: Path) -> None:
    run(Post(lambda address: fate), path, LETTERS[:1])
    post = Post()
    mended = letter("one", content=b"something better")
    assert run(post, path, [mended], resume=True).of("one").delivery is Delivery.ACCEPTED
    assert run(post, path, [mended], resume=True).accounts == []
    assert post.delivered == {("one@example.net", b"something better"): 1}


def test_a_message_that_was_moved_is_not_sent_twice(path: Path) -> None:
    post = Post()
    run(post, path, LETTERS[:1])
    moved = letter("elsewhere", "one@example.net", content=b"one")
    ran = run(post, path, [moved], resume=True)
    assert post.delivered.total() == 1
    assert "/in/one" in str(ran.of("elsewhere").error)
    assert run(post, path, [*LETTERS[:1], moved], resume=True).of("elsewhere").delivery is Delivery.ACCEPTED


def test_lines_that_all_moved_up_by_one_are_not_sent_twice(path: Path) -> None:
    before = [letter(f"in:{n}", "a@example.net", content=b"%d" % n) for n in range(4)]
    post = Post()
    run(post, path, before)
    after = [letter(f"in:{n}", "a@example.net", content=b"%d" % (n - 1)) for n in range(1, 5)]
    ran = run(post, path, after, resume=True)
    assert post.delivered.total() == 4
    assert {account.delivery for account in ran.accounts} == {Delivery.NOT_SENT}
    assert len(ran.accounts) == 4


def test_what_could_not_be_read_is_sent_when_it_can(path: Path) -> None:
    unreadable = Letter("/in/one", "one", problem=Failure("one: no such file", Exit.NOINPUT))
    post = Post()
    ran = run(post, path, [unreadable])
    assert (ran.of("one").delivery, ran.of("one").code) == (Delivery.NOT_SENT, Exit.NOINPUT)
    assert len(run(post, path, [unreadable], resume=True).accounts) == 1
    assert run(post, path, LETTERS[:1], resume=True).of("one").delivery is Delivery.ACCEPTED
    # It was sent, and is gone since: that is no problem any more.
    ran = run(post, path, [unreadable], resume=True)
    assert ran.accounts == []
    assert ran.counts.before[Delivery.ACCEPTED] == 1


# The file


def test_a_journal_that_is_there_is_not_begun_anew(path: Path) -> None:
    run(Post(), path)
    before = path.read_bytes()
    with pytest.raises(Failure, match="--resume goes on with it") as caught:
        Journal(str(path))
    assert caught.value.code is Exit.USAGE
    assert path.read_bytes() == before


@pytest.mark.parametrize("octets", [b"", HEADER[:7], HEADER])
def test_a_journal_in_which_nothing_happened_is_begun_or_gone_on_with(octets: bytes, path: Path) -> None:
    for options in ({}, {"resume": True}):
        path.write_bytes(octets)
        post = Post()
        run(post, path, LETTERS[:1], **options)
        assert post.delivered.total() == 1
        assert path.read_bytes().startswith(HEADER)


def test_a_journal_that_is_missing_is_not_gone_on_with(path: Path) -> None:
    with pytest.raises(Failure, match="without --resume") as caught:
        Journal(str(path), resume=True)
    assert caught.value.code is Exit.NOINPUT
    assert not path.exists()


@pytest.mark.parametrize(
    "octets",
    [
        b"From: somebody\n",
        b"{}\n",
        b'{"journal":"aiosmtpclient bulk","version":2}\n',
        b"x",
        HEADER[:-1] + b" ",
        HEADER[:-1] + b" \n" + HEADER,
    ],
)
@pytest.mark.parametrize("resume", [False, True])
def test_a_file_that_is_no_journal_is_never_written_to(octets: bytes, resume: bool, path: Path) -> None:
    path.write_bytes(octets)
    with pytest.raises(Failure):
        Journal(str(path), resume=resume)
    assert path.read_bytes() == octets


@pytest.mark.parametrize(
    "line",
    [
        b"\0\0\0\n",
        b"[]\n",
        b"{}\n",
        b'{"begin":2}\n',
        b'{"begin":0}\n',
        b'{"begin":"1"}\n',
        b'{"begin":1,"positions":[7]}\n',
        b'{"begin":1,"positions":7}\n',
        b'{"end":1}\n',
        b'{"end":1,"outcomes":[]}\n',
        b'{"end":1,"outcomes":{}}\n',
        b'{"end":1,"outcomes":[["a","perhaps",""]]}\n',
        b'{"take":3,"message":"","digest":"","to":[]}\n',
        b'{"take":2,"message":"","digest":"x","to":[]}\n',
        b'{"take":2,"message":1,"digest":"","to":[]}\n',
        b'{"take":2,"message":"","digest":""}\n',
    ],
)
def test_a_damaged_journal_is_not_gone_on_with(line: bytes, path: Path) -> None:
    run(Post(), path, LETTERS[:1])
    octets = path.read_bytes()
    path.write_bytes(octets + line)
    with pytest.raises(Failure, match=f"begins at octet {len(octets)}") as caught:
        Journal(str(path), resume=True)
    assert caught.value.code is Exit.DATAERR
    assert path.read_bytes() == octets + line


def test_a_journal_in_use_by_another_process_is_left_alone(path: Path) -> None:
    pytest.importorskip("fcntl")
    hold = (
        "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX); "
        "print('held', flush=True); sys.stdin.read()"
    )
    run(Post(), path, LETTERS[:1])
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(Failure, match="in use") as caught:
            Journal(str(path), resume=True)
        other.communicate()
    assert caught.value.code is Exit.TEMPFAIL
    run(Post(), path, LETTERS[:1], resume=True)


def test_where_there_are_no_locks_it_works_without(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "fcntl", None)
    run(Post(), path, LETTERS[:1])
    with closing(Journal(str(path), resume=True)), closing(Journal(str(path), resume=True)):
        assert len(lines(path)) == 4


def test_a_full_disk_ends_the_run_and_leaves_whole_lines(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, left = os.write, 700

    def full(descriptor: int, octets: bytes) -> int:
        nonlocal left
        if not left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = write(descriptor, octets[:left])
        left -= count
        return count

    post = Post()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(Failure, match="No space left") as caught:
            run(post, path)
    assert caught.value.code is Exit.IOERR
    assert path.read_bytes().endswith(b"}\n")
    ran = run(post, path, resume=True)
    check(post, ran, set())
    assert len(ran.unknown()) <= 4


def test_durable_has_it_on_the_disk_before_the_message_leaves(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    sync = room._to_disk

    def note(descriptor: int) -> None:
        events.append(f"disk: {next(reversed([next(iter(line)) for line in lines(path)]))}")
        sync(descriptor)

    monkeypatch.setattr(room, "_to_disk", note)

    def leave(address: str) -> None:
        events.append("left")

    run(Post(leave), path, LETTERS[:1], durable=True)
    assert events == ["disk: journal", "disk: begin", "left", "disk: end"]
    events.clear()
    path.unlink()
    run(Post(leave), path, LETTERS[:1])
    assert events == ["left"]


def test_a_name_that_is_no_text_is_found_again(path: Path) -> None:
    odd = Letter("/in/\udcff", "\udcff", b"d" * 16, 1, "a@example.org", ("b@example.org",), b"x")
    post = Post()
    run(post, path, [odd])
    assert run(post, path, [odd], resume=True).accounts == []
    assert post.delivered.total() == 1


@pytest.mark.parametrize("name", ["missing/journal", "."])
def test_a_journal_that_cannot_be_opened_is_a_failure(name: str, tmp_path: Path) -> None:
    with pytest.raises(Failure):
        Journal(str(tmp_path / name))
