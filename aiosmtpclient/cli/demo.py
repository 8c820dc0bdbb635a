"""`aiosmtpclient demo`: send a folder of messages through every client, to servers of our own.

An SMTP and an LMTP server are started on the loopback interface. Each message goes through
`AsyncSMTP`, `AsyncLMTP` and the blocking `SMTP`; what arrived is compared, octet by octet and
address by address, with what `meant` worked out from the file. Then `rehearsal` sends them in
bulk, with an interruption.

Rules of this room:

* Nothing leaves this machine, and nothing stays on it: what bulk reads and writes is in a
  temporary folder.
* One recipient is always refused: in SMTP at RCPT, in LMTP after the content, which is where a
  refusal of that kind comes in real life.
* Whatever is not as it was meant is named, and ends with exit code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aiosmtpclient.client import AsyncLMTP, AsyncSMTP
from aiosmtpclient.delivery import SendResult
from aiosmtpclient.errors import Delivery, RecipientOutcome, SMTPException
from aiosmtpclient.sync import SMTP

from .exits import Exit, Failure
from .meant import Meant, read
from .options import add_command
from .printing import Transcript, complain, say
from .rehearsal import Rehearsal, rehearse

if TYPE_CHECKING:
    from aiosmtpclient.testing import MailServer

    from .options import Parser

REFUSED = "refuses@example.org"
REFUSAL = "550 5.1.1 no such mailbox here"
_COLUMNS = "  {:<30} {:<10} {:<13} {:>8} {:>8} {:>7}  {:<13} {}"
TABLE_HEAD = _COLUMNS.format("message", "client", "call", "accepted", "refused", "octets", "arrived", "why")
EXAMPLES = Path("examples", "messages")

_DESCRIPTION = """\
Send every message (*.eml) of a folder through the SMTP client, the LMTP client and the
blocking client, to servers that are started for it on this machine, print one of the
conversations and an account of all, and compare what arrived with what was meant.
Then send them in bulk, kill that on the way, go on with it, and compare again.
"""


def add_to(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the command."""
    parser = add_command(commands, "demo", run, help="send a folder to itself", description=_DESCRIPTION)
    parser.add_argument(
        "folder", nargs="?", type=Path, metavar="FOLDER", help=f"where the messages are (default: {EXAMPLES})"
    )


def run(arguments: argparse.Namespace) -> Exit:
    """Carry the command out; returns what to exit with."""
    begun = time.monotonic()
    letters = letters_of(arguments.folder)
    with server() as smtp, server(lmtp=True) as lmtp:
        say(f"One conversation, {chosen(letters).name} to an SMTP server:")
        asyncio.run(converse(chosen(letters), smtp))
        smtp.messages.clear()
        say("")
        say("Each message through each client:")
        say(TABLE_HEAD)
        rows = []
        for row in transmissions(letters, smtp, lmtp):
            say(row.line)
            rows.append(row)
        wrong = any(row.problems for row in rows)
        folder = arguments.folder or examples()
        bulk = rehearse(letters, folder, smtp) if not wrong else Rehearsal((), ())
    say("")
    for line in bulk.lines:
        say(line)
    say("")
    say(summary(rows, letters, time.monotonic() - begun))
    for row in rows:
        for problem in row.problems:
            complain(f"demo: {row.letter.name} through {row.client}: {problem}")
    for problem in bulk.problems:
        complain(f"demo: in bulk: {problem}")
    return Exit.FAILED if wrong or bulk.problems else Exit.OK


def letters_of(folder: Path | None) -> list[Meant]:
    """Read the messages of a folder, or of the examples.

    Raises:
        Failure: there are none, or one cannot be read.
    """
    folder = folder or examples()
    letters = [read(path) for path in sorted(folder.glob("*.eml"))]
    if not letters:
        raise Failure(f"{folder}: no messages (*.eml) there", Exit.NOINPUT)
    return letters


def examples() -> Path:
    """Return where the examples are: below the current folder, or in the checkout around this file."""
    checkout = Path(__file__).resolve().parents[2] / EXAMPLES
    return EXAMPLES if EXAMPLES.is_dir() or not checkout.is_dir() else checkout


def server(*, lmtp: bool = False) -> MailServer:
    """Make a server that refuses one recipient.

    Raises:
        Failure: what it is built on is not installed.
    """
    try:
        from aiosmtpclient.testing import MailServer
    except ImportError as error:
        raise Failure(str(error), Exit.UNAVAILABLE) from error
    refusals = {REFUSED: REFUSAL}
    return MailServer(lmtp=True, refuse_after_content=refusals) if lmtp else MailServer(refuse=refusals)


# -- sending -------------------------------------------------------------------------------


def chosen(letters: Sequence[Meant]) -> Meant:
    """The message whose conversation is shown: a short one, with a refusal if there is any."""
    return min(letters, key=lambda letter: (REFUSED not in letter.recipients, len(letter.octets)))


async def converse(letter: Meant, smtp: MailServer) -> None:
    """Send one message on a connection of its own, and print all that is said."""
    transcript = Transcript(lambda line: say(f"  {line}"))
    async with AsyncSMTP(smtp.host, smtp.port, trace=transcript) as client:
        await _send(client, letter)
    transcript.end()


