# SPDX-License-Identifier: Apache-2.0
"""Secrets, certificates and tokens."""

from __future__ import annotations

import base64
import json
import ssl
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.verification import PolicyBuilder, Store
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from keepstone.env import Env
from keepstone.errors import Unauthenticated
from keepstone.identity import Authority, Issued, Issuer, Principal, hash_secret, is_secret, new_secret

pytestmark = pytest.mark.service

HERE = "https://127.0.0.1:8443"
SOMEBODY = Principal("object-id", "client-id", "app", "somebody")


class Clock(Env):
    def __init__(self) -> None:
        super().__init__()
        self.now = datetime(2026, 11, 26, 12, tzinfo=UTC)

    def wall_time(self) -> int:
        return int(self.now.timestamp()) * 10**9


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create(Env(), "Keepstone test")


@pytest.fixture
def issuer(clock: Clock, authority: Authority) -> Issuer:
    return Issuer(clock, authority.issued.key, "tenant-id")


def test_secrets() -> None:
    env = Env()
    secret = new_secret(env)
    stored = hash_secret(env, secret)

    assert len(secret) == 32
    assert new_secret(env) != secret
    assert stored.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert secret not in stored
    assert is_secret(secret, stored)
    assert not is_secret(secret + "x", stored)
    assert not is_secret("", stored)


def test_a_server_certificate_is_believed_for_its_names(authority: Authority) -> None:
    issued = authority.server(["vault.example", "localhost", "127.0.0.1", "::1"])
    certificate = x509.load_pem_x509_certificate(issued.certificate)
    policy = PolicyBuilder().store(Store([authority.certificate]))

    for name in (x509.DNSName("localhost"), x509.DNSName("vault.example")):
        assert policy.build_server_verifier(name).verify(certificate, [])
    with pytest.raises(x509.verification.VerificationError):
        policy.build_server_verifier(x509.DNSName("other.example")).verify(certificate, [])


def test_openssl_takes_the_certificates(authority: Authority, tmp_path: Any) -> None:
    issued = authority.server(["localhost"])
    chain, ca = tmp_path / "server.pem", tmp_path / "ca.pem"
    chain.write_bytes(issued.certificate + issued.key)
    ca.write_bytes(authority.issued.certificate)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain)
    client = ssl.create_default_context(cafile=str(ca))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    done = set()
    for _ in range(10):
        for end in ends:
            try:
                end.do_handshake()
                done.add(end)
            except ssl.SSLWantReadError:
                continue

    assert done == set(ends)


def test_when_a_certificate_is_made_anew(clock: Clock) -> None:
    authority = Authority.create(clock, "ca")
    issued = authority.server(["localhost"])

    assert authority.serves(issued, ["localhost"])
    assert not authority.serves(issued, ["localhost", "vault.example"])
    other = authority.server(["localhost"])  # a crash between the two files leaves such a pair
    assert not authority.serves(Issued(issued.certificate, other.key), ["localhost"])
    assert not authority.serves(Issued(b"", issued.key), ["localhost"])
    assert not Authority.create(clock, "another").serves(issued, ["localhost"])
    clock.now += timedelta(days=380)
    assert not authority.serves(issued, ["localhost"])
    assert "PRIVATE" not in repr(issued)


@pytest.mark.parametrize("audience", [HERE, f"{HERE}/"])
def test_a_token_says_who_somebody_is(issuer: Issuer, audience: str) -> None:
    token = issuer.issue(SOMEBODY, audience, f"{HERE}/tenant-id/v2.0")

    assert issuer.verify(token, f"{HERE}/") == SOMEBODY


def test_anybody_can_check_a_token(issuer: Issuer) -> None:
    """With the published key and nothing of this library."""
    token = issuer.issue(SOMEBODY, HERE, HERE)
    (key,) = issuer.public_keys()["keys"]

    def number(name: str) -> int:
        return int.from_bytes(base64.urlsafe_b64decode(key[name] + "=="), "big")

    signed, _, signature = token.rpartition(".")
    public = rsa.RSAPublicNumbers(number("e"), number("n")).public_key()
    from cryptography.hazmat.primitives import hashes

    public.verify(base64.urlsafe_b64decode(signature + "=="), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    assert json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))["kid"] == key["kid"]
    assert set(key) & {"d", "p", "q"} == set()


def test_a_token_ends(issuer: Issuer, clock: Clock) -> None:
    token = issuer.issue(SOMEBODY, HERE, HERE)
    clock.now += timedelta(seconds=3600 + 59)
    assert issuer.verify(token, HERE) == SOMEBODY

    clock.now += timedelta(seconds=2)
    with pytest.raises(Unauthenticated, match="expired"):
        issuer.verify(token, HERE)
    clock.now -= timedelta(hours=2)
    with pytest.raises(Unauthenticated, match="expired"):
        issuer.verify(token, HERE)


def forged(issuer: Issuer) -> dict[str, str]:
    good = issuer.issue(SOMEBODY, HERE, HERE)
    head, claims, signature = good.split(".")
    other = RSAKey.generate_key(2048)
    body = {"aud": HERE, "tid": "tenant-id", "oid": "x", "nbf": 0, "exp": 2**40}
    plain = base64.urlsafe_b64encode(json.dumps({"alg": "none"}).encode()).rstrip(b"=").decode()
    public = json.dumps(issuer.public_keys()["keys"][0])
    kid = issuer.public_keys()["keys"][0]["kid"]
    return {
        "empty": "",
        "text": "not a token",
        "two parts": f"{head}.{claims}",
        "no signature": f"{head}.{claims}.",
        "another's claims": f"{head}.{claims[:-4]}AAAA.{signature}",
        "unsigned": f"{plain}.{claims}.",
        "another key": jwt.encode({"alg": "RS256", "kid": kid}, body, other),
        "unknown key": jwt.encode({"alg": "RS256", "kid": "x"}, body, other),
        "hmac with the public key": jwt.encode({"alg": "HS256", "kid": kid}, body, OctKey.import_key(public)),
        "not ascii": good + "é",
        "long": "a." * 100_000,
    }


KINDS = (
    "empty",
    "text",
    "two parts",
    "no signature",
    "another's claims",
    "unsigned",
    "another key",
    "unknown key",
    "hmac with the public key",
    "not ascii",
    "long",
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_forged_token_is_nobody(issuer: Issuer, kind: str) -> None:
    with pytest.raises(Unauthenticated):
        issuer.verify(forged(issuer)[kind], HERE)


def test_a_token_for_somebody_else_is_nobody(issuer: Issuer, clock: Clock, authority: Authority) -> None:
    elsewhere = issuer.issue(SOMEBODY, "https://other.example", HERE)
    with pytest.raises(Unauthenticated, match=r"is for 'https://other\.example'"):
        issuer.verify(elsewhere, HERE)
    other_tenant = Issuer(clock, authority.issued.key, "another").issue(SOMEBODY, HERE, HERE)
    with pytest.raises(Unauthenticated, match="another tenant"):
        issuer.verify(other_tenant, HERE)
