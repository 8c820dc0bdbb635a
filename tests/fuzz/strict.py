"""A server that takes nothing but what the RFCs say, octet by octet.

It shares nothing with the client: the grammar is written down here once more, from the RFCs.
What it takes beyond them is what this client says on purpose, and no more than this:

* a local part with dots anywhere, and one without a domain (RFC 5321 section 2.3.11: it is the
  receiving server's business);
* a domain of any atoms, underscores for one, for names of that kind are in use; a literal of any
  `dcontent`;
* any visible characters as a name to say hello with, as smtplib.

Rules of this room:

* What is not in the grammar goes to `wrong`, with the octets, and nothing is guessed about it.
* What the server does next follows from what it said, not from what would have been right.
* Whatever was read is in `commands` and `transactions`, as octets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

# RFC 5321 section 4.1.2, RFC 6531 section 3.3.
_ATEXT = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
_UTF8 = rb"(?:[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3})"
_ATOMS = rb"(?:%b|\.|%b)+" % (_ATEXT, _UTF8)
_QUOTED = rb'"(?:[ !#-\[\]-~]|\\[ -~]|%b)*"' % _UTF8
_DOMAIN = rb"(?:%b|\.)+|\[[!-Z^-~]+\]" % _ATEXT
_MAILBOX = rb"(?:%b|%b)(?:@(?:%b))?" % (_ATOMS, _QUOTED, _DOMAIN)
_PARAMETERS = rb"(?: [A-Za-z0-9][A-Za-z0-9-]*(?:=(?:[!-<>-~]|%b)+)?)*" % _UTF8
_XTEXT = rb"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+"
_BASE64 = rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
_MOMENT = rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z"

_LINES = {
    "EHLO": rb"[!-~]+",
    "HELO": rb"[!-~]+",
    "LHLO": rb"[!-~]+",
    "MAIL": rb"FROM:<(?P<path>(?:%b)?)>(?P<parameters>%b)" % (_MAILBOX, _PARAMETERS),
    "RCPT": rb"TO:<(?P<path>%b)>(?P<parameters>%b)" % (_MAILBOX, _PARAMETERS),
    "BDAT": rb"(?P<size>[0-9]{1,20})(?P<last> LAST)?",
    "VRFY": rb"(?P<path>%b)(?P<parameters>(?: SMTPUTF8)?)" % _MAILBOX,
    "EXPN": rb"(?P<path>%b)(?P<parameters>(?: SMTPUTF8)?)" % _MAILBOX,
    "ETRN": rb"[@#]?[!-~]+",
    "AUTH": rb"[A-Z0-9_-]{1,20}(?: (?:=|%b))?" % _BASE64,
    "XCLIENT": rb"(?:NAME|ADDR|PORT|PROTO|HELO|LOGIN|DESTADDR|DESTPORT)=%b(?: [A-Z]+=%b)*" % (_XTEXT, _XTEXT),
    "XFORWARD": rb"(?:NAME|ADDR|PORT|PROTO|HELO|IDENT|SOURCE)=%b(?: [A-Z]+=%b)*" % (_XTEXT, _XTEXT),
}
_ALONE = frozenset({"DATA", "RSET", "QUIT", "STARTTLS", "NOOP", "HELP"})
_WITH_TEXT = frozenset({"NOOP", "HELP"})
# What a typed option becomes. Raw ones are the caller's own.
VALUES = {
    b"SIZE": rb"=[0-9]{1,20}",
    b"BODY": rb"=(?:7BIT|8BITMIME|BINARYMIME)",
    b"SMTPUTF8": rb"",
    b"RET": rb"=(?:FULL|HDRS)",
    b"ENVID": rb"=(?=.{1,100}\Z)%b" % _XTEXT,
    b"AUTH": rb"=(?:<>|%b)" % _XTEXT,
    b"BY": rb"=-?[0-9]{1,9};[RN]T?",
    b"HOLDFOR": rb"=[1-9][0-9]{0,8}",
    b"HOLDUNTIL": rb"=%b" % _MOMENT,
    b"MT-PRIORITY": rb"=-?[0-9]",
    b"REQUIRETLS": rb"",
    b"NOTIFY": rb"=(?:NEVER|(?:SUCCESS|FAILURE|DELAY)(?:,(?:SUCCESS|FAILURE|DELAY)){0,2})",
    b"ORCPT": rb"=[A-Za-z0-9][A-Za-z0-9-]*;(?:[!-<>-~]|%b)+" % _UTF8,
    b"RRVS": rb"=%b(?:;[CR])?" % _MOMENT,
}
# RFC 2920 section 3.1, RFC 3207, RFC 4954: nothing may be written behind these before they are answered.
_LAST = frozenset(
    {"EHLO", "HELO", "LHLO", "DATA", "STARTTLS", "AUTH", "VRFY", "EXPN", "NOOP", "QUIT", "ETRN"}
)
_NO_TEXT = re.compile(rb"\xc2[\x80-\x9f]|\xed[\xa0-\xbf]|[\x00-\x1f\x7f]")


@dataclass
class Transaction:
    """What the server was told to deliver.

    Attributes:
        sender: the reverse-path.
        options: parameters of MAIL, as they came.
        recipients: forward-paths, each with its parameters.
        accepted: those of them that were answered with 2yz.
        content: the octets, once the end of them was here; dots are single.
        chunks: how many of them came by BDAT; 0 if it was DATA.
        verdicts: the codes that were said to it.
    """

    sender: bytes
    options: list[bytes]
    recipients: list[tuple[bytes, list[bytes]]] = field(default_factory=list)
    accepted: list[bytes] = field(default_factory=list)
    content: bytes | None = None
    chunks: int = 0
    verdicts: list[int] = field(default_factory=list)


Speak = Callable[[str, bytes], bytes]
"""Called with what is answered and the right reply; returns what is said."""


def as_it_should(verb: str, right: bytes) -> bytes:
    """The right reply."""
    return right


class Strict:
    """The server.

    Args:
        offers: the lines behind EHLO.
        lmtp: one reply a recipient behind the content.
        speak: says something else than what would be right.

    Attributes:
        wrong: octets that no client may write.
        disorder: commands that were right and not in their place.
        commands: every line that was read as a command, or in an AUTH exchange.
        transactions: in order.
        raw: parameters, and whole lines, that are the caller's own affair: a raw BODY=7BIT for content
            that is not, for one, goes out as it was given.
        header: octets of a PROXY header that must come first.
        by_hand: the caller says MAIL and RCPT himself, so whether they fit together is his affair.
        closed: it said 221 or 421.
    """

    def __init__(
        self, offers: Collection[bytes] = (), *, lmtp: bool = False, speak: Speak = as_it_should
    ) -> None:
        self.offers = [*offers]
        self.keywords = {offer.split(b" ")[0] for offer in offers}
        self.lmtp = lmtp
        self.wrong: list[str] = []
        self.disorder: list[str] = []
        self.commands: list[bytes] = []
        self.transactions: list[Transaction] = []
        self.raw: set[bytes] = set()
        self.header = b""
        self.by_hand = False
        self.closed = False
        self.greeted = False
        self._speak = speak
        self._buffer = bytearray()
        self._open: Transaction | None = None
        self._chunk: bytearray | None = None
        self._broken = False
        self._vouched = False
        self._said: list[bytes] = []
        self._reading = self._read()

    # -- what is said -----------------------------------------------------------------------

    def greeting(self) -> bytes:
        """What is said first."""
        self._said = []
        self._answer("greeting", b"220 strict.test\r\n")
        return self.said()

    def said(self) -> bytes:
        """What was said since the last call."""
        said, self._said = b"".join(self._said), []
        return said

    def _answer(self, verb: str, right: bytes) -> int:
        """Say something; returns its code, 0 if it is none."""
        octets = self._speak(verb, right)
        self._said.append(octets)
        match = re.search(rb"(?:^|\n)([2-5][0-9]{2})(?:[ \r][^\n]*)?\n\Z", octets)
        code = int(match[1]) if match else 0
        self.closed = self.closed or code in (221, 421)
        return code

    # -- what comes -------------------------------------------------------------------------

    def hear(self, octets: bytes) -> bytes:
        """Take octets of the client; returns what is said to them."""
        self._buffer += octets
        if not self.closed:
            next(self._reading)
        return self.said()

    @property
    def unread(self) -> bytes:
        """What came and makes no whole line, or stands behind the end."""
        return bytes(self._buffer)

    def _read(self) -> Iterator[None]:
        while len(self._buffer) < len(self.header):
            yield
        if self.header and not self._buffer.startswith(self.header):
            self._complain("no PROXY header", self._buffer[: len(self.header)])
        del self._buffer[: len(self.header)]
        while True:
            end = self._buffer.find(b"\n")
            if self.closed or end < 0:
                yield
                continue
            line = bytes(self._buffer[: end + 1])
            del self._buffer[: end + 1]
            yield from self._command(line)

    def _complain(self, what: str, octets: bytes) -> None:
        if not self._vouched:
            self.wrong.append(f"{what}: {bytes(octets)[:120]!r}")

    def _command(self, line: bytes) -> Iterator[None]:
        self.commands.append(line)
        verb, found = self._parsed(line)
        self._vouched = line in self.raw
        if found is None:
            self._complain("no command", line)
            self._answer("?", b"500 5.5.2 what?\r\n")
            return
        if self._buffer and (verb in _LAST or (b"PIPELINING" not in self.keywords and verb != "BDAT")):
            self._complain(f"written behind {verb} before it was answered", self._buffer)
        handler = getattr(self, f"_on_{verb.lower()}", None)
        if handler is None:
            self._answer(verb, b"250 2.0.0 fine\r\n")
        else:
            yield from handler(found) or ()

    def _parsed(self, line: bytes) -> tuple[str, re.Match[bytes] | None]:
        if not line.endswith(b"\r\n") or _NO_TEXT.search(line[:-2]) or not _is_text(line):
            return "", None
        word, blank, rest = line[:-2].partition(b" ")
        verb = word.decode("ascii", "replace")
        if verb in _ALONE and not blank:
            return verb, re.match(rb"", rest)
        if verb in _WITH_TEXT:
            return verb, re.fullmatch(rb"[ -~]+", rest)
        return verb, re.fullmatch(_LINES[verb], rest) if verb in _LINES and blank else None

    # -- commands ------------------------------------------------------------------------------

    def _hello(self, verb: str) -> None:
        self._open = self._chunk = None
        if (verb == "LHLO") != self.lmtp:
            self._complain("the wrong hello", verb.encode())
        lines = [b"strict.test", *(self.offers if verb != "HELO" else [])]
        said = [b"250" + (b" " if line is lines[-1] else b"-") + line + b"\r\n" for line in lines]
        self.greeted = self._answer(verb, b"".join(said)) == 250

    def _on_ehlo(self, found: re.Match[bytes]) -> None:
        self._hello("EHLO")

    def _on_helo(self, found: re.Match[bytes]) -> None:
        self._hello("HELO")

    def _on_lhlo(self, found: re.Match[bytes]) -> None:
        self._hello("LHLO")

    def _on_mail(self, found: re.Match[bytes]) -> None:
        options = found["parameters"].split()
        self._check_parameters(found["path"], options, options)
        if self._open is not None or not self.greeted:
            self.disorder.append("MAIL")
        transaction = Transaction(found["path"], options)
        if self._answer("MAIL", b"250 2.1.0 fine\r\n") // 100 == 2:
            self._open, self._chunk, self._broken = transaction, None, False
            self.transactions.append(transaction)

    def _on_rcpt(self, found: re.Match[bytes]) -> None:
        options = found["parameters"].split()
        of_mail = [b"SMTPUTF8"] if self.by_hand and b"SMTPUTF8" in self.keywords else []
        self._check_parameters(found["path"], options, of_mail + (self._open.options if self._open else []))
        if self._open is None:
            self.disorder.append("RCPT")
            self._answer("RCPT", b"503 5.5.1 no MAIL\r\n")
            return
        self._open.recipients.append((found["path"], options))
        if self._answer("RCPT", b"250 2.1.5 fine\r\n") // 100 == 2:
            self._open.accepted.append(found["path"])

    def _check_parameters(self, path: bytes, options: list[bytes], of_mail: list[bytes]) -> None:
        utf8 = b"SMTPUTF8" in [option.upper() for option in of_mail]
        if utf8 and options is of_mail and b"SMTPUTF8" not in self.keywords:
            self._complain("SMTPUTF8 was not offered", path)
        if not utf8 and not b"".join([path, *options]).isascii():
            self._complain("octets beyond ASCII without SMTPUTF8", b" ".join([path, *options]))
        for option in options:
            keyword, _, _ = option.partition(b"=")
            value = option[len(keyword) :]
            known = VALUES.get(keyword)
            if option not in self.raw and (known is None or re.fullmatch(known, value) is None):
                self._complain("no such parameter", option)

    def _on_vrfy(self, found: re.Match[bytes]) -> None:
        self._look_up("VRFY", found)

    def _on_expn(self, found: re.Match[bytes]) -> None:
        self._look_up("EXPN", found)

    def _look_up(self, verb: str, found: re.Match[bytes]) -> None:
        if found["path"].isascii() == bool(found["parameters"]) or (
            found["parameters"] and b"SMTPUTF8" not in self.keywords
        ):
            self._complain(f"SMTPUTF8 where it does not belong, or not where it does, in {verb}", found[0])
        self._answer(verb, b"252 2.0.0 perhaps\r\n")

    def _on_rset(self, found: re.Match[bytes]) -> None:
        if self._answer("RSET", b"250 2.0.0 fine\r\n") // 100 == 2:
            self._open = self._chunk = None

    def _on_quit(self, found: re.Match[bytes]) -> None:
        self._answer("QUIT", b"221 2.0.0 bye\r\n")
        self.closed = True

    def _on_starttls(self, found: re.Match[bytes]) -> None:
        self._answer("STARTTLS", b"454 4.7.0 not now\r\n")

    def _on_xclient(self, found: re.Match[bytes]) -> None:
        if self._answer("XCLIENT", b"220 strict.test\r\n") == 220:
            self.greeted, self._open = False, None

    def _on_auth(self, found: re.Match[bytes]) -> Iterator[None]:
        code = self._answer("AUTH", b"334 \r\n" if b" " not in found[0] else b"235 2.7.0 in\r\n")
        while code == 334:
            while (end := self._buffer.find(b"\n")) < 0:
                yield
            line = bytes(self._buffer[: end + 1])
            del self._buffer[: end + 1]
            self.commands.append(line)
            if line != b"*\r\n" and re.fullmatch(_BASE64 + rb"\r\n", line) is None:
                self._complain("no response", line)
            if self._buffer:
                self._complain("written behind a response before it was answered", self._buffer)
            code = self._answer(
                "AUTH", b"501 5.7.0 cancelled\r\n" if line == b"*\r\n" else b"235 2.7.0 in\r\n"
            )

    # -- content --------------------------------------------------------------------------------

    def _on_data(self, found: re.Match[bytes]) -> Iterator[None]:
        transaction = self._open
        right = (
            b"354 go on\r\n"
            if transaction and transaction.accepted
            else b"503 5.5.1 nobody to send it to\r\n"
        )
        if self._chunk is not None:
            self._complain("DATA behind BDAT", b"")
        if self._answer("DATA", right) // 100 != 3:
            return
        while (end := self._end_of_content()) < 0:
            yield
        content = bytes(self._buffer[:end])
        del self._buffer[: end + 3]
        lines = content.split(b"\r\n")[:-1]
        if any(line.startswith(b".") and not line.startswith(b"..") for line in lines):
            self._complain("a single dot begins a line", content)
        self._take(transaction, b"".join(line.removeprefix(b".") + b"\r\n" for line in lines))

    def _end_of_content(self) -> int:
        if self._buffer.startswith(b".\r\n"):
            return 0
        found = self._buffer.find(b"\r\n.\r\n")
        return found + 2 if found >= 0 else -1

    def _on_bdat(self, found: re.Match[bytes]) -> Iterator[None]:
        size, last, transaction = int(found["size"]), bool(found["last"]), self._open
        if b"CHUNKING" not in self.keywords:
            self._complain("BDAT was not offered", found[0])
        while len(self._buffer) < size:
            yield
        octets = bytes(self._buffer[:size])
        del self._buffer[:size]
        if b"PIPELINING" not in self.keywords and self._buffer:
            self._complain("written behind BDAT before it was answered", self._buffer)
        if transaction is None or not transaction.accepted or self._broken:
            self._broken = True
            self._answer("BDAT", b"503 5.5.1 no envelope\r\n")
            return
        self._chunk = (self._chunk or bytearray()) + octets
        transaction.chunks += 1
        if last:
            self._take(transaction, bytes(self._chunk))
        else:
            self._broken = self._answer("BDAT", b"250 2.0.0 read\r\n") // 100 != 2

    def _take(self, transaction: Transaction | None, content: bytes) -> None:
        """The end of the content is here."""
        self._open = self._chunk = None
        if transaction is not None:
            transaction.content = content
            options = {option.upper() for option in transaction.options}
            if b"BODY=BINARYMIME" not in options:
                self._check_lines(content)
            eight = {b"BODY=8BITMIME", b"BODY=BINARYMIME", b"SMTPUTF8"} & options
            if not content.isascii() and not eight and b"BODY=7BIT" not in self.raw:
                self._complain("8-bit octets, and nobody said so", content)
        accepted = len(transaction.accepted) if transaction is not None else 0
        for _ in range(accepted if self.lmtp else 1):
            code = self._answer("content", b"250 2.0.0 taken\r\n")
            if transaction is not None:
                transaction.verdicts.append(code)

    def _check_lines(self, content: bytes) -> None:
        if re.search(rb"\r(?!\n)|(?<!\r)\n|\0", content):
            self._complain("a bare CR, a bare LF or NUL in the content", content)
        if content and not content.endswith(b"\r\n"):
            self._complain("a last line without an end", content)


def _is_text(octets: bytes) -> bool:
    try:
        octets.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
