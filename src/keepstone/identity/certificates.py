# SPDX-License-Identifier: Apache-2.0
"""The vault's own certificate authority, and the certificates that it issues.

The clients' TLS refuses less: a CA needs basicConstraints and keyUsage, both critical, and a subject key id; a
server's certificate needs the authority's key id, serverAuth, and its names and addresses as subject alternative names
(RFC 5280, section 4.2; RFC 9525). Certificates begin an hour early, for clocks that are slow.

A machine with an agent gets a certificate as a client and nothing else, for a key that never leaves it. Of what it asks
for in its request only the key counts.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from keepstone.env import Env
from keepstone.identity.proofs import PublicKey, read_request

__all__ = ["Authority", "Issued", "locked_key", "new_credentials"]

_BITS = 2048
_CA_TIME = timedelta(days=3650)
_SERVER_TIME = timedelta(days=397)  # what browsers accept at most
_RENEW = timedelta(days=30)
_EARLY = timedelta(hours=1)
_USAGE = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
          "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "Issued(…)"  # the key is a secret


class Authority:
    """A certificate authority out of its certificate and key."""

    def __init__(self, env: Env, issued: Issued) -> None:
        self._env = env
        self.issued = issued
        self.certificate = x509.load_pem_x509_certificate(issued.certificate)
        key = serialization.load_pem_private_key(issued.key, None)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise TypeError("the key of the authority is no RSA key")
        self._key = key

    @classmethod
    def create(cls, env: Env, name: str) -> Authority:
        """A new one, which vouches for itself."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=_BITS)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            _builder(env, subject, subject, key.public_key(), _CA_TIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(env, _issued(certificate, key))

    def server(self, names: list[str]) -> Issued:
        """A certificate for a server of these DNS names and IP addresses; the first one is its common name."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=_BITS)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
        certificate = (
            self._leaf(subject, key.public_key(), _SERVER_TIME)
            .add_extension(_usage("digital_signature", "key_encipherment"), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return _issued(certificate, key)

    def machine(self, csr: bytes, name: str, hours: int) -> x509.Certificate:
        """A certificate for a machine as a client. `csr`: PKCS #10, DER; `name`: what it is called. `InvalidRequest` as
        from `read_request`."""
        key = read_request(csr)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
        return (
            self._leaf(subject, key, timedelta(hours=hours))
            .add_extension(_usage("digital_signature"), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def _leaf(self, subject: x509.Name, key: PublicKey, time: timedelta) -> x509.CertificateBuilder:
        """What is true of every certificate that it issues."""
        issuer = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        return (
            _builder(self._env, subject, self.certificate.subject, key, time)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
        )

    def serves(self, issued: Issued, names: list[str]) -> bool:
        """Whether this certificate is one of ours, has these names and this key, and is good for a month yet."""
        try:
            certificate = x509.load_pem_x509_certificate(issued.certificate)
            key = serialization.load_pem_private_key(issued.key, None)
        except ValueError:
            return False
        if key.public_key() != certificate.public_key():
            return False
        has = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        fresh = certificate.not_valid_after_utc - self._env.utc() > _RENEW
        ours = certificate.issuer == self.certificate.subject
        return ours and fresh and all(_alternative(name) in has for name in names)


def new_credentials(env: Env, name: str, days: int) -> Issued:
    """A new key (P-256) and a certificate of it by itself: vault credentials, before the vault knows them."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    certificate = (
        _builder(env, subject, subject, key.public_key(), timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage("digital_signature"), critical=True)
        .sign(key, hashes.SHA256())
    )
    return _issued(certificate, key)


def locked_key(issued: Issued, password: str) -> bytes:
    """The key as PKCS #8 in PEM, encrypted by a password."""
    key = serialization.load_pem_private_key(issued.key, None)
    lock = serialization.BestAvailableEncryption(password.encode())
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock)


def _builder(
    env: Env, subject: x509.Name, issuer: x509.Name, key: PublicKey, time: timedelta
) -> x509.CertificateBuilder:
    now = env.utc().replace(microsecond=0)  # certificates know seconds only
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(int.from_bytes(env.random(19), "big") | 1)  # RFC 5280, 4.1.2.2: positive, at most 20 bytes
        .not_valid_before(now - _EARLY)
        .not_valid_after(now + time)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*allowed: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{name: name in allowed for name in _USAGE})


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _issued(certificate: x509.Certificate, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> Issued:
    return Issued(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
