"""SASL: how we prove who we are, challenge in, response out (RFC 4422, RFC 4954).

What a mechanism is stands in `exchange`. The simple ones are here, the others in rooms of their
own: `scram`, `bearer` (OAuth 2.0), `negotiation` (NTLM, GSSAPI). This room knows all of them, how
strong they are, and which of them are worth trying. Base64, line lengths and the verdict are the
caller's business.

====================  ==============================================================
proof                 mechanisms, the strongest first
====================  ==============================================================
a ticket              GSSAPI
a password, unsent    SCRAM-SHA-512-PLUS, -256-PLUS, -1-PLUS (bound to the TLS below),
                      SCRAM-SHA-512, -256, -1, CRAM-MD5, NTLM
a password, sent      PLAIN, LOGIN
a token, sent         OAUTHBEARER, XOAUTH2
the TLS below         EXTERNAL
nothing               ANONYMOUS
====================  ==============================================================

Rules of this room:

* A secret is revealed inside the expression that uses it: no local variable of ours ever holds
  a password or a response, so that a traceback with locals shows none.
* Text goes out as UTF-8, exactly as given; SCRAM prepares it first (SASLprep).
* Where the protocol gives a challenge no meaning (the prompts of LOGIN, anything sent to
  PLAIN), its text is ignored and position decides: servers write what they like there.
* A wrong password is not tried more often than is of use, for accounts get locked: by itself only
  the strongest SCRAM with a binding and the strongest without are tried, then what is weaker; and
  that with a binding only where every server understands the kind of binding that we have.
* What needs a library that is not installed is passed over, unless it was asked for by name.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from . import bearer, negotiation, scram
from .exchange import NOBODY, Channel, Complaint, Mechanism, MechanismFactory, Peer, Unproven
from .secret import Credentials, Secret, traces_of

__all__ = [
    "MECHANISMS",
    "MUTUAL",
    "PROMPT_ONLY",
    "WITH_TOKEN",
    "Channel",
    "Complaint",
    "Credentials",
    "Mechanism",
    "MechanismFactory",
    "Peer",
    "Unproven",
    "advice",
    "choose",
    "secrets_of",
]


def plain(credentials: Credentials, peer: Peer = NOBODY) -> Mechanism:
    """PLAIN (RFC 4616): everything in one response."""
    yield _plain_message(credentials)
    return None


def _plain_message(credentials: Credentials) -> bytes:
    return "\0".join((credentials.authorization_id, credentials.user, credentials.password.reveal())).encode()


def login(credentials: Credentials, peer: Peer = NOBODY) -> Mechanism:
    """LOGIN (never standardised): the user first, then the password, whatever the prompts say."""
    _refuse_authorization_id("LOGIN", credentials)
    yield credentials.user.encode()
    yield credentials.password.reveal().encode()
    return None


def cram_md5(credentials: Credentials, peer: Peer = NOBODY) -> Mechanism:
    """CRAM-MD5 (RFC 2195): the server's challenge, signed with the password."""
    _refuse_authorization_id("CRAM-MD5", credentials)
    challenge = yield None
    yield _signed(credentials, challenge or b"")
    return None


def _signed(credentials: Credentials, challenge: bytes) -> bytes:
    try:
        return (
            f"{credentials.user} "
            f"{hmac.new(credentials.password.reveal().encode(), challenge, 'md5').hexdigest()}"
        ).encode()
    except ValueError:
        pass  # hmac's own frames hold the key: its error must not become the context of ours
    raise ValueError("CRAM-MD5 needs MD5, which this Python refuses (FIPS mode)")


def _refuse_authorization_id(mechanism: str, credentials: Credentials) -> None:
    if credentials.authorization_id:
        raise ValueError(f"{mechanism} cannot carry an authorization identity; PLAIN can")


def external(credentials: Credentials, peer: Peer = NOBODY) -> Mechanism:
    """EXTERNAL (RFC 4422 appendix A): who we are is known from below, by our certificate say."""
    yield (credentials.authorization_id or credentials.user).encode()
    return None


def anonymous(credentials: Credentials, peer: Peer = NOBODY) -> Mechanism:
    """ANONYMOUS (RFC 4505): nobody in particular; the user name is a trace for the server's log."""
    _refuse_authorization_id("ANONYMOUS", credentials)
    yield credentials.user.encode()
    return None


