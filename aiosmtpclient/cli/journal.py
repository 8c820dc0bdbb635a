"""The journal of a bulk run: what makes it possible to go on after anything that ends it.

An append-only file of JSON lines. After a first line that says what it is, there are three kinds::

    {"take": 7, "message": place, "digest": …, "from": …, "to": […]}     it was read, and got number 7
    {"begin": 7}                                       its first octet is about to be written
    {"end": 7, "at": …, "message": place, "delivery": …, "outcomes": [[address, delivery, reply], …]}

`begin` and `end` name the `positions` of the recipients where it is not all of them.

Rules of this room:

* A line is written whole, by one write that has returned before what it announces is done: it
  survives whatever becomes of this process. `durable` has it on the disk before the first octet
  of a message leaves, so that it survives a power failure too.
* A line counts when its line end is there. What a crash left of a last line is cut off.
* A file that is no journal is never written to. A journal has one writer at a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from aiosmtpclient.errors import Delivery, RecipientOutcome

from .exits import Exit, Failure
from .standings import UNKNOWN, Standing, Standings, letter_of_word

if TYPE_CHECKING:
    from types import ModuleType

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows: whoever uses a journal twice at a time is not stopped
    fcntl = None

HEADER = b'{"journal":"aiosmtpclient bulk","version":1}\n'
_ENCODE = json.JSONEncoder(separators=(",", ":")).encode
_DECODE = json.JSONDecoder().decode
_PRIVATE = 0o600
"""Nobody else reads who gets mail from whom."""


class Named(NamedTuple):
    """A message as its `take` line names it.

    Attributes:
        place: where in the input it stands.
        sender: the reverse-path.
        recipients: the forward-paths, by position.
    """

    place: str
    sender: str
    recipients: tuple[str, ...]


class Journal:
    """A journal that is open and locked.

    Args:
        path: the file.
        resume: go on with what stands there; otherwise it must be new, or empty.
        durable: what must not be forgotten is on the disk before anything follows from it.
        resend_unknown: see `Standings`.
        retry_refused: see `Standings`.

    Attributes:
        standings: what was known when it was opened.

    Raises:
        Failure: it is missing, there already, in use, damaged, or no journal.
    """

    def __init__(
        self,
        path: str,
        *,
        resume: bool = False,
        durable: bool = False,
        resend_unknown: bool = False,
        retry_refused: bool = False,
    ) -> None:
        self.path = path
        self.standings = Standings(resend_unknown, retry_refused, lambda where: self._named_at(where).place)
        self._durable = durable
        self._taken: list[bytes] = []
        self._descriptor = _open(path, create=not resume)
        try:
            self._lock()
            self._read(resume)
            self._count = len(self.standings)
        except BaseException:
            os.close(self._descriptor)
            raise

    # -- writing -----------------------------------------------------------------------

    def take(self, place: str, digest: bytes, sender: str, recipients: Sequence[str]) -> int:
        """Give a message that is new here its number. Its line leaves with the next one."""
        self._count += 1
        line = {
            "take": self._count,
            "message": place,
            "digest": digest.hex(),
            "from": sender,
            "to": list(recipients),
        }
        self._taken.append(_line(line))
        return self._count

    def begin(self, number: int, positions: Sequence[int] | None = None) -> None:
        """The first octet of a message is about to be written.

        Args:
            number: of the message.
            positions: of the recipients; None for all.

        Raises:
            Failure: it could not be written down, so the message must not leave.
        """
        self._append(_line({"begin": number, **_positions(positions)}))
        if self._durable:
            _to_disk(self._descriptor)

    def end(
        self,
        number: int,
        place: str,
        delivery: Delivery,
        outcomes: Sequence[RecipientOutcome],
        *,
        positions: Sequence[int] | None = None,
        error: BaseException | None = None,
    ) -> None:
        """The outcome of a message is known.

        Raises:
            Failure: it could not be written down; on resume the message is unknown.
        """
        said = [
            [address, each.value, reply.display if reply is not None else ""]
            for address, each, reply in outcomes
        ]
        line = {
            "end": number,
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "message": place,
            "delivery": delivery.value,
            "outcomes": said,
            **_positions(positions),
        }
        if error is not None:
            line["error"] = f"{type(error).__name__}: {error}"
        self._append(_line(line))

    def close(self) -> None:
        """Write what is left, and give the file free."""
        if self._descriptor < 0:
            return
        try:
            self._append(b"")
            if self._durable:
                _to_disk(self._descriptor)
        finally:
            os.close(self._descriptor)
            self._descriptor = -1

    def _append(self, line: bytes) -> None:
        octets = b"".join(self._taken) + line
        try:
            _write(self._descriptor, octets)
        except OSError as error:
            # A disk that is full takes half a line, and the next one must not be glued to it.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._length)
            raise Failure(f"{self.path}: {error.strerror or error}", Exit.IOERR) from error
        self._taken.clear()
        self._length += len(octets)

    # -- reading -----------------------------------------------------------------------

    def named(self, standing: Standing) -> Named:
        """Read what the journal says about a message that it knows."""
        return self._named_at(standing.where)

    def _named_at(self, where: int) -> Named:
        with open(self.path, "rb") as file:
            file.seek(where)
            line = json.loads(file.readline())
        return Named(line["message"], line["from"], tuple(line["to"]))

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failure(f"{self.path}: in use by a run that is under way", Exit.TEMPFAIL) from None
        except OSError:  # a file system without locks
            return

    def _read(self, resume: bool) -> None:
        with open(self.path, "rb") as file:
            first = file.readline(len(HEADER))
            anything = bool(file.peek(1))
            if not resume and (anything or not HEADER.startswith(first)):
                raise Failure(
                    f"{self.path}: is there already: --resume goes on with it, "
                    "and another --journal starts anew",
                    Exit.USAGE,
                )
            if not HEADER.startswith(first):
                raise Failure(f"{self.path}: no journal of this version of bulk", Exit.DATAERR)
            end = len(first) if first == HEADER else 0
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._apply(line, end)
                end += len(line)
        self.standings.settle()
        os.ftruncate(self._descriptor, end)
        self._length = end
        if not end:
            self._append(HEADER)
        if self._durable:
            _to_disk(self._descriptor)
            _folder_to_disk(self.path)

    def _apply(self, line: bytes, where: int) -> None:
        try:
            self._note(_DECODE(line.decode("ascii")), where)
        except (ValueError, LookupError, TypeError, AttributeError):
            raise Failure(
                f"{self.path}: damaged: no line of a journal begins at octet {where}; nothing was sent",
                Exit.DATAERR,
            ) from None

    def _note(self, line: dict[str, object], where: int) -> None:
        if "take" in line:
            place, digest, recipients = line["message"], line["digest"], line["to"]
            if not (isinstance(place, str) and isinstance(digest, str) and isinstance(recipients, list)):
                raise ValueError(line)
            if line["take"] != len(self.standings) + 1:
                raise ValueError(line)
            self.standings.add(place, bytes.fromhex(digest), len(recipients), where)
        elif "begin" in line:
            standing = self._standing(line["begin"])
            positions = _positions_of(line, standing)
            standing.mark(positions, [UNKNOWN] * len(positions))
        else:
            standing = self._standing(line["end"])
            outcomes = line["outcomes"]
            if not isinstance(outcomes, list):
                raise ValueError(line)
            letters = [letter_of_word(word, said) for _, word, said in outcomes]
            standing.mark(_positions_of(line, standing), letters)

    def _standing(self, number: object) -> Standing:
        if not isinstance(number, int):
            raise ValueError(number)
        return self.standings[number]

    def unfinished(self) -> Iterator[tuple[Standing, Named]]:
        """What did not turn up in this run's input, and is not done."""
        for standing in self.standings.unseen():
            yield standing, self.named(standing)


