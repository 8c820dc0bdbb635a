"""Progress: how a bulk run is getting on, on standard error.

On a terminal, with the extra `cli`, a bar that is drawn anew; else a line now and then.

Rules of this room:

* Nothing of it goes to standard output, which belongs to the accounts. Where both are the same
  terminal the accounts are printed above the bar.
* rich is imported when a bar is to be drawn, and by nobody else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TextIO, cast

from aiosmtpclient.errors import Delivery

from .counting import Counts, span
from .exits import Exit, Failure
from .printing import fit, mention, say

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

WAYS = ("auto", "bar", "lines", "off")
_COLOURS = {
    Delivery.ACCEPTED: "green",
    Delivery.REFUSED: "red",
    Delivery.NOT_SENT: "magenta",
    Delivery.UNKNOWN: "yellow",
}
_SOME_TIME = 5.0
"""Seconds before which nobody can tell how long it will take."""

EXTRA = 'a progress bar is drawn by rich: pip install "aiosmtpclient[cli]"; --progress lines needs nothing'


class Display(Protocol):
    """Shows how a run is getting on.

    Attributes:
        interval: seconds between two calls of `show`.
    """

    interval: float

    def show(self) -> None:
        """Show how things are now."""
        ...

    def say(self, text: str) -> None:
        """Print a line to standard output."""
        ...

    def mention(self, text: str) -> None:
        """Print a line to standard error."""
        ...

    def close(self) -> None:
        """Show how things are at the end, and nothing more."""
        ...


def display_for(
    way: str,
    counts: Counts,
    share: Callable[[], float | None],
    *,
    interval: float,
    stderr: TextIO | None = None,
) -> Display:
    """Return the display that suits.

    Args:
        way: one of `WAYS`.
        counts: what is shown.
        share: how much of the input was read, from 0 to 1, or None.
        interval: seconds between two lines.
        stderr: where it is shown.

    Raises:
        Failure: a bar was asked for, and what draws it is not installed.
    """
    screen = stderr if stderr is not None else sys.stderr
    if way == "off":
        return Silence()
    if way == "bar" or (way == "auto" and screen.isatty()):
        try:
            from rich.console import Console
        except ImportError as error:
            if way == "bar":
                raise Failure(EXTRA, Exit.UNAVAILABLE) from error
        else:
            together = screen.isatty() and sys.stdout.isatty()
            return Bar(counts, share, Console(file=screen), together=together)
    return Lines(counts, share, interval)


class Silence:
    """Shows nothing."""

    interval = 3600.0

    def show(self) -> None:
        """Show nothing."""

    def say(self, text: str) -> None:
        """Print a line to standard output."""
        say(text)

    def mention(self, text: str) -> None:
        """Print a line to standard error."""
        mention(text)

    def close(self) -> None:
        """Show nothing."""


class Lines(Silence):
    """Shows a line now and then."""

    def __init__(self, counts: Counts, share: Callable[[], float | None], interval: float) -> None:
        self.interval = interval
        self._counts = counts
        self._share = share

    def show(self) -> None:
        """Print a line to standard error."""
        share = self._share()
        read = f"{share:.0%} read; " if share is not None else ""
        latencies = self._counts.latencies()
        tail = f"; {latencies}" if latencies else ""
        mention(f"{read}{self._counts.words()}; {self._counts.present_rate():,.1f} messages/s{tail}")


class Bar:
    """Draws a bar, the counts below it, and the percentiles below them."""

    interval = 0.25

    def __init__(
        self, counts: Counts, share: Callable[[], float | None], console: Console, *, together: bool
    ) -> None:
        from rich.live import Live

        self._counts = counts
        self._share = share
        self._console = console
        self._together = together
        # Without a thread of its own: whoever calls show() draws.
        self._live = Live(
            self._drawn(), console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        self._live.start(refresh=True)

    def show(self) -> None:
        """Draw the bar anew."""
        self._live.update(self._drawn(), refresh=True)

    def _drawn(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        counts, share = self._counts, self._share()
        total = 1.0 if share is not None else None
        bar = ProgressBar(total=total, completed=share or 0.0, width=30, pulse=share is None)
        head = Table.grid(padding=(0, 1))
        head.add_row(bar, Text(self._head(share), no_wrap=True))
        words = (
            Text(f"{counts.deliveries[each]:,} {each}", _COLOURS[each] if counts.deliveries[each] else "")
            for each in Delivery
        )
        body = Text(", ").join(words)
        if before := counts.before.total():
            body.append(f"; {before:,} were done before")
        return Group(head, body, Text(counts.latencies()))

    def _head(self, share: float | None) -> str:
        counts = self._counts
        parts = [f"{share:.0%}"] if share is not None else []
        parts += [f"{counts.present_rate():,.0f} messages/s", span(counts.seconds)]
        if share and share < 1 and counts.seconds > _SOME_TIME:
            parts.append(f"about {span(counts.seconds * (1 - share) / share)} left")
        return ", ".join(parts)

    def say(self, text: str) -> None:
        """Print a line to standard output, above the bar if that is the same terminal."""
        if self._together:
            self.mention(text)
        else:
            say(text)

    def mention(self, text: str) -> None:
        """Print a line above the bar."""
        line = fit(text, cast("TextIO", self._console.file))
        self._console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the bar as it is at the end."""
        self.show()
        self._live.stop()