def transmissions(letters: Sequence[Meant], smtp: MailServer, lmtp: MailServer) -> Iterator[Row]:
    """Send each message through each client; yields what became of it."""
    by_smtp = asyncio.run(_through(AsyncSMTP(smtp.host, smtp.port), letters, smtp))
    by_lmtp = asyncio.run(_through(AsyncLMTP(lmtp.host, lmtp.port), letters, lmtp))
    blocking = _through_blocking(letters, smtp)
    for rows in zip(by_smtp, by_lmtp, blocking, strict=True):
        yield from rows


async def _through(client: AsyncSMTP, letters: Sequence[Meant], server: MailServer) -> list[Row]:
    rows = []
    async with client:
        for letter in letters:
            before = len(server.messages)
            sent = await _send(client, letter)
            rows.append(judged(letter, type(client).__name__, sent, server, before))
    return rows


async def _send(client: AsyncSMTP, letter: Meant) -> SendResult | SMTPException | ValueError:
    try:
        if letter.parsed is not None:
            return await client.send_message(letter.parsed)
        return await client.sendmail(letter.sender, letter.recipients, letter.octets)
    except (SMTPException, ValueError) as error:
        return error


def _through_blocking(letters: Sequence[Meant], server: MailServer) -> list[Row]:
    rows = []
    with SMTP(server.host, server.port) as client:
        for letter in letters:
            before = len(server.messages)
            rows.append(judged(letter, "SMTP", _send_blocking(client, letter), server, before))
    return rows


def _send_blocking(client: SMTP, letter: Meant) -> SendResult | SMTPException | ValueError:
    try:
        if letter.parsed is not None:
            return client.send_message(letter.parsed)
        return client.sendmail(letter.sender, letter.recipients, letter.octets)
    except (SMTPException, ValueError) as error:
        return error


# -- judging -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one message through one client.

    Attributes:
        letter: what was meant.
        client: the name of the class.
        outcomes: what the client said about each recipient.
        problems: what is not as it was meant.
    """

    letter: Meant
    client: str
    outcomes: tuple[RecipientOutcome, ...]
    problems: tuple[str, ...]

    @property
    def line(self) -> str:
        """The row as a line below `TABLE_HEAD`."""
        deliveries = [delivery for _, delivery, _ in self.outcomes]
        accepted, refused = deliveries.count(Delivery.ACCEPTED), deliveries.count(Delivery.REFUSED)
        verdict = "NOT as meant" if self.problems else "as meant"
        why = "; ".join(
            f"{delivery} {address}: {reply.display if reply is not None else 'no reply'}"
            for address, delivery, reply in self.outcomes
            if delivery is not Delivery.ACCEPTED
        )
        octets = len(self.letter.content)
        columns = (self.letter.name, self.client, self.letter.call, accepted, refused, octets, verdict, why)
        return _COLUMNS.format(*columns).rstrip()


def judged(
    letter: Meant,
    client: str,
    sent: SendResult | SMTPException | ValueError,
    server: MailServer,
    before: int,
) -> Row:
    """Compare what the client said, and what has arrived since, with what was meant."""
    outcomes: tuple[RecipientOutcome, ...] = getattr(sent, "outcomes", ())
    problems = list(_unexpected(letter, sent, outcomes))
    willing = tuple(address for address in letter.recipients if address != REFUSED)
    arrived = server.messages[before:]
    if len(arrived) != bool(willing):
        problems.append(f"{len(arrived)} messages arrived")
    for message in arrived:
        if (message.sender, message.recipients) != (letter.sender, willing):
            problems.append(f"the envelope arrived as {message.sender} → {', '.join(message.recipients)}")
        if message.content != letter.content:
            problems.append(difference(letter.content, message.content))
    return Row(letter, client, outcomes, tuple(problems))


def _unexpected(
    letter: Meant, sent: SendResult | SMTPException | ValueError, outcomes: Sequence[RecipientOutcome]
) -> Iterator[str]:
    expected = [
        Delivery.REFUSED if address == REFUSED else Delivery.ACCEPTED for address in letter.recipients
    ]
    if [outcome.delivery for outcome in outcomes] != expected:
        yield str(sent) if isinstance(sent, Exception) else f"an unexpected account: {sent!r}"
    for address, _, reply in outcomes:
        if address == REFUSED and (reply is None or reply.display != REFUSAL):
            yield f"{address} was refused with other words: {reply!r}"


def difference(meant: bytes, arrived: bytes) -> str:
    """Say where two contents begin to differ."""
    pairs = enumerate(zip(meant, arrived, strict=False))
    where = next((index for index, (a, b) in pairs if a != b), min(len(meant), len(arrived)))
    there, here = meant[where : where + 20], arrived[where : where + 20]
    return f"from octet {where} on {there!r} was meant and {here!r} arrived"


def summary(rows: Sequence[Row], letters: Sequence[Meant], seconds: float) -> str:
    """The whole run in one line."""
    deliveries = [delivery for row in rows for _, delivery, _ in row.outcomes]
    accepted, refused = deliveries.count(Delivery.ACCEPTED), deliveries.count(Delivery.REFUSED)
    wrong = sum(bool(row.problems) for row in rows)
    verdict = f"{wrong} NOT as meant" if wrong else "every octet and every answer as meant"
    return (
        f"{len(letters)} messages, {len(rows)} transmissions: "
        f"{accepted} recipients accepted, {refused} refused; {verdict} ({seconds:.1f} s)"
    )