MECHANISMS: Mapping[str, MechanismFactory] = MappingProxyType(
    {
        "GSSAPI": negotiation.gssapi,
        **{name: scram.factory(name) for name in scram.NAMES},
        "CRAM-MD5": cram_md5,
        "NTLM": negotiation.ntlm,
        "PLAIN": plain,
        "LOGIN": login,
        "OAUTHBEARER": bearer.oauthbearer,
        "XOAUTH2": bearer.xoauth2,
        "EXTERNAL": external,
        "ANONYMOUS": anonymous,
    }
)
"""What we speak, in the order in which we would try: a proof first, then the secret itself."""

PROMPT_ONLY = frozenset({"PLAIN", "LOGIN"})
"""Mechanisms whose challenges carry nothing: their text, even bad base64, is to be ignored."""
MUTUAL = frozenset({*scram.NAMES, "GSSAPI"})
"""Mechanisms in which the server proves itself too, and is not believed without."""
SLOW = frozenset({*scram.NAMES, "NTLM", "GSSAPI"})
"""Mechanisms that compute for long, or ask the network: not on the event loop."""
WITH_TOKEN = ("OAUTHBEARER", "XOAUTH2")
"""Mechanisms whose secret is an access token."""
_WITH_PASSWORD = (*scram.NAMES, "CRAM-MD5", "PLAIN", "LOGIN")
"""Mechanisms that are tried with a password without being named. NTLM is too old for that."""
_WITHOUT_PASSWORD = frozenset({"GSSAPI", "EXTERNAL", "ANONYMOUS"})
_WITH_AUTHORIZATION_ID = ("GSSAPI", "PLAIN", "OAUTHBEARER", "EXTERNAL")
_NO_AUTHORIZATION_ID = (
    f"cannot carry an authorization identity (authorization_id=): {', '.join(_WITH_AUTHORIZATION_ID)} can"
)


def available(name: str) -> bool:
    """True if we speak the mechanism and can: its library is there, and this Python lets us.

    FIPS mode takes MD5 away.
    """
    if name in scram.NAMES:
        return scram.available()
    if name == "NTLM":
        return negotiation.available()
    if name == "GSSAPI":
        return negotiation.kerberos_available()
    if name != "CRAM-MD5":
        return name in MECHANISMS
    try:
        hmac.new(b"key", b"", "md5")
    except ValueError:
        return False
    return True


_INSTALL = (
    (frozenset(scram.NAMES), 'pip install "aiosmtpclient[scram]"'),
    (frozenset({"NTLM"}), 'pip install "aiosmtpclient[spnego]"'),
    (
        frozenset({"GSSAPI"}),
        'pip install "aiosmtpclient[spnego]", and "pyspnego[kerberos]" where that is not Windows',
    ),
)


def _how_to_install(name: str) -> str:
    return next((how for names, how in _INSTALL if name in names), "")


def choose(
    offered: Iterable[str],
    wanted: Sequence[str] | None = None,
    *,
    credentials: Credentials | None = None,
    token: bool = False,
    channel: Channel | None = None,
) -> list[str]:
    """Choose which mechanisms to try, and in which order.

    Args:
        offered: the server's, in upper case (`Extensions.auth_mechanisms`).
        wanted: the only ones to consider, in the caller's order and any case; None for those that
            need what there is, a token or else a password, strongest first.
        credentials: who we are; mechanisms that cannot carry it are left out.
        token: there is a token.
        channel: the TLS below, if there is any.

    Returns:
        Names out of `MECHANISMS`; none if nothing fits.

    Raises:
        ValueError: `wanted` names a mechanism that we do not speak, or whose library is missing.
    """
    there = set(offered)
    names = [name for name in (_by_itself(token) if wanted is None else spoken(wanted)) if name in there]
    if wanted is not None:
        for name in names:
            if not available(name) and _how_to_install(name):
                raise ValueError(f"{name} needs a library that is not installed: {_how_to_install(name)}")
    fitting = [name for name in names if available(name) and _fits(name, credentials, token, channel)]
    return fitting if wanted is not None else list(_worth_trying(fitting, credentials, token, channel))


