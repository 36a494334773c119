# SPDX-License-Identifier: Apache-2.0
"""What a thief of a machine's files has and tries: connections, requests of every kind, certificates that he makes; and
machines that are at something, to be stolen from."""

from __future__ import annotations

import base64
import http.client
import json
import re
import secrets
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import uuid4

import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

from keepstone.agent.identity import Credentials
from keepstone.catalogue import agents as rows
from keepstone.catalogue.tables.base import metadata
from keepstone.env import Env
from keepstone.identity import Authority, Issued
from keepstone.remote.wire import (
    PREFIX,
    TRANSFER,
    Beat,
    Begin,
    Commit,
    End,
    Fetch,
    Pulse,
    Register,
    Renew,
    Wanted,
    encode,
    handle_record,
)
from tests.agents.living import Living, Machine

__all__ = [
    "CALLS",
    "VERSION",
    "Busy",
    "Connect",
    "Connection",
    "Names",
    "Scene",
    "anonymous",
    "certified",
    "crossed",
    "filled",
    "is_out",
    "let_in",
    "places",
    "registration",
    "renewal",
    "tokens",
    "unchanged",
]

VERSION = "api-version=2024-04-01"
Answer = tuple[int, bytes]
Connect = Callable[..., "Connection"]


class Connection:
    """HTTPS to a service, whoever that is, as the owner of what `context` has."""

    def __init__(self, url: str, context: ssl.SSLContext) -> None:
        parts = urlsplit(url)
        host = parts.hostname or ""
        self._context = context
        self._http, self._transfers = (
            http.client.HTTPSConnection(host, parts.port, context=context, timeout=60) for _ in range(2)
        )

    def ask(self, verb: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        """Whatever is answered."""
        return self._ask(self._http, "http/1.1", verb, path, body, headers)

    def agent(self, call: str, body: bytes) -> Answer:
        """A call of the agents' API, over the kind of connection that it belongs to."""
        if call.startswith(("sessions/", "points/")):
            return self._ask(self._transfers, TRANSFER, "POST", PREFIX + call, body, {})
        return self.ask("POST", PREFIX + call, body)

    def _ask(
        self, http: http.client.HTTPSConnection, protocol: str, verb: str, path: str, body: bytes, headers: Any
    ) -> Answer:
        self._context.set_alpn_protocols([protocol])
        http.request(verb, path, body, headers)
        answer = http.getresponse()
        return answer.status, answer.read()

    def close(self) -> None:
        """Hang up."""
        self._http.close()
        self._transfers.close()

    def pulse(self) -> int:
        """How the shortest question is answered."""
        return self.agent("pulse", encode(Pulse(version="0", room=0)))[0]


@dataclass(frozen=True)
class Names:
    """What a machine has under way: a backup with its session, a restore, and how these are called in a vault."""

    backup: str
    backup_token: int
    session: str
    restore: str
    restore_token: int

    @classmethod
    def none(cls) -> Names:
        """Of nothing that there is."""
        return cls(str(uuid4()), 1, secrets.token_hex(16), str(uuid4()), 1)

    def hidden(self, content: bytes) -> bytes:
        """An answer without them: what is left is what it tells."""
        for name in (self.backup, self.restore, self.session):
            content = content.replace(name.encode(), b"NAME")
        return content


class Busy:
    """A machine with a point, and with an agent by hand that is at a backup and a restore."""

    def __init__(self, living: Living, name: str, vault: str, folder: Path) -> None:
        self.vault = vault
        self.machine = living.machine(name, vault=vault)
        self.source, self.done = folder / name / "source", folder / name / "done"
        for path in (self.source, self.done):
            path.mkdir(parents=True)
            (path / "file").write_text(f"of {name}")
            living("protection", "enable", "-v", vault, "--path", path, "-c", name, "-p", "FilesPolicy")
        with self.machine.running():
            living("protection", "backup-now", "-v", vault, "-i", self.done)
        (point,) = living("recoverypoint", "list", "-v", vault, "-i", self.done)
        self.point = str(point["id"])
        self.hand = self.machine.hand()
        target = self.machine.restored / "back"
        asked = living("restore", "files", "-v", vault, "-i", self.done, "latest", "--target", target, "--no-wait")
        restore = self.hand.take(asked["name"])
        asked = living("protection", "backup-now", "-v", vault, "-i", self.source, "--no-wait")
        backup = self.hand.take(asked["name"])
        begun = self.hand.begin(backup)
        self.names = Names(backup.job, backup.token, begun.session, restore.job, restore.token)

    def beat(self) -> None:
        """Keep its jobs for the next half minute."""
        of = self.names
        jobs = ((of.backup, of.backup_token), (of.restore, of.restore_token))
        assert self.hand.pulse(room=0, wait=0.0, beats=tuple(Beat(*job) for job in jobs)).told == []

    @property
    def context(self) -> ssl.SSLContext:
        """What a thief of its files connects with."""
        return self.hand.identity.context()

    @property
    def key(self) -> ec.EllipticCurvePrivateKey:
        """Its key."""
        return key_of(self.machine)


class Scene:
    """A thief of `mine`; another machine of its vault, and one of another vault."""

    def __init__(self, living: Living, folder: Path) -> None:
        self.living = living
        living("vault", "create", "-n", "v2", "-g", "g")
        self.mine = Busy(living, "mine", "v1", folder)
        self.theirs = Busy(living, "theirs", "v1", folder)
        self.far = Busy(living, "far", "v2", folder)
        self.thief = Connection(living.url, self.mine.context)

    def close(self) -> None:
        self.thief.close()
        for one in (self.mine, self.theirs, self.far):
            one.hand.close()


def key_of(machine: Machine) -> ec.EllipticCurvePrivateKey:
    pem = (machine.home / "agent" / "state" / "machine.key").read_bytes()
    key = serialization.load_pem_private_key(pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def signed(key: ec.EllipticCurvePrivateKey, subject: str = "any") -> bytes:
    """A certificate signing request."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)


def anonymous(living: Living) -> ssl.SSLContext:
    """Nobody, who knows the service."""
    return ssl.create_default_context(cafile=str(living.service.root / "tls" / "ca.pem"))


def state(living: Living) -> dict[str, Any]:
    """All that the service keeps, but for when agents were seen: its database, and the files of its stores."""
    kept: dict[str, Any] = {}
    with living.plane.look() as connection:
        for table in metadata.sorted_tables:
            columns = [one for one in table.c if table is not rows or one.name not in ("seen", "version")]
            kept[table.name] = sorted(map(repr, connection.execute(sa.select(*columns)).all()))
    stores = living.service.root / "vaults"
    kept["files"] = sorted((str(path), path.stat().st_size) for path in stores.rglob("*") if path.is_file())
    return kept


@contextmanager
def unchanged(living: Living) -> Iterator[None]:
    """Whatever is done in the block, the service keeps what it did before."""
    before = state(living)
    yield
    after = state(living)
    changed = {name: sorted({*after[name]} ^ {*before[name]}) for name in after}
    assert not any(changed.values()), "\n".join(str(row) for rows in changed.values() for row in rows)


# What an agent may ask for, of somebody's jobs.


def commit(names: Names) -> bytes:
    return encode(
        Commit(records=0, root=b"", detail=b"", source=b"/", logical=1, read=1, files=1, warnings=0, messages=[])
    )


CALLS: dict[str, Callable[[Names], tuple[str, bytes]]] = {
    "begin": lambda of: ("sessions/begin", encode(Begin(job=of.backup, token=of.backup_token, kind="files"))),
    "state": lambda of: (f"sessions/state?session={of.session}", b""),
    "records": lambda of: (f"sessions/records?session={of.session}&first=0", handle_record(0, 0)),
    "nodes": lambda of: (f"sessions/nodes?session={of.session}", encode(Wanted(paths=[[0]]))),
    "ids": lambda of: (f"sessions/ids?session={of.session}", encode([0])),
    "known": lambda of: (f"sessions/known?session={of.session}", bytes(32)),
    "commit": lambda of: (f"sessions/commit?session={of.session}", commit(of)),
    "abort": lambda of: (f"sessions/abort?session={of.session}", b""),
    "open": lambda of: (f"points/open?job={of.restore}&token={of.restore_token}", b""),
    "nodes of a point": lambda of: (
        f"points/nodes?job={of.restore}&token={of.restore_token}", encode(Wanted(paths=[[0]]))),
    "columns": lambda of: (f"points/columns?job={of.restore}&token={of.restore_token}", encode([0])),
    "fetch": lambda of: (
        f"points/fetch?job={of.restore}&token={of.restore_token}", encode(Fetch(nodes=[([0], bytes(4))]))),
    "end a backup": lambda of: ("end", encode(End(job=of.backup, token=of.backup_token, status="Cancelled"))),
    "end a restore": lambda of: ("end", encode(End(job=of.restore, token=of.restore_token, status="Completed"))),
}  # fmt: skip


def crossed(names: Names, own: Names) -> Names:
    """Jobs of another machine with the tokens of one's own."""
    return replace(names, backup_token=own.backup_token, restore_token=own.restore_token)


def places(scene: Scene, of: Busy) -> dict[str, str]:
    """What stands for the variables of paths: all of it is there, and of this machine."""
    parts = of.point.split("/")
    after = dict(zip(parts[1::2], parts[2::2], strict=False))
    return {
        "subscription": after["subscriptions"],
        "group": after["resourceGroups"],
        "vault": after["vaults"],
        "fabric": "Azure",
        "container": after["protectionContainers"],
        "item": after["protectedItems"],
        "point": after["recoveryPoints"],
        "policy": "FilesPolicy",
        "job": of.names.backup,
        "location": scene.living.plane.place.location,
        "tenant": scene.living.plane.place.tenant,
        "namespace": "Microsoft.RecoveryServices",
    }


def filled(template: str, names: dict[str, str]) -> str:
    """A path; what has no name is called `none`."""
    return re.sub(r"\{(\w+)\}", lambda found: quote(names.get(found[1], "none"), safe=";"), template)


def tokens(scene: Scene) -> dict[str, str]:
    """What a machine could take for a token, or make one of."""
    claims = {"aud": f"{scene.living.url}/", "iss": f"{scene.living.url}/", "oid": str(uuid4()), "sub": "mine",
              "tid": scene.living.plane.place.tenant, "exp": 1 << 33, "nbf": 0, "iat": 0}  # fmt: skip

    def part(value: Any) -> str:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    head = part({"alg": "ES256", "typ": "JWT"}) + "." + part(claims)
    r, s = decode_dss_signature(scene.mine.key.sign(head.encode(), ec.ECDSA(hashes.SHA256())))
    pem = (scene.mine.machine.home / "agent" / "state" / "machine.pem").read_text()
    return {
        "none": "",
        "signed by the machine": f"Bearer {head}.{part(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}",
        "signed by nobody": f"Bearer {part({'alg': 'none'})}.{part(claims)}.",
        "the certificate": f"Bearer {''.join(pem.splitlines()[1:-1])[:2000]}",
    }


def is_out(thief: Connection, busy: Busy) -> bool:
    """Whether nothing is answered any more, of what was the machine's own."""
    return {thief.agent(*call(busy.names))[0] for call in CALLS.values()} == {401}


def renewal(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A request for the next certificate of this key."""
    request = signed(key)
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return encode(Renew(key=public, request=request, signature=key.sign(request, ec.ECDSA(hashes.SHA256()))))


def registration(
    file: Path, name: str, key: ec.EllipticCurvePrivateKey | None = None, *, thumbprint: str = ""
) -> bytes:
    """A registration with a file of vault credentials, under a key of one's own. `thumbprint`: of other ones."""
    given = Credentials.read(file)
    request = signed(key or ec.generate_private_key(ec.SECP256R1()))
    known = serialization.load_pem_private_key(given.key.encode(), None)
    assert isinstance(known, ec.EllipticCurvePrivateKey)
    return encode(
        Register(
            thumbprint=thumbprint or given.thumbprint.lower(),
            request=request,
            signature=known.sign(request, ec.ECDSA(hashes.SHA256())),
            name=name,
            version="0",
        )
    )


def certified(living: Living, folder: Path, key: ec.EllipticCurvePrivateKey, authority: Authority | None = None,
              **more: Any) -> ssl.SSLContext:  # fmt: skip
    """Whoever has this key, with a certificate of the service's own authority, or of another."""
    tls = living.service.root / "tls"
    own = authority or Authority(Env(), Issued((tls / "ca.pem").read_bytes(), (tls / "ca.key").read_bytes()))
    made = own.machine(signed(key), "any", **{"hours": 24, **more})
    folder.mkdir(exist_ok=True)
    (folder / "pem").write_bytes(made.public_bytes(serialization.Encoding.PEM) + own.issued.certificate)
    (folder / "key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = anonymous(living)
    context.load_cert_chain(folder / "pem", folder / "key")
    return context


def let_in(living: Living, context: ssl.SSLContext) -> int:
    """How a connection is answered; 0: not at all."""
    connection = Connection(living.url, context)
    try:
        return connection.pulse()
    except (ssl.SSLError, ConnectionError):
        return 0
    finally:
        connection.close()
