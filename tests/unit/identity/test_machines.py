# SPDX-License-Identifier: Apache-2.0
"""Certificates of machines: whom they are given to, and what they are good for."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from keepstone.env import Env
from keepstone.errors import InvalidRequest
from keepstone.identity import (
    Authority,
    is_signed,
    key_id,
    new_credentials,
    read_certificate,
    read_key,
    read_request,
    thumbprint,
)

pytestmark = pytest.mark.service

DER, PEM = serialization.Encoding.DER, serialization.Encoding.PEM
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo


class Clock(Env):
    def wall_time(self) -> int:
        return int(datetime(2026, 11, 26, 12, tzinfo=UTC).timestamp()) * 10**9


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create(Clock(), "Keepstone test")


@pytest.fixture(scope="module")
def living() -> Authority:
    """One of today, for those who look at the clock of this machine."""
    return Authority.create(Env(), "Keepstone test")


@pytest.fixture(scope="module")
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def request(key: Any, algorithm: Any = None, **extensions: x509.ExtensionType) -> bytes:
    """PKCS #10, asking for more than is due."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody else")])
    )
    for extension in extensions.values():
        builder = builder.add_extension(extension, critical=True)
    chosen = None if isinstance(key, ed25519.Ed25519PrivateKey) else algorithm or hashes.SHA256()
    return builder.sign(key, chosen).public_bytes(DER)


def test_a_machine_gets_a_certificate_as_a_client(authority: Authority, key: ec.EllipticCurvePrivateKey) -> None:
    made = authority.machine(request(key), "web", 24)

    assert made.public_key() == key.public_key()
    made.verify_directly_issued_by(authority.certificate)
    assert made.subject.rfc4514_string() == "CN=web"
    now = Clock().utc()
    assert (made.not_valid_before_utc, made.not_valid_after_utc) == (now - timedelta(hours=1), now + timedelta(days=1))
    extensions = made.extensions
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert extensions.get_extension_for_class(x509.BasicConstraints).value == x509.BasicConstraints(False, None)
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign


def test_of_what_is_asked_for_only_the_key_counts(authority: Authority, key: ec.EllipticCurvePrivateKey) -> None:
    plain = authority.machine(request(key), "web", 24)
    wanting = request(
        key,
        constraints=x509.BasicConstraints(ca=True, path_length=None),
        usage=x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
        names=x509.SubjectAlternativeName([x509.DNSName("vault.example")]),
    )
    made = authority.machine(wanting, "web", 24)
    assert list(made.extensions) == list(plain.extensions)
    assert made.subject == plain.subject
    assert authority.machine(request(key), "w" * 200, 24).subject.rfc4514_string() == f"CN={'w' * 64}"


def test_requests_that_are_refused(authority: Authority, key: ec.EllipticCurvePrivateKey) -> None:
    good = request(key)
    forged = good[:-1] + bytes([good[-1] ^ 1])
    swapped = good.replace(_point(key), _point(ec.generate_private_key(ec.SECP256R1())))
    assert swapped != good
    for der, message in (
        (forged, "not signed by its own key"),
        (swapped, "not signed by its own key"),
        (good[:40], "cannot be read"),
        (b"", "cannot be read"),
        (good + bytes(20_000), "may have"),
        (request(rsa.generate_private_key(65537, 2048)), "P-256"),
        (request(ec.generate_private_key(ec.SECP256K1())), "P-256"),
        (request(ed25519.Ed25519PrivateKey.generate()), "P-256"),
    ):
        with pytest.raises(InvalidRequest, match=message):
            authority.machine(der, "web", 24)


def _point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


