"""Domains: an international name as A-labels, the one form that DNS and the wire know (RFC 5890).

Rules of this room:

* The `idna` package decides (UTS 46 mapping, not transitional), where it can be imported. Where
  not, the standard library's codec does, which knows the rules of 2003; a name that those would
  turn into another one is refused then, for it may be somebody else's.
* Every name goes this way: addresses, the server's own name, what a certificate must bear, EHLO.
"""

from __future__ import annotations

# Letters that the 2003 rules turned into others, which makes it another domain (RFC 5894 section 7.2).
_CHANGED_SINCE_2003 = frozenset("ßẞς\u200c\u200d")


def a_labels(domain: str) -> str:
    """Return an international domain as A-labels. What comes out is still to be checked.

    A compatibility character may become a blank or an "@".

    Raises:
        ValueError: there is no such form, or nobody here knows it.
    """
    try:
        import idna
    except ImportError:
        if not _CHANGED_SINCE_2003.isdisjoint(domain):
            raise ValueError(f"the domain {domain[:100]!a} needs the package 'idna'") from None
        return domain.encode("idna").decode("ascii")
    return idna.encode(domain, uts46=True).decode("ascii")
