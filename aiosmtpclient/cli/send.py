"""`aiosmtpclient send`: send messages from files, and account for each of them.

All messages go through one connection, one after the other, in the order of the arguments. It is
opened when the first message is ready, and again when it was lost.

Rules of this room:

* Each message gets an account, also those that were never tried. Nothing is sent twice.
* A connection that cannot be made is not tried again for the next message: a wrong password
  that is repeated gets accounts locked.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import email.policy
import json
import signal
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

from aiosmtpclient.client import AsyncSMTP
from aiosmtpclient.delivery import SendResult
from aiosmtpclient.errors import Delivery, SMTPException
from aiosmtpclient.message import prepare, prepare_message

from .account import Account
from .exits import Exit, Failure, worst
from .options import (
    Parser,
    add_command,
    add_connection_options,
    add_login_options,
    add_server_options,
    client_of,
    in_options,
)
from .printing import Transcript, complain, say, trace_back

STANDARD_INPUT = "-"

# Header lines stay as they stand in the file, however long they are: somebody may have signed them.
_AS_IT_STANDS = email.policy.default.clone(refold_source="none")

_DESCRIPTION = """\
Send messages through an SMTP or LMTP server.

Sender and recipients come from the headers (Sender or From; To, Cc and Bcc) or from
--from and --to. Bcc does not travel. The password comes from --password-file, a netrc,
the environment, or a prompt, never from the arguments. Printed is an account: a line for
each message, and one for each recipient: accepted, refused (and what the server said),
not sent (safe to send again), or unknown (sending again may make a duplicate).
"""


def add_to(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the command."""
    parser = add_command(commands, "send", run, help="send messages", description=_DESCRIPTION)
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="a message (.eml); - or none reads standard input"
    )
    envelope = parser.add_argument_group("envelope")
    envelope.add_argument("--from", dest="sender", metavar="ADDRESS", help='the reverse-path ("" for none)')
    envelope.add_argument(
        "--to", dest="recipients", action="append", metavar="ADDRESS", help="a recipient; may be repeated"
    )
    envelope.add_argument(
        "--raw", action="store_true", help="send the octets as they are, Bcc and all; needs --from and --to"
    )
    envelope.add_argument(
        "--all-or-nothing", action="store_true", help="one refused recipient refuses the message"
    )
    add_connection_options(parser)
    add_server_options(parser).add_argument(
        "--pipelining",
        choices=["off", "message"],
        default="message",
        help="write a message's commands at once where the server offers it (default: %(default)s)",
    )
    add_login_options(parser)


def run(arguments: argparse.Namespace) -> Exit:
    """Carry the command out; returns what to exit with."""
    files = arguments.files or [STANDARD_INPUT]
    if files.count(STANDARD_INPUT) > 1:
        raise Failure("standard input can be read only once", Exit.USAGE)
    if arguments.raw and (arguments.sender is None or not arguments.recipients):
        raise Failure("--raw takes no envelope from the headers: it needs --from and --to", Exit.USAGE)
    transcript = Transcript()
    client = client_of(arguments, transcript if arguments.trace else None)
    sending = Sending(client, arguments)
    try:
        asyncio.run(sending.send(files))
    except (KeyboardInterrupt, asyncio.CancelledError):
        complain("interrupted")
        # What somebody has to look at counts more than that it was cut short.
        return Exit.IOERR if Exit.IOERR in sending.codes else Exit.INTERRUPTED
    finally:
        transcript.end()
    return worst(sending.codes)


@dataclass(frozen=True, slots=True)
class Letter:
    """A message that can be sent, as far as can be told without a server.

    Attributes:
        sender: the reverse-path, or None for the one in the headers.
        recipients: the forward-paths, or None for those in the headers.
        content: the message, or with `--raw` its octets.
        addresses: the recipients, wherever they come from.
    """

    sender: str | None
    recipients: tuple[str, ...] | None
    content: EmailMessage | bytes
    addresses: tuple[str, ...]