def _positions(positions: Sequence[int] | None) -> dict[str, object]:
    return {} if positions is None else {"positions": list(positions)}


def _positions_of(line: dict[str, object], standing: Standing) -> Sequence[int]:
    positions = line.get("positions")
    if positions is None:
        return range(len(standing.letters))
    if not isinstance(positions, list):
        raise ValueError(line)
    return positions


def _line(line: dict[str, object]) -> bytes:
    # ASCII only: names of files and replies of servers need not be text in any character set.
    return _ENCODE(line).encode("ascii") + b"\n"


def _open(path: str, *, create: bool) -> int:
    flags = os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0)
    try:
        return os.open(path, flags | (os.O_CREAT if create else 0), _PRIVATE)
    except FileNotFoundError as error:
        hint = "" if create else ": without --resume a new one is begun"
        raise Failure(f"{path}: {error.strerror}{hint}", Exit.NOINPUT) from error
    except OSError as error:
        raise Failure(f"{path}: {error.strerror or error}", Exit.IOERR) from error


def _write(descriptor: int, octets: bytes) -> None:
    while octets:
        octets = octets[os.write(descriptor, octets) :]


def _to_disk(descriptor: int) -> None:
    """Return when what was written is on the disk, as far as the system can tell."""
    if fcntl is not None and hasattr(fcntl, "F_FULLFSYNC"):  # macOS: fsync() stops at the disk's own memory
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)


def _folder_to_disk(path: str) -> None:
    """The name of a new file is in its folder, which is written by itself."""
    if sys.platform == "win32":
        return
    descriptor = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
