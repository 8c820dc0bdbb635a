"""`aiosmtpclient bulk`: many messages through a pool, with a journal to go on from.

This room holds the arguments, what is printed, and what Ctrl-C does; what is sent and written
down is in `runs`, what a journal remembers in `journal` and `standings`.

Rules of this room:

* Ctrl-C (or SIGTERM) takes nothing more, and gives what is under way some seconds; a second one
  gives it none. The journal is right either way.
* 75 is given only where running the same command again, with `--resume`, is the right thing to
  do; where anything is unknown the code is 74.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

from aiosmtpclient.errors import Delivery
from aiosmtpclient.pool import SMTPPool
from aiosmtpclient.session import Trace

from .account import Account
from .counting import Counts, span
from .exits import Exit, Failure, worst
from .feeding import Feed
from .journal import Journal
from .letters import Desk, Letter
from .mboxes import KINDS
from .options import (
    Parser,
    add_command,
    add_connection_options,
    add_login_options,
    add_server_options,
    client_options,
    in_options,
    sensible,
    server_of,
    timeouts_of,
)
from .printing import Transcript, trace_back
from .progress import WAYS, Display, display_for
from .runs import Run
from .sources import FORMATS, STANDARD_INPUT, Sources

GRACE = 10.0
"""Seconds that what is under way gets after the first Ctrl-C."""
INTERRUPTED = "interrupted"

_DESCRIPTION = """\
Send many messages over several connections: files (.eml), folders of them, Maildirs,
mbox files, and JSON lines (.jsonl, or standard input), one message a line:
  {"from": "ann@example.org", "to": ["bob@example.net"], "file": "letter.eml"}
Progress goes to standard error; to standard output an account of what was not accepted
by everybody, or with --json one line for every message. With --journal a run that was
interrupted, killed or came to nothing is gone on with by --resume: what was not sent is
sent, nothing is sent twice, and what may have arrived (unknown) is listed.
"""


def add_to(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the command."""
    parser = add_command(commands, "bulk", run, help="send many messages", description=_DESCRIPTION)
    parser.add_argument(
        "sources", nargs="+", metavar="SOURCE", help="a file, a folder or a Maildir; - is standard input"
    )
    parser.add_argument(
        "--format", choices=FORMATS, help="what the files are; left out, by name and beginning"
    )
    parser.add_argument(
        "--mbox-kind", choices=KINDS, default=KINDS[0], help='how "From " is quoted (default: %(default)s)'
    )
    _add_envelope_options(parser)
    _add_journal_options(parser)
    progress = parser.add_argument_group("progress")
    progress.add_argument(
        "--progress", choices=WAYS, default="auto", help="a bar, plain lines, or off (default: by terminal)"
    )
    progress.add_argument(
        "--progress-every", type=_positive, default=10.0, metavar="SECONDS", help="between two lines (10)"
    )
    add_connection_options(parser)
    _add_pool_options(parser)
    add_login_options(parser)


def _add_envelope_options(parser: Parser) -> None:
    group = parser.add_argument_group("envelope")
    group.add_argument(
        "--from", dest="sender", metavar="ADDRESS", help='the reverse-path ("" for none), not the headers\''
    )
    group.add_argument(
        "--to",
        dest="recipients",
        action="append",
        metavar="ADDRESS",
        help="a recipient, instead of those in the headers; may be repeated",
    )
    group.add_argument(
        "--raw", action="store_true", help="send the octets as they are, Bcc and all; headers name nobody"
    )


def _add_journal_options(parser: Parser) -> None:
    group = parser.add_argument_group("journal")
    group.add_argument("--journal", metavar="FILE", help="write down each step, to go on from")
    group.add_argument("--resume", action="store_true", help="go on with what the journal leaves open")
    group.add_argument(
        "--resend-unknown",
        action="store_true",
        help="on resume, send again what may have arrived: a duplicate",
    )
    group.add_argument(
        "--retry-refused", action="store_true", help="on resume, send again what was refused for now (4yz)"
    )
    group.add_argument(
        "--durable", action="store_true", help="survive a power failure too: slower, waits for the disk"
    )


def _add_pool_options(parser: Parser) -> None:
    group = add_server_options(parser)
    group.add_argument(
        "--connections", type=_count, default=10, metavar="N", help="at most so many (default: %(default)s)"
    )
    group.add_argument("--rate", type=_positive, metavar="N", help="at most so many messages a second")
    group.add_argument(
        "--burst", type=_count, metavar="N", help="so many at once before --rate counts (default: 1)"
    )
    group.add_argument(
        "--retries",
        type=_natural,
        default=10,
        metavar="N",
        help="try again so often what was not sent, and to connect: 10 outlast about twenty seconds "
        "without a server (default: %(default)s)",
    )
    group.add_argument(
        "--pipelining",
        choices=["off", "message", "stream"],
        default="message",
        help="stream: begin the next message before the answer to this one (default: %(default)s)",
    )
    group.add_argument(
        "--chunking",
        choices=["off", "auto", "eager"],
        default="auto",
        help="BDAT: never, where the server has shown that it can, or where offered (default: %(default)s)",
    )


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(text)
    return value


