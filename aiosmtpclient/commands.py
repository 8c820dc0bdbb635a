"""Commands: each as the octets that go out, CRLF included (RFC 5321 section 4.1.1).

This is the only place where text from outside meets the wire, and so the only injection gate:
one CR or LF let through here is a command of somebody else's.

Rules of this room:

* Every argument is checked before anything is built. What does not fit is a `ValueError`;
  nothing is ever rewritten to make it fit.
* No control character passes: not NUL, CR or LF, not a tab, not DEL, nor C1 in UTF-8.
* Octets beyond ASCII pass only where the caller says that SMTPUTF8 was agreed on (RFC 6531).
* Nothing passes because a caller has checked it: each octet is looked at here, every time.
* What may be secret (raw commands, responses) is not repeated in an error's text.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence

from .domains import a_labels
from .replies import printable

DATA = b"DATA\r\n"
RSET = b"RSET\r\n"
QUIT = b"QUIT\r\n"
STARTTLS = b"STARTTLS\r\n"
END_OF_CONTENT = b".\r\n"
AUTH_CANCEL = b"*\r\n"
"""Answers a challenge to give the exchange up (RFC 4954 section 4)."""

MAX_COMMAND = 512
"""Octets a command line may have, CRLF included (RFC 5321 section 4.5.3.1.4)."""

# What may stand between "<" and ">": this gate keeps a path from ending early, no more; whether
# it is an address was decided by `addresses`.
#   path   = *( plain / "\" ( plain / "\" ) / quoted )
#   quoted = DQUOTE *( qplain / "\" qchar ) DQUOTE
# plain is visible and none of < > " \; a backslash takes its character with it, and a quote
# behind one is refused outside quotes: readers disagree whether it opens a string.
_PLAIN = bytes(octet for octet in range(0x21, 0x7F) if octet not in b'<>"\\')
_PLAIN_LINES = _PLAIN + b"\n"
_PATH = rb'(?>[!#-;=?-\[\]-~]++|\\[!#-;=?-~]|"(?>[ !#-\[\]-~]++|\\[ -~])*+")*+'

# RFC 5321 section 4.1.2: esmtp-keyword ["=" esmtp-value]; RFC 6531 section 3.3 widens the value.
_OPTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*+(?:=[!-<>-~]++)?")

_TEXT = r"[ -~]*+"
_NAME = rb"[!-~]+"
_DOMAIN = rb"[A-Za-z0-9._-]+"
# RFC 4422 section 3.1: sasl-mech = 1*20mech-char, upper case; any case is taken here.
_MECHANISM = r"[A-Za-z0-9_-]{1,20}"

# The same for UTF-8, octet by octet; what is no text in it, C1 and surrogates, is looked for besides.
_PATH_UTF8 = (
    rb"(?>[!#-;=?-\[\]-~\x80-\xff]++|\\[!#-;=?-~\x80-\xff]"
    rb'|"(?>[ !#-\[\]-~\x80-\xff]++|\\[ -~\x80-\xff])*+")*+'
)
_OPTION_UTF8 = rb"[A-Za-z0-9][A-Za-z0-9-]*+(?:=[!-<>-~\x80-\xff]++)?"
_TEXT_UTF8 = rb"[ -~\x80-\xff]*+"
_NO_TEXT = rb"\xc2[\x80-\x9f]|\xed[\xa0-\xbf]"


def _fits_utf8(pattern: bytes, octets: bytes) -> bool:
    return re.fullmatch(pattern, octets) is not None and re.search(_NO_TEXT, octets) is None


def hello(verb: str, name: str) -> bytes:
    """Introduce ourselves (RFC 5321 section 4.1.1.1; LHLO: RFC 2033 section 4.1).

    Args:
        verb: "EHLO", "HELO" or "LHLO", in any case.
        name: our domain, or an address literal in brackets; an international domain becomes A-labels.

    Raises:
        ValueError: another verb, an empty name, or one with a space, a control or no A-label form.
    """
    if verb.upper() not in {"EHLO", "HELO", "LHLO"}:
        raise ValueError(f"EHLO, HELO or LHLO, not {verb!r}")
    if name.isascii():
        encoded, pattern = name.encode("ascii"), _NAME
    else:
        # Checked after the conversion: a compatibility character may become a space.
        encoded, pattern = _a_labels(name), _DOMAIN
    if re.fullmatch(pattern, encoded) is None:
        raise ValueError(f"not a name to say hello with: {name!r}")
    return verb.upper().encode("ascii") + b" " + encoded + b"\r\n"


def _a_labels(name: str) -> bytes:
    try:
        return a_labels(name).encode("ascii")
    except UnicodeError as error:
        raise ValueError(f"not an international domain name: {name!r}") from error


def mail(path: bytes, options: Iterable[str] = (), *, utf8: bool = False) -> bytes:
    """Open a transaction (RFC 5321 section 4.1.1.2).

    Args:
        path: the sender, without angle brackets; empty for the null reverse-path.
        options: parameters such as "SIZE=1000", each one `esmtp-param`.
        utf8: SMTPUTF8 is in force: path and options may hold UTF-8.

    Raises:
        ValueError: the path could end early or break the line, or an option is not one.
    """
    if path.translate(None, _PLAIN):
        _check_odd(path, utf8)
    return b"MAIL FROM:<" + path + (_with_options(options, utf8) if options else b">\r\n")


def rcpt(path: bytes, options: Iterable[str] = (), *, utf8: bool = False) -> bytes:
    """Name one recipient (RFC 5321 section 4.1.1.3); arguments as for `mail`, but no empty path."""
    if path.translate(None, _PLAIN):
        _check_odd(path, utf8)
    if not path:
        raise ValueError("an empty recipient")
    return b"RCPT TO:<" + path + (_with_options(options, utf8) if options else b">\r\n")


def rcpts(paths: Sequence[bytes], options: Iterable[str] = (), *, utf8: bool = False) -> bytes:
    """Name many recipients, a line each; arguments as for `rcpt`."""
    options = options if isinstance(options, _NO_LIST) else tuple(options)
    if paths and all(paths) and not b"".join(paths).translate(None, _PLAIN):
        end = _with_options(options, utf8) if options else b">\r\n"
        return b"RCPT TO:<" + (end + b"RCPT TO:<").join(paths) + end
    return b"".join([rcpt(path, options, utf8=utf8) for path in paths])


def envelope(paths: str, recipients: int, size: int | None, *, eightbit: bool) -> bytes | None:
    """MAIL and every RCPT in one go, where that is simple: what `mail` and `rcpts` would say of it.

    Args:
        paths: the sender's, which may be empty (the null reverse-path), and the recipients', with LF
            between them.
        recipients: how many of those there are.
        size: octets to be declared, if any (RFC 1870).
        eightbit: declare 8BITMIME (RFC 6152).

    Returns:
        The octets; None if a path is not plain, so that it has to be looked at more closely.
    """
    if not paths.isascii() or paths.encode().translate(None, _PLAIN_LINES):
        return None
    sender, _, to = paths.partition("\n")
    if recipients != 1:
        each = to.split("\n")
        if len(each) != recipients or "" in each:
            return None
        to = ">\r\nRCPT TO:<".join(each)
    elif not to or "\n" in to:
        return None
    end = ">" if size is None else f"> SIZE={size}"
    if eightbit:
        end += " BODY=8BITMIME"
    return f"MAIL FROM:<{sender}{end}\r\nRCPT TO:<{to}>\r\n".encode()


def _check_odd(path: bytes, utf8: bool) -> None:
    """Pass a path that is not plain but right all the same; refuse any other."""
    if re.fullmatch(_PATH, path) is not None:
        return
    if utf8:
        try:
            path.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"an address that is not UTF-8: {_shown(path)}") from error
        if _fits_utf8(_PATH_UTF8, path):
            return
    elif not path.isascii():
        raise ValueError(f"an address beyond ASCII, without SMTPUTF8: {_shown(path)}")
    raise ValueError(
        "an address with a control character, or with a space, an angle bracket or a quote "
        f"where none may be: {_shown(path)}"
    )


def _shown(path: bytes) -> str:
    return repr(printable(path[:80]))


_NO_LIST = (str, bytes)


def _with_options(options: Iterable[str], utf8: bool) -> bytes:
    """What follows a path when there are options."""
    if isinstance(options, _NO_LIST):
        raise ValueError(f"options: pass a list of them, not {options!r}")
    line = ">"
    for one in options:
        line += " " + option(one, utf8=utf8)
    return (line + "\r\n").encode()


def option(text: str, *, utf8: bool = False) -> str:
    """Check one parameter of MAIL or RCPT (`esmtp-param`, RFC 5321 section 4.1.2).

    Args:
        text: the keyword, and perhaps "=" and its value.
        utf8: the value may hold characters beyond ASCII (RFC 6531 section 3.3).

    Returns:
        The same text.

    Raises:
        ValueError: it is not exactly one parameter.
    """
    right = isinstance(text, str) and (
        _OPTION.fullmatch(text) or (utf8 and _fits_utf8(_OPTION_UTF8, _octets(text)))
    )
    if not right:
        raise ValueError(f"not one ESMTP parameter (keyword or keyword=value): {text!r}")
    return text


def _octets(text: str) -> bytes:
    # A surrogate passes here: `_NO_TEXT` finds it, and the error of a codec would show the text.
    return text.encode("utf-8", "surrogatepass")


def bdat(size: int, last: bool) -> bytes:
    """Announce a chunk of `size` octets (RFC 3030 section 2)."""
    if size < 0:
        raise ValueError(f"a chunk of {size} octets")
    return b"BDAT %d%b\r\n" % (size, b" LAST" if last else b"")


def noop(argument: str = "") -> bytes:
    """Do nothing, with or without an argument (RFC 5321 section 4.1.1.9)."""
    return raw("NOOP", argument)


def help(topic: str = "") -> bytes:
    """Ask for help, perhaps on a topic (RFC 5321 section 4.1.1.8)."""
    return raw("HELP", topic)


def vrfy(path: bytes, *, utf8: bool = False) -> bytes:
    """Ask whether a mailbox exists (RFC 5321 section 4.1.1.6).

    Args:
        path: a mailbox or a user's name, without angle brackets.
        utf8: the server offers SMTPUTF8; the keyword is added if the path needs it (RFC 6531
            section 3.7.4.2).

    Raises:
        ValueError: an empty path, or one that `mail` would refuse too.
    """
    return b"VRFY " + _looked_up(path, utf8)


def expn(path: bytes, *, utf8: bool = False) -> bytes:
    """Ask who is on a mailing list (RFC 5321 section 4.1.1.7); arguments as for `vrfy`."""
    return b"EXPN " + _looked_up(path, utf8)


def etrn(node: str) -> bytes:
    """Ask the server to send what waits for a node (RFC 1985 section 5).

    Args:
        node: a domain; "@" before it for those below it too, "#" for the name of a queue.

    Raises:
        ValueError: an empty node, or one with a blank or a control in it.
    """
    kind, name = (node[0], node[1:]) if node[:1] in ("@", "#") else ("", node)
    encoded = name.encode("ascii") if name.isascii() else _a_labels(name)
    if re.fullmatch(_NAME, encoded) is None:
        raise ValueError(f"not a node to send the mail of: {node!r}")
    return b"ETRN " + kind.encode("ascii") + encoded + b"\r\n"


def _looked_up(path: bytes, utf8: bool) -> bytes:
    if not path:
        raise ValueError("an empty name to look up")
    if path.translate(None, _PLAIN):
        _check_odd(path, utf8)
    return path + (b"\r\n" if path.isascii() else b" SMTPUTF8\r\n")


def auth(mechanism: str, initial_response: bytes | None = None) -> bytes:
    """Begin to authenticate (RFC 4954 section 4).

    Args:
        mechanism: the SASL mechanism's name, in any case.
        initial_response: the first response, if it goes with the command; the line may then be
            too long to be sent (ask `fits`).

    Raises:
        ValueError: the mechanism's name is none (RFC 4422 section 3.1).
    """
    if re.fullmatch(_MECHANISM, mechanism) is None:
        initial_response = None  # not even a traceback with locals shows it
        raise ValueError(f"not the name of a SASL mechanism: {mechanism!r}")
    verb = b"AUTH " + mechanism.upper().encode("ascii")
    if initial_response is None:
        return verb + b"\r\n"
    return verb + b" " + (base64.b64encode(initial_response) or b"=") + b"\r\n"


def auth_response(response: bytes) -> bytes:
    """Answer a challenge (RFC 4954 section 4); an empty response is an empty line."""
    return base64.b64encode(response) + b"\r\n"


def raw(command: str, arguments: str = "", *, utf8: bool = False) -> bytes:
    """Build any command from text, as smtplib's `putcmd` does.

    Args:
        command: the verb, or the whole line.
        arguments: what follows it, after a space.
        utf8: characters beyond ASCII may pass, as UTF-8.

    Raises:
        ValueError: a control character, or one beyond ASCII without `utf8`.
    """
    wrong = "" if _is_text(command, utf8) else "command"
    wrong = wrong or ("" if _is_text(arguments, utf8) else "arguments")
    if wrong:
        # It may be a response with a password inside: neither the error nor a local variable shows it.
        command = arguments = ""
        raise ValueError(f"{wrong}: a control character, or one that needs SMTPUTF8")
    return (f"{command} {arguments}\r\n" if arguments else f"{command}\r\n").encode()


def _is_text(text: str, utf8: bool) -> bool:
    return bool(re.fullmatch(_TEXT, text)) or (utf8 and _fits_utf8(_TEXT_UTF8, _octets(text)))


def fits(command: bytes) -> bool:
    """True if the line is no longer than any server must take (RFC 5321 section 4.5.3.1.4)."""
    return len(command) <= MAX_COMMAND