def test_what_keys_are_known_by(key: ec.EllipticCurvePrivateKey, authority: Authority) -> None:
    spki = key.public_key().public_bytes(DER, SPKI)
    assert key_id(read_key(spki)) == key_id(read_request(request(key))) == key_id(key.public_key())
    made = authority.machine(request(key), "web", 24)
    certificate, of_certificate = read_certificate(made.public_bytes(DER))
    assert key_id(of_certificate) == key_id(key.public_key())
    assert thumbprint(made.public_bytes(DER)) == certificate.fingerprint(hashes.SHA256()).hex()
    assert key_id(ec.generate_private_key(ec.SECP256R1()).public_key()) != key_id(key.public_key())


def test_signatures(key: ec.EllipticCurvePrivateKey) -> None:
    old = rsa.generate_private_key(65537, 2048)
    for public, signature in (
        (key.public_key(), key.sign(b"data", ec.ECDSA(hashes.SHA256()))),
        (old.public_key(), old.sign(b"data", padding.PKCS1v15(), hashes.SHA256())),
    ):
        assert is_signed(public, signature, b"data")
        assert not is_signed(public, signature, b"date")
        assert not is_signed(public, b"", b"data")
        assert not is_signed(public, signature[:-1], b"data")
    assert not is_signed(key.public_key(), key.sign(b"data", ec.ECDSA(hashes.SHA512())), b"data")
    assert not is_signed(old.public_key(), key.sign(b"data", ec.ECDSA(hashes.SHA256())), b"data")


def test_new_credentials_are_a_key_and_its_own_certificate() -> None:
    issued = new_credentials(Clock(), "web", 2)
    made = x509.load_pem_x509_certificate(issued.certificate)
    made.verify_directly_issued_by(made)
    assert made.not_valid_after_utc == Clock().utc() + timedelta(days=2)
    private = serialization.load_pem_private_key(issued.key, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert private.public_key() == read_certificate(made.public_bytes(DER))[1]
    assert "PRIVATE" not in repr(issued)
    assert new_credentials(Clock(), "web", 2).key != issued.key


def test_openssl_takes_it_as_a_client_and_as_nothing_else(
    living: Authority, key: ec.EllipticCurvePrivateKey, tmp_path: Path
) -> None:
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not installed; scripts/tools.sh installs it")
    (tmp_path / "ca.pem").write_bytes(living.issued.certificate)
    (tmp_path / "web.pem").write_bytes(living.machine(request(key), "web", 24).public_bytes(PEM))
    for purpose, code in (("sslclient", 0), ("sslserver", 2), ("any", 0)):
        command = [program, "verify", "-x509_strict", "-purpose", purpose, "-CAfile", "ca.pem", "web.pem"]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ended.returncode == code, ended


def test_a_server_that_asks_for_it_lets_it_in_and_no_server(
    living: Authority, key: ec.EllipticCurvePrivateKey, tmp_path: Path
) -> None:
    """Over TLS: one of the same authority that is for servers is no proof."""
    server = living.server(["localhost"])
    secret = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    machine = living.machine(request(key), "web", 24)
    files = {
        "server": server.certificate + server.key,
        "machine": machine.public_bytes(PEM) + secret,
        "ca": living.issued.certificate,
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    assert _shaken(tmp_path, "machine") == machine.public_bytes(DER)
    with pytest.raises(ssl.SSLError):
        _shaken(tmp_path, "server")


def _shaken(folder: Path, client: str) -> bytes | None:
    """What the server has seen of the client."""
    listening = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca"))
    listening.load_cert_chain(folder / "server")
    listening.verify_mode = ssl.CERT_REQUIRED
    asking = ssl.create_default_context(cafile=str(folder / "ca"))
    asking.load_cert_chain(folder / client)
    here, there = socket.socketpair()
    refused: list[Exception] = []

    def ask() -> None:
        try:
            with asking.wrap_socket(there, server_hostname="localhost") as wrapped:
                wrapped.recv(1)
        except OSError as error:
            refused.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        with listening.wrap_socket(here, server_side=True) as wrapped:
            return wrapped.getpeercert(binary_form=True)
    finally:
        here.close()
        thread.join(30)
        there.close()
