# SPDX-License-Identifier: Apache-2.0
"""What a machine proves itself by: keys and what they are known by, signatures, and requests for certificates.

Machines have keys on elliptic curves. Vault credentials may have an RSA key as well, as those have that Azure's own
clients make. Signatures are over SHA-256: ECDSA, or RSA with PKCS #1 v1.5.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from keepstone.errors import InvalidRequest

__all__ = ["PublicKey", "is_signed", "key_id", "read_certificate", "read_key", "read_request", "thumbprint"]

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
_CURVES = ("secp256r1", "secp384r1")
_BITS = range(2048, 8193)
_LARGEST = 1 << 14  # bytes of a request or a certificate


def thumbprint(der: bytes) -> str:
    """What a certificate is known by."""
    return sha256(der).hexdigest()


def key_id(key: PublicKey) -> str:
    """What a key is known by: SHA-256 of its SubjectPublicKeyInfo (RFC 5280, 4.1.2.7), in hexadecimal."""
    return sha256(
        key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    ).hexdigest()


def is_signed(key: PublicKey, signature: bytes, data: bytes) -> bool:
    """Whether whoever has this key's private half signed the data."""
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
        else:
            key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        return False
    return True


def read_key(der: bytes) -> PublicKey:
    """A key (SubjectPublicKeyInfo, DER). `InvalidRequest`."""
    with _parsing("key", der, "key"):
        return _taken(serialization.load_der_public_key(der), "key")


def read_request(der: bytes) -> ec.EllipticCurvePublicKey:
    """The key that a request for a certificate (PKCS #10, DER) is for, and is signed by. `InvalidRequest`."""
    with _parsing("request for a certificate", der, "csr"):
        request = x509.load_der_x509_csr(der)
        key, is_own = _taken(request.public_key(), "csr"), request.is_signature_valid
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise InvalidRequest("the key of a machine has to be one of P-256; make such a key", target="csr")
    if not is_own:
        raise InvalidRequest("the request for a certificate is not signed by its own key; make it anew", target="csr")
    return key


def read_certificate(der: bytes) -> tuple[x509.Certificate, PublicKey]:
    """A certificate (DER), and its key. `InvalidRequest`."""
    with _parsing("certificate", der, "properties.certificate"):
        certificate = x509.load_der_x509_certificate(der)
        key = _taken(certificate.public_key(), "properties.certificate")
        certificate.subject.rfc4514_string()  # names are read when they are asked for
        certificate.issuer.rfc4514_string()
    return certificate, key


def _taken(key: object, target: str) -> PublicKey:
    """A key of a kind and size that count."""
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return key
    if isinstance(key, rsa.RSAPublicKey) and key.key_size in _BITS:
        return key
    raise InvalidRequest(
        "the key has to be one of P-256 or P-384, or of RSA with 2048 bits or more; make such a key", target=target
    )


@contextmanager
def _parsing(what: str, der: bytes, target: str) -> Iterator[None]:
    if len(der) > _LARGEST:
        raise InvalidRequest(f"the {what} has {len(der):,} bytes; it may have {_LARGEST:,}", target=target)
    try:
        yield
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise InvalidRequest(
            f"the {what} cannot be read ({error}); it has to be DER, make it anew", target=target
        ) from error