def letter_of(octets: bytes, arguments: argparse.Namespace) -> Letter:
    """Make a letter of what was read.

    Raises:
        ValueError: it cannot be sent as it is.
    """
    sender = arguments.sender
    recipients = tuple(arguments.recipients) if arguments.recipients else None
    if arguments.raw:
        prepared = prepare(sender, recipients or (), octets, eightbitmime=True, smtputf8=True)
        content: EmailMessage | bytes = octets
    else:
        content = email.message_from_bytes(octets, policy=_AS_IT_STANDS)
        prepared = prepare_message(content, sender, recipients, eightbitmime=True, smtputf8=True)
    return Letter(sender, recipients, content, tuple(prepared.recipients.texts))


def octets_of(file: str) -> bytes:
    """Read a message.

    Raises:
        Failure: it cannot be read.
    """
    try:
        return sys.stdin.buffer.read() if file == STANDARD_INPUT else Path(file).read_bytes()
    except OSError as error:
        raise Failure(error.strerror or str(error), Exit.NOINPUT) from error


class Sending:
    """One run of the command.

    Attributes:
        codes: what to exit with after each message.
    """

    def __init__(self, client: AsyncSMTP, arguments: argparse.Namespace) -> None:
        self.codes: list[Exit] = []
        self._client = client
        self._arguments = arguments
        self._hopeless: Exception | None = None

    async def send(self, files: Iterable[str]) -> None:
        """Send the messages, and print the account of each as soon as it is known."""
        task = asyncio.current_task()
        assert task is not None
        async with contextlib.AsyncExitStack() as stack:
            with contextlib.suppress(NotImplementedError):  # Windows; a system that goes down says SIGTERM
                asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
            stack.push_async_exit(self._client)
            waiting = list(files)
            try:
                while waiting:
                    await self._send_file(waiting.pop(0))
            except asyncio.CancelledError:
                for file in waiting:
                    self._print(Account(file, Delivery.NOT_SENT))
                raise

    async def _send_file(self, file: str) -> None:
        recipients: tuple[str, ...] = ()
        try:
            letter = letter_of(octets_of(file), self._arguments)
            recipients = letter.addresses
            account = Account.of_result(file, await self._deliver(letter))
        except (SMTPException, ValueError, Failure) as error:
            account = Account.of_error(file, error, recipients)
        except asyncio.CancelledError as interrupted:
            # What is known is stamped on it; whoever pressed Ctrl-C wants to know it too.
            account = Account.of_error(file, interrupted, recipients)
            if account.delivery is Delivery.UNKNOWN:
                self.codes.append(Exit.IOERR)
            self._print(account)
            raise
        self._report(account)

    async def _deliver(self, letter: Letter) -> SendResult:
        await self._connect()
        together = self._arguments.all_or_nothing
        if isinstance(letter.content, EmailMessage):
            return await self._client.send_message(
                letter.content, letter.sender, letter.recipients, all_or_nothing=together
            )
        return await self._client.sendmail(
            letter.sender or "", letter.addresses, letter.content, all_or_nothing=together
        )

    async def _connect(self) -> None:
        if self._hopeless is not None:
            raise self._hopeless
        if self._client.is_connected:
            return
        try:
            await self._client.connect()
        except SMTPException as error:
            self._hopeless = error
            raise
        except ValueError as error:  # --host or --server-hostname is no name
            self._hopeless = Failure(str(error), Exit.USAGE)
            raise self._hopeless from error

    def _report(self, account: Account) -> None:
        self.codes.append(account.code)
        self._print(account)
        if account.error is not None:
            if self._arguments.debug:
                trace_back(account.error)
            complain(f"{account.file}: {in_options(str(account.error))}")

    def _print(self, account: Account) -> None:
        if self._arguments.json:
            say(json.dumps(account.as_json()))
        else:
            for line in account.lines():
                say(line)
        sys.stdout.flush()
