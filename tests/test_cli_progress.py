"""How a bulk run is shown: a bar on a terminal, lines elsewhere, and counts that stay small."""

from __future__ import annotations

import io
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import aiosmtpclient
from aiosmtpclient import Delivery
from aiosmtpclient.__main__ import main
from aiosmtpclient.cli.counting import Counts, Durations, span
from aiosmtpclient.cli.exits import Exit, Failure
from aiosmtpclient.cli.progress import Bar, Lines, Silence, display_for
from aiosmtpclient.testing import MailServer

HOUSE = Path(aiosmtpclient.__file__).parents[1]
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def counts(clock: Clock) -> Counts:
    counts = Counts(clock)
    for delivery, number in zip(Delivery, (1234, 3, 2, 1), strict=True):
        for _ in range(number):
            counts.add(delivery, None if delivery is Delivery.NOT_SENT else 0.02)
    clock.now += 10
    return counts


# Counting


@pytest.mark.parametrize("percent", [0.1, 1, 50, 95, 99, 99.9, 100])
def test_a_percentile_is_right_to_one_per_cent(percent: float) -> None:
    durations, chance = Durations(), random.Random(7)
    values = sorted(chance.lognormvariate(-3, 2) for _ in range(5000))
    for value in values:
        durations.add(value)
    exact = values[max(0, -(-len(values) * percent // 100).__int__() - 1)]
    assert durations.percentile(percent) == pytest.approx(exact, rel=0.0101)


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 1e5, 1e9])
def test_durations_out_of_all_bounds_are_counted(seconds: float) -> None:
    durations = Durations()
    durations.add(seconds)
    assert durations.count == 1
    assert 0 < durations.percentile(50) < 2e5


def test_without_durations_there_are_no_percentiles() -> None:
    assert Durations().percentile(50) == 0
    assert Counts(lambda: 0.0).latencies() == ""
    assert Counts(lambda: 0.0).rate == 0


def test_counts_take_no_more_memory_for_more_messages(clock: Clock) -> None:
    counts = Counts(clock)
    for number in range(20_000):
        counts.add(Delivery.ACCEPTED, number / 1000)
        clock.now += 0.01
        counts.present_rate()
    assert len(counts._marks) < 50
    assert len(counts.durations._classes) < 1200


def test_the_present_rate_is_that_of_the_last_seconds(clock: Clock) -> None:
    counts = Counts(clock)
    for _ in range(100):  # ten a second for ten seconds, then a hundred a second
        counts.add(Delivery.ACCEPTED, 0.01)
        clock.now += 0.1
        counts.present_rate()
    assert counts.present_rate() == pytest.approx(10, rel=0.1)
    for _ in range(2000):
        counts.add(Delivery.ACCEPTED, 0.01)
        clock.now += 0.01
        counts.present_rate()
    assert counts.present_rate() == pytest.approx(100, rel=0.1)
    assert counts.rate == pytest.approx(70, rel=0.1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 ms"),
        (0.0042, "4.2 ms"),
        (0.042, "42 ms"),
        (1.234, "1.23 s"),
        (12.34, "12.3 s"),
        (100, "1 min 40 s"),
        (3599.9, "1 h 00 min"),
        (7265, "2 h 01 min"),
    ],
)
def test_a_duration_has_the_digits_that_matter(seconds: float, text: str) -> None:
    assert span(seconds) == text


# Lines


def test_a_line_has_all_the_counts(counts: Counts, capsys: pytest.CaptureFixture[str]) -> None:
    Lines(counts, lambda: 0.405, 10).show()
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "40% read; 1,234 accepted, 3 refused, 2 not sent, 1 unknown; 123.8 messages/s; "
        "p50 20 ms, p95 20 ms, p99 20 ms\n"
    )


