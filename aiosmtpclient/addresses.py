"""Addresses: from what a caller writes to what stands in the angle brackets of MAIL and RCPT.

`sender()` and `recipient()` take one address and give an `Address`, or a ValueError that says
what is wrong. `mailboxes()` reads the addresses out of a header's text, by the same grammar.

Rules of this room:

* An address is never rewritten to make it fit: what cannot be sent as it is, is refused. Only
  what is not part of an address is taken off: a display name, angle brackets around it, a
  comment behind it, blanks around it.
* An ASCII domain is never changed, not even its case. A domain with other characters goes out
  as A-labels (RFC 5890), always, so that it never needs SMTPUTF8.
* A local part is the receiving server's business (RFC 5321 section 2.3.11): its quotes stay,
  odd dots stay, and without a domain it goes out alone (`postmaster`).
* An address that is plainly one, as nearly all are, costs one match and no more; the rest of the
  grammar is compiled by `re` when something else turns up.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .domains import a_labels

# Grammar, after RFC 5321 section 4.1.2 and RFC 6531 section 3.3. Controls are refused before.
#   atom    = one or more of: any character but a blank or one of "(),:;<>@[\]
#   spec    = (atom / quoted) ["@" (atom / literal)]
#   address = [phrase] "<" spec ">" *comment / spec *comment
_ATOM = r'[^\s"(),:;<>@\[\\\]]'
_QUOTED = r'"(?:[^"\\]|\\.)*+"'
_COMMENT = r"\((?:[^()\\]|\\.)*+\)"
_LITERAL = r"\[[!-Z^-~]++\]"
_SPEC = rf"({_ATOM}++|{_QUOTED})(?:@({_ATOM}++|{_LITERAL}))?+"
_TAIL = rf" *+(?:{_COMMENT} *+)*+"
_PHRASE = rf"(?:[^\"(),:;<>\\]|{_QUOTED}|{_COMMENT})*+"

_PLAIN_ATOM = r"[a-zA-Z0-9!#$%&'*+/=?^_`{|}~.-]++"
_PLAIN = re.compile(rf"{_PLAIN_ATOM}@{_PLAIN_ATOM}")
_all_plain = re.compile(rf"{_PLAIN_ATOM}@{_PLAIN_ATOM}(?:\n{_PLAIN_ATOM}@{_PLAIN_ATOM})*+").fullmatch
_MAILBOX = rf" *+{_SPEC}{_TAIL}|{_PHRASE}<{_SPEC}>{_TAIL}"

# C0, DEL and C1; the line and paragraph separators; what surrogateescape makes of octets.
# None of them is printable, so what is printable need not be searched.
_FORBIDDEN = "[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"
_CONTROL = "[\x00-\x1f\x7f-\x9f\u2028\u2029]"
_SPELLED = {"\r": "CR", "\n": "LF", "\0": "NUL", "\t": "a tab"}


class Address(NamedTuple):
    """One envelope address.

    Attributes:
        text: exactly the string the caller gave; results are keyed by it.
        path: what stands between the angle brackets on the wire, a domain as A-labels; empty for
            the null sender.
        needs_smtputf8: the local part has non-ASCII characters (RFC 6531); a domain never needs it.
    """

    text: str
    path: bytes
    needs_smtputf8: bool = False


def sender(address: str) -> Address:
    """Read the address of a reverse-path; `""` and `"<>"` are the null sender (RFC 5321 section 4.5.5).

    Raises:
        ValueError: it is not one address, or cannot be sent without changing it.
        TypeError: it is not a string.
    """
    if type(address) is str and _PLAIN.fullmatch(address):
        return Address(address, address.encode())
    return _parse(address)


def recipient(address: str) -> Address:
    """Read the address of a forward-path.

    Raises:
        ValueError: it is empty, not one address, or cannot be sent without changing it.
        TypeError: it is not a string.
    """
    if type(address) is str and _PLAIN.fullmatch(address):
        return Address(address, address.encode())
    parsed = _parse(address)
    if not parsed.path:
        raise ValueError(f"{address!r} is no recipient: only a sender may be empty")
    return parsed


def plain_text(texts: Sequence[str]) -> str | None:
    """Addresses with LF between them, if none is special in any way, as nearly none is; else None."""
    for text in texts:
        if type(text) is not str:
            return None
    # Many are read in one go as fast as a few one by one.
    joined = "\n".join(texts)
    if _all_plain(joined) is None or joined.count("\n") != len(texts) - 1:
        return None
    return joined


class Recipients:
    """The forward-paths of one envelope, in the order asked for, duplicates included.

    Attributes:
        texts: exactly the strings the caller gave.
        paths: what stands between the angle brackets on the wire.
        international: the first of them that needs SMTPUTF8 (RFC 6531), empty if none does.
        special: some of the strings are more than strings, and may have something to say.
    """

    __slots__ = ("international", "paths", "special", "texts")

    def __init__(
        self,
        texts: Sequence[str],
        paths: Sequence[bytes],
        international: str = "",
        *,
        special: bool = False,
    ) -> None:
        self.texts = texts
        self.paths = paths
        self.international = international
        self.special = special

    @classmethod
    def of(cls, texts: Sequence[str]) -> Recipients:
        """Read them, each as `recipient` would.

        Raises:
            ValueError: one of them is empty, not one address, or cannot be sent without changing it.
            TypeError: one of them is not a string.
        """
        if len(texts) == 1 and type(texts[0]) is str and _PLAIN.fullmatch(texts[0]):
            return cls(texts, [texts[0].encode()])
        if (joined := plain_text(texts)) is not None:
            return cls(texts, joined.encode().split(b"\n"))
        addresses = [recipient(text) for text in texts]
        international = next((address.text for address in addresses if address.needs_smtputf8), "")
        special = any(type(text) is not str for text in texts)
        return cls(texts, [address.path for address in addresses], international, special=special)

    def some(self, positions: Sequence[int]) -> Recipients:
        """Those at these positions."""
        texts = [self.texts[position] for position in positions]
        paths = [self.paths[position] for position in positions]
        return Recipients(texts, paths, self.international, special=self.special)

    def __len__(self) -> int:
        return len(self.texts)


def quoteaddr(addrstring: str) -> str:
    """Return the address in angle brackets, without a display name, as `smtplib.quoteaddr` does.

    Raises:
        ValueError: it is not one address, or cannot be sent without changing it.
    """
    return f"<{sender(addrstring).path.decode()}>"


def _parse(address: object) -> Address:
    if not isinstance(address, str):
        raise TypeError(f"an address is a str, not {type(address).__name__}")
    if not address.isprintable() and (bad := re.search(_FORBIDDEN, address)) is not None:
        raise ValueError(f"{_short(address)} is no address: it contains {_spell(bad[0])}")
    if address.strip(" ") in ("", "<>"):
        return Address(address, b"")
    if (found := re.fullmatch(_MAILBOX, address)) is None:
        raise ValueError(f"{_short(address)} is no address: {_complaint(address)}")
    local, domain = found[1] or found[3], found[2] or found[4]
    path = local if domain is None else f"{local}@{domain_to_ascii(domain)}"
    return Address(address, path.encode(), not local.isascii())


def _short(text: str) -> str:
    return ascii(text) if len(text) <= 100 else f"{text[:100]!a}…"


def _spell(character: str) -> str:
    if "\ud800" <= character <= "\udfff":
        return "an octet that could not be decoded"
    return _SPELLED.get(character, f"the control character U+{ord(character):04X}")


# Unclosed ones are taken whole, so that no character is looked at twice.
_ENCLOSED = r'"(?:[^"\\]|\\.)*+("?)|\((?:[^()\\]|\\.)*+(\)?)'
_COMPLAINTS = (
    (r'"', "a quote is not closed"),
    (r"[()]", "a parenthesis outside quotes is no comment behind the address"),
    (r"(?:^|<)\s*@[^:]*:", "it has a source route"),
    (r"[,;]", "one address is wanted, this looks like a list"),
    (r"<[^<>]*\s[^<>]*>", "it has a space outside quotes"),
    (r"<>", "there is no address in the angle brackets"),
    (r"(?:^|<)@", "nothing stands before the @"),
    (r"@(?:$|>)", "nothing stands behind the @"),
    (r"[<>]", "it has an angle bracket outside quotes"),
    (r"\s", "it has a space outside quotes"),
    (r"@.*@", "it has more than one @"),
)


def _complaint(address: str) -> str:
    """Say why the grammar did not match: the first reason that holds outside quotes and comments."""
    rest = re.sub(_ENCLOSED, lambda found: "x" if found[1] or found[2] else found[0][0], address.strip())
    for pattern, words in _COMPLAINTS:
        if re.search(pattern, rest):
            return words
    return "it has a character that must be quoted, or a broken address literal"


@functools.lru_cache(maxsize=1024)
def domain_to_ascii(domain: str) -> str:
    """Return the domain as A-labels (RFC 5891 section 4); an ASCII domain or a literal as it is.

    Raises:
        ValueError: there is no such form.
    """
    if domain.isascii():
        return domain
    try:
        # A name has at most 255 octets, and long input is slow to convert.
        encoded = a_labels(domain) if len(domain) <= 255 else ""
    except UnicodeError as error:
        raise ValueError(f"the domain {_short(domain)} has no ASCII form: {error}") from error
    # Compatibility forms ("＠", "＜") become the ASCII characters that were refused above.
    if not re.fullmatch(_PLAIN_ATOM, encoded):
        raise ValueError(f"the domain {_short(domain)} has no ASCII form")
    return encoded


# --- Addresses within the text of a header (RFC 5322 section 3.4) ---

# Between two of , ; : stands a mailbox, or a group's name if the colon follows.
_LIST_PIECE = rf'((?:[^",:;(<\[]|{_QUOTED}|{_COMMENT}|<(?:[^"<>]|{_QUOTED})*+>|\[[^\[\]]*+\])++)|([,:;])'
_NOTHING = rf"(?: |{_COMMENT})*+"
_FOLD = r"\r?\n(?=[ \t])"
# As above: unclosed quotes and comments are taken whole.
_HEADER_SPEC = rf'(?s)({_ATOM}++|"(?:[^"\\]|\\.)*+"?)(?:@({_ATOM}++))?+|\((?:[^()\\]|\\.)*+\)?'


def mailboxes(text: str) -> list[str]:
    """Return the addresses in the text of an address header, without names; groups are opened.

    Raises:
        ValueError: something in it is not an address.
    """
    if _PLAIN.fullmatch(text):
        return [text]
    text = re.sub(_FOLD, "", text).replace("\t", " ")
    if not text.isprintable() and (bad := re.search(_CONTROL, text)) is not None:
        raise ValueError(f"{_short(text)} is no list of addresses: it contains {_spell(bad[0])}")
    return [_bare(piece) for piece in _pieces(text)]


def _bare(mailbox: str) -> str:
    found = re.fullmatch(_MAILBOX, mailbox)
    # A name may have octets that nobody could decode, an address may not.
    return recipient("@".join(filter(None, found.groups())) if found else mailbox).text


def _pieces(text: str) -> Iterator[str]:
    position, held, grammar = 0, "", re.compile(_LIST_PIECE)
    while position < len(text):
        match = grammar.match(text, position)
        if match is None:
            raise ValueError(
                f"{_short(text)} is no list of addresses: {_short(text[position:])} is not closed"
            )
        held, separator, position = match[1] or held, match[2], match.end()
        if separator == ":" and "@" in held:
            raise ValueError(f"{_short(held)} is no name of a group")
        if separator:
            if separator != ":" and not re.fullmatch(_NOTHING, held):
                yield held
            held = ""
    if not re.fullmatch(_NOTHING, held):
        yield held


def header_needs_smtputf8(text: str) -> bool:
    """True if an address in the header's text has a non-ASCII local part."""
    specs = () if text.isascii() else re.finditer(_HEADER_SPEC, text)
    return any(spec[2] is not None and not spec[1].isascii() for spec in specs)


def header_with_ascii_domains(text: str) -> str:
    """Return the header's text with A-labels for each non-ASCII domain behind an ASCII local part.

    Raises:
        ValueError: a domain has no such form.
    """
    return text if text.isascii() else re.sub(_HEADER_SPEC, _with_ascii_domain, text)


def _with_ascii_domain(spec: re.Match[str]) -> str:
    local, domain = spec.groups()
    if domain is None or domain.isascii() or not local.isascii():
        return spec[0]
    return f"{local}@{domain_to_ascii(domain)}"