def _natural(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(text)
    return int(text)


def _count(text: str) -> int:
    value = _natural(text)
    if not value:
        raise ValueError(text)
    return value


# What argparse calls them in "invalid number value: 'x'".
for _reader in (_positive, _natural, _count):
    _reader.__name__ = "number"


def run(arguments: argparse.Namespace) -> Exit:
    """Carry the command out; returns what to exit with."""
    _check(arguments)
    transcript = Transcript()
    pool = pool_of(arguments, transcript if arguments.trace else None)
    journal = _journal_of(arguments)
    bulk = Bulk(arguments, journal)
    try:
        asyncio.run(bulk.carry_out(pool))
    finally:
        transcript.end()
        if journal is not None:
            journal.close()
    return bulk.code


def _check(arguments: argparse.Namespace) -> None:
    """Find what makes no sense together, before anything is opened.

    Raises:
        Failure: something does not.
    """
    if arguments.sources.count(STANDARD_INPUT) > 1:
        raise Failure("standard input can be read only once", Exit.USAGE)
    if arguments.resume and arguments.journal is None:
        raise Failure("--resume needs the --journal to go on with", Exit.USAGE)
    if arguments.resend_unknown and not arguments.resume:
        raise Failure("--resend-unknown is about what a journal says: it needs --resume", Exit.USAGE)
    if arguments.retry_refused and arguments.journal is None:
        raise Failure("--retry-refused is about what a journal says: it needs --journal", Exit.USAGE)
    if arguments.durable and arguments.journal is None:
        raise Failure("--durable is about the --journal, and there is none", Exit.USAGE)
    if arguments.burst is not None and arguments.rate is None:
        raise Failure("--burst needs --rate", Exit.USAGE)
    if arguments.trace and arguments.connections > 1:
        raise Failure("--trace shows one conversation: it needs --connections 1", Exit.USAGE)


def pool_of(arguments: argparse.Namespace, trace: Trace | None) -> SMTPPool:
    """Make the pool that the arguments describe; it is not connected.

    Raises:
        Failure: an argument makes no sense.
    """
    options = client_options(arguments, trace)
    options["chunking"] = arguments.chunking
    rate = (arguments.rate, arguments.burst or 1) if arguments.rate is not None else None
    with sensible():
        host, port = server_of(arguments)
        return SMTPPool(
            host,
            port,
            arguments.local_hostname,
            timeouts_of(arguments),
            lmtp=arguments.lmtp,
            max_connections=arguments.connections,
            rate_limit=rate,
            retries=arguments.retries,
            **options,
        )


def _journal_of(arguments: argparse.Namespace) -> Journal | None:
    if arguments.journal is None:
        return None
    return Journal(
        arguments.journal,
        resume=arguments.resume,
        durable=arguments.durable,
        resend_unknown=arguments.resend_unknown,
        retry_refused=arguments.retry_refused,
    )


class Bulk:
    """One run of the command.

    Args:
        arguments: of the command.
        journal: the journal, if there is to be one.
    """

    def __init__(self, arguments: argparse.Namespace, journal: Journal | None) -> None:
        self._arguments = arguments
        self._journal = journal
        self._counts = Counts(time.perf_counter)
        self._codes: set[Exit] = set()
        self._broken: OSError | None = None
        self._failed: Failure | None = None
        self._interrupted = False
        self._display: Display
        self._run: Run

    async def carry_out(self, pool: SMTPPool) -> None:
        """Send everything, and print what there is to be printed.

        Raises:
            Failure: the journal could not be written.
            OSError: standard output could not be.
        """
        arguments, stop = self._arguments, threading.Event()
        sources = Sources(arguments.sources, arguments.format, arguments.mbox_kind, stop)
        way = "lines" if arguments.trace and arguments.progress == "auto" else arguments.progress
        self._display = display_for(
            way, self._counts, lambda: sources.share, interval=arguments.progress_every
        )
        desk = Desk(arguments.sender, arguments.recipients, raw=arguments.raw)
        feed = Feed(desk.letters(sources), _weight, stop)
        self._run = Run(feed, self._journal, self._counts, self._report)
        try:
            await self._under_watch(pool)
        finally:
            await feed.close()
            self._display.close()
        self._sum_up()
        if self._failed is not None:
            raise self._failed
        if self._broken is not None:
            raise self._broken

    async def _under_watch(self, pool: SMTPPool) -> None:
        """Carry the run out while progress is shown and Ctrl-C is heard."""
        watching = asyncio.create_task(self._watch())
        running = asyncio.create_task(self._send(pool))
        try:
            with _interruptions(lambda: self._interrupt(running)):
                await running
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _send(self, pool: SMTPPool) -> None:
        try:
            async with pool:
                await self._run.carry_out(pool)
        except asyncio.CancelledError:
            # Everything has its account, so this is an end like others.
            self._interrupted = True
            self._run.stop(INTERRUPTED)
        except Failure as error:  # the journal; what is known is told all the same
            self._failed = error
            self._run.stop("the journal cannot be written")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._display.interval)
            self._display.show()

    def _interrupt(self, running: asyncio.Task[None]) -> None:
        """Ctrl-C was pressed, or the system is going down."""
        if self._interrupted:
            running.cancel()
            return
        self._interrupted = True
        self._run.stop(INTERRUPTED)
        self._display.mention("interrupted: finishing what is under way; once more stops at once")
        asyncio.get_running_loop().call_later(GRACE, running.cancel)

    # -- printing ----------------------------------------------------------------------

    def _report(self, account: Account) -> None:
        self._codes.add(self._code_of(account))
        if account.error is not None and self._arguments.debug:
            trace_back(account.error)
        if self._broken is not None:
            return
        try:
            self._print(account)
        except OSError as error:
            # Nobody reads the accounts any more. What is under way is not to become unknown over that.
            self._broken = error
            self._run.stop("standard output cannot be written")

    def _print(self, account: Account) -> None:
        if self._arguments.json:
            self._display.say(json.dumps(account.as_json()))
        elif any(outcome.delivery is not Delivery.ACCEPTED for outcome in account.outcomes or [account]):
            why = f": {in_options(str(account.error)) or INTERRUPTED}" if account.error is not None else ""
            first, *rest = account.lines()
            for line in (first + why, *rest):
                self._display.say(line)
        else:
            return
        sys.stdout.flush()

    def _sum_up(self) -> None:
        counts = self._counts
        tell = self._display.mention if self._arguments.json or self._broken else self._display.say
        parts = [f"{counts.total:,} message{'s' * (counts.total != 1)}: {counts.words()}"]
        if counts.before.total():
            before = ", ".join(f"{count:,} {delivery}" for delivery, count in counts.before.items())
            parts.append(f"{before} before")
        parts.append(f"{span(counts.seconds)}, {counts.rate:,.1f} messages/s")
        if latencies := counts.latencies():
            parts.append(latencies)
        tell("; ".join(parts))
        if self._run.stopped:
            again = ": --resume goes on" if self._journal is not None else ""
            tell(f"{self._run.stopped}; the rest of the input was not taken{again}")
        if counts.deliveries[Delivery.UNKNOWN]:
            tell(
                f"{counts.deliveries[Delivery.UNKNOWN]:,} may have arrived or not; nobody but a human "
                "can tell whether to send again"
            )

    # -- exit codes --------------------------------------------------------------------

    def _code_of(self, account: Account) -> Exit:
        """What to exit with after this message alone."""
        if account.delivery is Delivery.UNKNOWN or any(
            outcome.delivery is Delivery.UNKNOWN for outcome in account.outcomes
        ):
            return Exit.IOERR
        code = account.code
        if account.delivery is Delivery.ACCEPTED and any(
            outcome.delivery is Delivery.NOT_SENT for outcome in account.outcomes
        ):
            return worst((code, Exit.TEMPFAIL))
        if code is Exit.TEMPFAIL and account.delivery is not Delivery.NOT_SENT:
            # The same command would not send it again, unless it says so.
            return code if self._arguments.retry_refused else Exit.UNAVAILABLE
        return code

    @property
    def code(self) -> Exit:
        """What to exit with after all."""
        if self._counts.deliveries[Delivery.UNKNOWN]:
            return Exit.IOERR
        if self._interrupted:
            return Exit.INTERRUPTED
        # What was refused in an earlier run is not well because this one had nothing to do with it.
        before = (Exit.UNAVAILABLE,) if self._counts.refused_before else ()
        code = worst((*self._codes, *before))
        accepted = self._counts.deliveries[Delivery.ACCEPTED]
        if code is Exit.TEMPFAIL and self._journal is None and accepted:
            return Exit.UNAVAILABLE  # nobody remembers who has it, so the same command would send it twice
        return code


def _weight(letter: Letter) -> int:
    return letter.size


@contextlib.contextmanager
def _interruptions(interrupt: Callable[[], None]) -> Iterator[None]:
    """Call this for each SIGINT and SIGTERM."""
    loop = asyncio.get_running_loop()
    heard = []
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            # Not in a thread other than the main one, and not on Windows, where Ctrl-C cancels at once.
            with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
                loop.add_signal_handler(number, interrupt)
                heard.append(number)
        yield
    finally:
        for number in heard:
            loop.remove_signal_handler(number)
