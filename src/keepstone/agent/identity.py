# SPDX-License-Identifier: Apache-2.0
"""Who this machine is to its service: a key that it made and that never leaves it, and a certificate for that key.

    agent.json     the service's address, the authority that its certificate has to come from, and what this machine is
    machine.key    the private key
    machine.pem    the certificate, and those that vouch for it

A key is kept before a certificate for it is asked for, so that an answer that was lost can be asked for again. The
certificate is good for a day; half of that before its end a new one is asked for, and one that has ended meanwhile is
no obstacle: what counts is the key.
"""

from __future__ import annotations

import ssl
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from keepstone import __version__
from keepstone.decoders import from_json
from keepstone.env import Env
from keepstone.errors import AlreadyExists, NotFound, UsageError
from keepstone.objects import replace_private, write_private
from keepstone.remote.calls import Calls
from keepstone.remote.wire import TRANSFER, Register, Registered, Renew, decode, encode

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["Credentials", "Identity", "register"]

_EARLY = 12 * 3600.0  # seconds before its end


class Credentials(msgspec.Struct, frozen=True):
    """A file of `keepstone vault credentials download`. `ca`: PEM, None for the system's authorities."""

    url: str
    certificate: str
    key: str
    thumbprint: str
    until: datetime
    ca: str | None = None
    vault: str = ""
    name: str = ""

    @classmethod
    def read(cls, path: Path) -> Credentials:
        """`NotFound`, `UsageError`."""
        try:
            return from_json(cls).decode(path.read_bytes())
        except FileNotFoundError as error:
            raise NotFound(f"there is no {path}; `keepstone vault credentials download` makes such a file") from error
        except msgspec.MsgspecError as error:
            raise UsageError(f"{path} holds no vault credentials ({error}); download them again") from error


class _About(msgspec.Struct, frozen=True):
    url: str
    ca: str | None
    vault: str
    container: str
    name: str
    until: float


class Identity:
    """What is in `folder`."""

    def __init__(self, env: Env, folder: Path, about: _About) -> None:
        self._env = env
        self._folder = folder
        self._about = about
        self._transfers: tuple[int, ssl.SSLContext] | None = None  # and when its certificate was written

    @classmethod
    def load(cls, env: Env, folder: Path) -> Identity:
        """`NotFound` where this machine is not registered."""
        try:
            about = from_json(_About).decode((folder / "agent.json").read_bytes())
        except FileNotFoundError as error:
            raise NotFound(
                "this machine is not registered with a vault; do so by `keepstone agent register --credentials FILE`"
            ) from error
        except msgspec.MsgspecError as error:
            raise UsageError(f"{folder / 'agent.json'} is damaged ({error}); register this machine again") from error
        return cls(env, folder, about)

    @property
    def url(self) -> str:
        """The service's address."""
        return self._about.url

    @property
    def vault(self) -> str:
        """The vault's resource id."""
        return self._about.vault

    @property
    def container(self) -> str:
        """What this machine is called there."""
        return self._about.container

    @property
    def until(self) -> float:
        """When its certificate ends, seconds since 1970."""
        return self._about.until

    def context(self) -> ssl.SSLContext:
        """For a connection as this machine."""
        context = _trusting(self._about.ca)
        context.load_cert_chain(self._folder / "machine.pem", self._folder / "machine.key")
        return context

    def transfers(self) -> ssl.SSLContext:
        """For one over which it writes or reads points: the same as long as the certificate is."""
        written = (self._folder / "machine.pem").stat().st_mtime_ns
        if self._transfers is None or self._transfers[0] != written:
            context = self.context()
            context.set_alpn_protocols([TRANSFER])
            self._transfers = written, context
        return self._transfers[1]

    def is_due(self) -> bool:
        """Whether it is time for a new certificate."""
        return self._env.wall_time() / 1e9 > self._about.until - _EARLY

    def renew(self) -> None:
        """Get a new certificate. Raises what the service and the connection raise."""
        key = _key(self._folder)
        request = _request(key, self._about.name)
        calls = Calls(self._env, self._about.url, lambda: _trusting(self._about.ca), patience=0.0)
        try:
            wanted = Renew(key=_public(key), request=request, signature=_sign(key, request))
            made = decode(calls.once("renew", [encode(wanted)]), Registered)
        finally:
            calls.close()
        self._about = msgspec.structs.replace(self._about, until=made.until)
        _keep(self._env, self._folder, made, self._about)

    def forget(self) -> None:
        """Remove what makes this machine who it is."""
        for name in ("agent.json", "machine.pem", "machine.key"):
            (self._folder / name).unlink(missing_ok=True)


def register(env: Env, folder: Path, credentials: Credentials, name: str, facts: dict[str, Any]) -> Identity:
    """Make a key, and get a certificate for it. `AlreadyExists` where this machine is registered already; what the
    service refuses."""
    if (folder / "agent.json").exists():
        raise AlreadyExists("this machine is registered already; `keepstone agent unregister` comes first")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    if not (folder / "machine.key").exists():
        made_key = ec.generate_private_key(ec.SECP256R1())
        pem = made_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_private(env, folder / "machine.key", pem)
    key = _key(folder)
    request = _request(key, name)
    known = serialization.load_pem_private_key(credentials.key.encode(), None)
    if not isinstance(known, ec.EllipticCurvePrivateKey):
        raise UsageError("the vault credentials have a key of a kind that is not used here; download them again")
    wanted = Register(
        thumbprint=credentials.thumbprint.lower(),
        request=request,
        signature=_sign(known, request),
        name=name,
        version=__version__,
        system=facts,
    )
    calls = Calls(env, credentials.url, lambda: _trusting(credentials.ca), patience=30.0)
    try:
        made = decode(calls.post("register", encode(wanted)), Registered)
    finally:
        calls.close()
    about = _About(credentials.url, credentials.ca, made.vault, made.container, name, made.until)
    _keep(env, folder, made, about)
    return Identity(env, folder, about)


def _keep(env: Env, folder: Path, made: Registered, about: _About) -> None:
    """`agent.json` comes last: with it the machine is registered."""
    for name, data in (("machine.pem", made.certificates.encode()), ("agent.json", msgspec.json.encode(about))):
        fresh = folder / f"{name}.new"
        fresh.unlink(missing_ok=True)
        write_private(env, fresh, data)
        replace_private(env, fresh, folder / name)


def _trusting(ca: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=ca) if ca is not None else ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _key(folder: Path) -> ec.EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = serialization.load_pem_private_key((folder / "machine.key").read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UsageError(f"{folder / 'machine.key'} is no key of this agent; register this machine again")
    return key


def _public(key: ec.EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _request(key: ec.EllipticCurvePrivateKey, name: str) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.x509.oid import NameOID

    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)


def _sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    return key.sign(data, ec.ECDSA(hashes.SHA256()))