def test_a_line_without_a_share_and_without_durations_leaves_them_out(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    Lines(Counts(clock), lambda: None, 10).show()
    assert capsys.readouterr().err == "0 accepted, 0 refused, 0 not sent, 0 unknown; 0.0 messages/s\n"


# The bar


def drawn(counts: Counts, share: float | None, *said: str, together: bool = True, width: int = 120) -> str:
    """What a terminal showed, without colours; each drawing is there."""
    terminal = io.StringIO()
    console = Console(file=terminal, force_terminal=True, width=width, legacy_windows=False)
    bar = Bar(counts, lambda: share, console, together=together)
    for text in said:
        bar.say(text)
    bar.close()
    return _ESCAPE.sub("", terminal.getvalue())


def test_the_bar_has_all_the_counts(counts: Counts) -> None:
    text = drawn(counts, 0.25)
    assert "━━━━━━━" in text
    assert "25%, 124 messages/s, 10.0 s, about 30.0 s left" in text
    assert "1,234 accepted, 3 refused, 2 not sent, 1 unknown" in text
    assert "p50 20 ms, p95 20 ms, p99 20 ms" in text


def test_the_bar_says_what_was_done_before(counts: Counts) -> None:
    assert "done before" not in drawn(counts, 0.25)
    counts.before[Delivery.ACCEPTED] = 1500
    assert "1 unknown; 1,500 were done before" in drawn(counts, 0.25)


def test_the_bar_fits_a_narrow_terminal(counts: Counts) -> None:
    assert max(map(len, re.split(r"[\r\n]+", drawn(counts, 0.25, width=80)))) <= 80


def test_where_the_end_is_unknown_the_bar_says_no_share(counts: Counts) -> None:
    text = drawn(counts, None)
    assert "%" not in text
    assert "left" not in text


@pytest.mark.parametrize("said", ["plain", "[red]no markup[/red] :smile:", "a" * 300])
def test_accounts_stand_above_the_bar_as_they_are(said: str, counts: Counts) -> None:
    assert said + "\n" in drawn(counts, 0.5, said)


def test_what_is_no_text_is_escaped_above_the_bar(counts: Counts) -> None:
    assert "evil\\x1b]0;x\\x07" in drawn(counts, 0.5, "evil\x1b]0;x\x07")


def test_accounts_go_to_standard_output_where_that_is_no_terminal(
    counts: Counts, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "an account" not in drawn(counts, 0.5, "an account", together=False)
    assert capsys.readouterr().out == "an account\n"


# Which one


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("way", "terminal", "kind"),
    [
        ("auto", True, Bar),
        ("auto", False, Lines),
        ("lines", True, Lines),
        ("off", True, Silence),
        ("bar", False, Bar),
    ],
)
def test_the_display_suits_the_place(way: str, terminal: bool, kind: type, counts: Counts) -> None:
    stderr = Terminal() if terminal else io.StringIO()
    display = display_for(way, counts, lambda: 0.5, interval=10, stderr=stderr)
    display.show()
    display.close()
    assert type(display) is kind


def test_without_rich_there_are_lines_and_who_wants_a_bar_is_told(
    counts: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert type(display_for("auto", counts, lambda: 0.5, interval=10, stderr=Terminal())) is Lines
    with pytest.raises(Failure, match=r"aiosmtpclient\[cli\]") as caught:
        display_for("bar", counts, lambda: 0.5, interval=10)
    assert caught.value.code is Exit.UNAVAILABLE


# The command


def lines(tmp_path: Path, count: int) -> Path:
    path = tmp_path / "in.jsonl"
    content = "From: a@example.org\nTo: b@example.net\n\nhello\n"
    path.write_text(
        "".join(f"{json.dumps({'content': f'X: {n}{chr(10)}{content}'})}\n" for n in range(count))
    )
    return path


def test_the_command_shows_lines_where_there_is_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with MailServer() as server:
        arguments = ["--host", server.host, "--port", str(server.port), "--progress-every", "0.01"]
        assert main(["bulk", str(lines(tmp_path, 100)), *arguments, "--rate", "1000"]) == 0
    err = capsys.readouterr().err.splitlines()
    assert err
    assert all(re.fullmatch(r"\d+% read; \d+ accepted, 0 refused, .* messages/s.*", line) for line in err)


@pytest.mark.skipif(os.name != "posix", reason="a pty is needed")
def test_the_command_draws_a_bar_on_a_terminal(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    with MailServer(refuse={"b@example.net": "550 5.1.1 no"}) as server:
        line = [sys.executable, "-m", "aiosmtpclient", "bulk", str(lines(tmp_path, 3))]
        process = subprocess.Popen(
            [*line, "--host", server.host, "--port", str(server.port)],
            env={**os.environ, "PYTHONPATH": str(HOUSE), "TERM": "xterm", "COLUMNS": "100", "LINES": "30"},
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        shown = b""
        while piece := _read(ours):
            shown += piece
        os.close(ours)
        assert process.wait(20) == 67
    text = _ESCAPE.sub("", shown.decode())
    assert "━" in text
    assert "0 accepted, 3 refused, 0 not sent, 0 unknown" in text
    assert text.count("refused   b@example.net: 550 5.1.1 no\r\n") == 3
    assert "3 messages: 0 accepted, 3 refused" in text


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says so when the other side is closed
        return b""
