"""Certificates whose signature names a hash of our choice, to be bound to (RFC 5929 section 4.1).

No library signs with MD5 any more, so the name of the algorithm is exchanged in a finished
certificate. Its signature is wrong then, which nobody asks for here.
"""

from __future__ import annotations

import datetime
import functools

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

# RFC 8017 appendix A.2.4: 1.2.840.113549.1.1 and this.
_PKCS_1 = bytes.fromhex("06092a864886f70d0101")
_NUMBERS = {"md5": 4, "sha1": 5, "sha256": 11, "sha384": 12, "sha512": 13}


@functools.cache
def _with_sha256() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mail.test")])
    start = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, start, start.replace(year=2034))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def certificate_signed_with(hash_name: str) -> bytes:
    """A certificate, as DER, whose signature algorithm is RSA with this hash."""
    return _with_sha256().replace(
        _PKCS_1 + bytes([_NUMBERS["sha256"]]), _PKCS_1 + bytes([_NUMBERS[hash_name]])
    )