def _by_itself(token: bool) -> Iterable[str]:
    return WITH_TOKEN if token else _WITH_PASSWORD


def _fits(name: str, credentials: Credentials | None, token: bool, channel: Channel | None) -> bool:
    if name in WITH_TOKEN and not token:
        return False
    if name.endswith("-PLUS") and scram.binding(channel) is None:
        return False
    if credentials is None:
        return True
    if credentials.authorization_id and name not in _WITH_AUTHORIZATION_ID:
        return False
    if name == "XOAUTH2":
        return bool(credentials.user)
    # With a token there may be no password, and an empty one would count as a wrong one.
    alone = name in WITH_TOKEN or name in _WITHOUT_PASSWORD
    return alone or bool(credentials.password) or not token


def _worth_trying(
    names: list[str], credentials: Credentials | None, token: bool, channel: Channel | None
) -> Iterator[str]:
    if token:
        yield from names[:1]  # a server that refuses a token in one wrapping refuses it in any
        return
    proofs = [name for name in names if name in scram.NAMES]
    if proofs and (credentials is None or scram.fits(credentials)):
        bound = [name for name in proofs if name.endswith("-PLUS")][:1]
        unbound = [name for name in proofs if not name.endswith("-PLUS")][:1]
        # In TLS 1.3 a server may well want tls-exporter, which we lack: a failure to be had each time.
        yield from [*bound, *unbound] if scram.is_common(channel) else unbound or bound
    yield from (name for name in names if name not in scram.NAMES)


def spoken(wanted: Sequence[str]) -> list[str]:
    """The names in upper case, each once.

    Raises:
        ValueError: one of them we do not speak.
    """
    if isinstance(wanted, str):
        raise ValueError(f"mechanisms: pass a list of names, not {wanted!r}")
    names = list(dict.fromkeys(name.upper() for name in wanted))
    if unknown := [name for name in names if name not in MECHANISMS]:
        raise ValueError(f"unknown mechanism {unknown[0]!r}; we speak {', '.join(MECHANISMS)}")
    return names


def need_no_password(wanted: Sequence[str] | None) -> bool:
    """True if one of these works without a password and without a token."""
    return wanted is not None and not _WITHOUT_PASSWORD.isdisjoint(spoken(wanted))


def advice(
    offered: Iterable[str],
    wanted: Sequence[str] | None,
    *,
    credentials: Credentials | None = None,
    token: bool,
    channel: Channel | None,
) -> str:
    """What could be done where `choose` finds nothing; empty if nothing comes to mind."""
    there = list(offered)
    if credentials is not None and credentials.authorization_id:
        himself = Credentials(credentials.user, credentials.password)
        if silent := choose(there, wanted, credentials=himself, token=token, channel=channel):
            return f"; {silent[0]} {_NO_AUTHORIZATION_ID}"
    if wanted is not None:
        plus = [name for name in spoken(wanted) if name in there and name.endswith("-PLUS")]
        unbound = bool(plus) and scram.binding(channel) is None
        return "; the -PLUS mechanisms need TLS, and a certificate to bind to" if unbound else ""
    for name in there:
        if name in _by_itself(token) and not available(name) and _how_to_install(name):
            return f"; for {name}: {_how_to_install(name)}"
    if token and any(name in _WITH_PASSWORD for name in there):
        return "; none of these takes an access token"
    if not token and any(name in WITH_TOKEN for name in there):
        return "; it takes access tokens: pass token="
    named = [name for name in there if name in MECHANISMS and name not in (*WITH_TOKEN, *_WITH_PASSWORD)]
    return f"; {named[0]} is used only if it is named, in mechanisms=" if named else ""


def secrets_of(credentials: Credentials) -> tuple[bytes, ...]:
    """Return what must be masked wherever it shows up: the secret as it is, and as it travels.

    Returns:
        The password's or token's `traces_of`, and those of PLAIN's response; nothing for an empty
        password. Do not keep the tuple in a local variable of a function that may raise.
    """
    if not credentials.password:
        return ()
    return (*traces_of(credentials.password), *traces_of(Secret(_plain_message(credentials).decode())))
