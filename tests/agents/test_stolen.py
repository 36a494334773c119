# SPDX-License-Identifier: Apache-2.0
"""The certificate of a machine in wrong hands, with everything known that a machine does not know: it opens what the
machine's own jobs name, and nothing else. Of what is somebody else's it learns as much as of what is not there.

What a thief may do is looked for in every operation, so a new one is tried as well.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import secrets
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import uuid4

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

from keepstone.agent.identity import Credentials, Identity, register
from keepstone.agentapi import service as agentapi
from keepstone.arm.operations import OPERATIONS
from keepstone.catalogue import agents as rows
from keepstone.catalogue import credentials as credential_rows
from keepstone.catalogue.tables.base import metadata
from keepstone.env import Env
from keepstone.errors import AccessDenied
from keepstone.identity import Authority, Issued
from keepstone.remote.calls import Calls
from keepstone.remote.wire import (
    Beat,
    Begin,
    Commit,
    End,
    Fetch,
    Pulse,
    Pulsed,
    Register,
    Renew,
    Wanted,
    decode,
    encode,
    handle_record,
)
from tests.agents.living import Living, Machine
from tests.cli.services import until

pytestmark = pytest.mark.agents

VERSION = "api-version=2024-04-01"
Answer = tuple[int, bytes]
Connect = Callable[..., "Connection"]


class Connection:
    """HTTPS to a service, whoever that is, as the owner of what `context` has."""

    def __init__(self, url: str, context: ssl.SSLContext) -> None:
        parts = urlsplit(url)
        self._http = http.client.HTTPSConnection(parts.hostname or "", parts.port, context=context, timeout=60)

    def ask(self, verb: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        """Whatever is answered."""
        self._http.request(verb, path, body, headers)
        answer = self._http.getresponse()
        return answer.status, answer.read()

    def agent(self, call: str, body: bytes) -> Answer:
        """A call of the agents' API."""
        return self.ask("POST", f"{agentapi.PREFIX}{call}", body)

    def close(self) -> None:
        """Hang up."""
        self._http.close()

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


@pytest.fixture
def connect(living: Living) -> Iterator[Connect]:
    """Connects as whoever has what the context has; as nobody without one."""
    with ExitStack() as stack:

        def make(context: ssl.SSLContext | None = None) -> Connection:
            made = Connection(living.url, context or anonymous(living))
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture(scope="module")
def shared(living: Living, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The one that this module looks at, and changes nothing of."""
    made = Scene(living, tmp_path_factory.mktemp("scene"))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def scene(shared: Scene) -> Scene:
    """With jobs that are all alive."""
    for one in (shared.mine, shared.theirs, shared.far):
        one.beat()
    return shared


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
    assert not any(changed.values()), "\n".join(row for rows in changed.values() for row in rows)


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


def test_every_call_is_tried() -> None:
    tried = {call(Names.none())[0].partition("?")[0] for call in CALLS.values()}
    assert tried | {"register", "renew", "pulse"} == agentapi.CALLS


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_what_is_somebody_elses_is_as_if_it_was_not_there(scene: Scene, call: Callable[[Names], Any]) -> None:
    nobody = Names.none()

    with unchanged(scene.living):
        status, content = scene.thief.agent(*call(nobody))
        for other in (scene.theirs, scene.far):
            wrong = (replace(other.names, backup_token=9, restore_token=9), other.names)
            for names in (*wrong, crossed(names=other.names, own=scene.mine.names)):
                answered = scene.thief.agent(*call(names))
                assert (answered[0], names.hidden(answered[1])) == (status, nobody.hidden(content)), names
    assert (status, content) == (200, b"") or status in (404, 409)
    assert status != 409 or b"is over, or somebody else's" in content


def crossed(names: Names, own: Names) -> Names:
    """Jobs of another machine with the tokens of one's own."""
    return replace(names, backup_token=own.backup_token, restore_token=own.restore_token)


def test_the_jobs_kinds_are_not_to_be_exchanged(scene: Scene) -> None:
    """A restore makes no point, and a backup reads none."""
    own = scene.mine.names
    with unchanged(scene.living):
        status, content = scene.thief.agent(
            "sessions/begin", encode(Begin(job=own.restore, token=own.restore_token, kind="files")))  # fmt: skip
        assert (status, b"of another kind" in content) == (400, True)
        status, content = scene.thief.agent(f"points/open?job={own.backup}&token={own.backup_token}", b"")
        assert (status, b"of another kind" in content) == (400, True)


def test_a_pulse_tells_of_ones_own(scene: Scene) -> None:
    """Signs of life for others' jobs keep nobody's alive, and say the same of those that there are none of. What waits
    for others goes to nobody else."""
    for other in (scene.theirs, scene.far):
        scene.living("restore", "files", "-v", other.vault, "-i", other.done, "latest", "--target", "/any", "--no-wait")
    others = (scene.theirs.names, scene.far.names, Names.none())
    beats = [Beat(job, token, line="mine") for of in others
             for job, token in ((of.backup, of.backup_token), (of.restore, of.restore_token))]  # fmt: skip
    with unchanged(scene.living):
        status, content = scene.thief.agent("pulse", encode(Pulse(version="0", beats=beats, room=8, plan=True)))
    assert status == 200
    answer = decode(content, Pulsed)
    assert answer.work == []
    assert [(told.job, told.lost, told.cancelled) for told in answer.told] == [
        (beat.job, True, False) for beat in beats
    ]
    assert answer.plan is not None
    assert {plan.name for plan in answer.plan} <= {str(scene.mine.source), str(scene.mine.done)}


def test_nobody_at_all(scene: Scene, connect: Connect) -> None:
    """Without a certificate, also of the right names."""
    nobody = connect()
    with unchanged(scene.living):
        answers = {nobody.agent(*call(scene.mine.names)) for call in CALLS.values()}
        answers |= {nobody.agent("pulse", encode(Pulse(version="0"))), nobody.agent("nothing", b"")}
    assert {status for status, _ in answers} == {401}
    assert len(answers) == 1


# ARM


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


def test_the_certificate_is_nothing_to_arm(scene: Scene, connect: Connect) -> None:
    """Every operation is answered as if it was not there, of the machine's own things and of what there is not."""
    nobody = connect()
    headers = [{"Authorization": token} if token else {} for token in tokens(scene).values()]
    asked = [(places(scene, scene.mine), header) for header in headers]
    asked += [(of, headers[0]) for of in (places(scene, scene.theirs), places(scene, scene.far), {})]
    with unchanged(scene.living):
        for operation in OPERATIONS:
            refused = set()
            for of, header in asked:
                path = f"{filled(operation.template, of)}?{VERSION}"
                body = b"{}" if operation.verb in ("PUT", "PATCH", "POST") else b""
                status, content = scene.thief.ask(operation.verb, path, body, **header)
                if operation.action:
                    refused.add((status, operation.verb == "HEAD" or b"AuthenticationFailed" in content))
                else:  # anybody may ask
                    assert status == nobody.ask(operation.verb, path, body, **header)[0]
            assert refused <= {(401, True)}, (operation.name, refused)


# A certificate that was taken away, or is none


@pytest.fixture
def gone(scene: Scene, tmp_path: Path) -> Iterator[Busy]:
    """A busy machine of a test's own."""
    made = Busy(scene.living, f"gone{secrets.token_hex(3)}", "v1", tmp_path)
    yield made
    made.hand.close()


def is_out(thief: Connection, busy: Busy) -> bool:
    """Whether nothing is answered any more, of what was the machine's own."""
    return {thief.agent(*call(busy.names))[0] for call in CALLS.values()} == {401}


def test_after_it_was_taken_away(scene: Scene, gone: Busy, connect: Connect) -> None:
    """Within seconds, whatever is under way, and whoever has the machine's place then."""
    living, name = scene.living, gone.machine.name
    thief = connect(gone.context)
    thief.agent("pulse", encode(Pulse(version="0", room=0)))  # it is known to those that answer
    assert thief.agent(f"sessions/state?session={gone.names.session}", b"")[0] == 200

    living("container", "revoke", "-n", name, "--yes")

    until(lambda: thief.pulse() == 401, "the end of a stolen certificate")
    with unchanged(living):
        assert is_out(thief, gone)
        assert thief.agent("renew", renewal(gone.key))[0] == 401
        assert thief.agent("register", registration(living.root / f"{name}.json", name, gone.key))[0] == 401
        assert thief.agent("register", registration(living.root / f"{name}.json", name))[0] == 401
        status, _ = thief.ask("GET", f"{gone.point}?{VERSION}")
        assert status == 401


def test_after_another_took_its_place(scene: Scene, gone: Busy, connect: Connect) -> None:
    """The machine is there again, with a new key: the old one is nobody's, also where nobody asked in between."""
    living, name = scene.living, gone.machine.name
    thief = connect(gone.context)
    assert thief.pulse() == 200
    file = living.credentials(f"{name}-again")
    living("container", "revoke", "-n", name, "--yes")
    again = register(Env(), gone.machine.home / "again", Credentials.read(file), name, {})
    owner = connect(again.context())
    assert owner.pulse() == 200

    until(lambda: thief.pulse() == 401, "the end of the old key")

    assert is_out(thief, gone)
    assert thief.agent("renew", renewal(gone.key))[0] == 401
    assert owner.pulse() == 200


def test_after_its_machine_was_taken_out(living: Living, connect: Connect) -> None:
    machine = living.machine(f"out{secrets.token_hex(3)}")
    hand = machine.hand()
    thief = connect(hand.identity.context())
    hand.close()
    status, _ = thief.agent("pulse", encode(Pulse(version="0", wait=2.0)))  # somebody has seen by then that it is there
    assert status == 200

    living("container", "unregister", "-n", machine.name, "--yes")

    until(lambda: thief.pulse() == 401, "the end of its certificate")


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


def test_certificates_of_other_authorities(scene: Scene, tmp_path: Path) -> None:
    """Also for a machine's own key, and of an authority that calls itself like the service's."""
    own = Authority(Env(), Issued(*[(scene.living.service.root / "tls" / f"ca.{end}").read_bytes()
                                    for end in ("pem", "key")]))  # fmt: skip
    name = own.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    for called in ("somebody", str(name)):
        context = certified(scene.living, tmp_path / "made", scene.mine.key, Authority.create(Env(), called))
        with unchanged(scene.living):
            assert let_in(scene.living, context) == 0
    assert let_in(scene.living, scene.mine.context) == 200


def test_certificates_of_the_services_authority_that_are_no_machines(scene: Scene, tmp_path: Path) -> None:
    living = scene.living
    with unchanged(living):
        assert let_in(living, certified(living, tmp_path / "new", ec.generate_private_key(ec.SECP256R1()))) == 401
        assert let_in(living, certified(living, tmp_path / "over", scene.mine.key, hours=0)) == 0
        tls = living.service.root / "tls"
        context = anonymous(living)
        context.load_cert_chain(tls / "server.pem", tls / "server.key")
        assert let_in(living, context) in (0, 401)


def test_a_machine_is_no_service(living: Living) -> None:
    """Its certificate vouches for no server, whatever the machine is called."""
    machine = living.machine("localhost")
    own = machine.home / "agent" / "state"
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(own / "machine.pem", own / "machine.key")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def serve() -> None:
            while True:
                try:
                    with listener.accept()[0] as one, context.wrap_socket(one, server_side=True) as secured:
                        secured.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                except ssl.SSLError:
                    continue
                except OSError:
                    return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        calls = Calls(Env(threads=0), f"https://localhost:{port}", Identity.load(Env(), own).context, patience=5.0)
        with pytest.raises(AccessDenied, match="is not to be trusted"):
            calls.post("pulse", b"")
        calls.close()
        tls = living.service.root / "tls" / "ca.pem"
        secret = living.root / "secret"
        secret.write_text("any")
        found = ("--endpoint", f"https://localhost:{port}", "--ca", tls, "--client-id", "any", "--secret-file", secret)
        assert "is not vouched for" in living("login", *found, code=5)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(30)


# Vault credentials


def test_credentials_that_were_used(scene: Scene, connect: Connect) -> None:
    """Nobody else gets in with them: not another machine, and not in the place of the one that did."""
    living = scene.living
    nobody = connect()
    file = living.root / "mine.json"
    with unchanged(living):
        for name in ("mine", "theirs", "new"):
            status, content = nobody.agent("register", registration(file, name))
            assert (status, b"already" in content) == (401, True)
    status, _ = nobody.agent("register", registration(file, "mine", scene.mine.key))
    assert status == 200  # the machine itself, whose answer was lost
    assert let_in(living, scene.mine.context) == 200


def test_credentials_whose_time_is_over(living: Living, connect: Connect) -> None:
    nobody = connect()
    file = living.credentials("late")
    given = Credentials.read(file)
    with living.plane.change() as change:
        mine = credential_rows.c.thumbprint == given.thumbprint.lower()
        past = datetime.now(UTC) - timedelta(seconds=1)
        change.connection.execute(credential_rows.update().where(mine).values(until=past))
    with unchanged(living):
        status, content = nobody.agent("register", registration(file, "late"))
    assert (status, b"ended at" in content) == (401, True)


def test_credentials_of_one_vault_are_none_of_another(scene: Scene, connect: Connect) -> None:
    """The key says which vault. Other credentials' names with it are as good as names of none."""
    living = scene.living
    nobody = connect()
    first, second = living.credentials("for-v1"), living.credentials("for-v2", vault="v2")
    other = Credentials.read(second).thumbprint.lower()
    with unchanged(living):
        asked = {nobody.agent("register", registration(first, "new", thumbprint=of)) for of in (other, "0" * 64)}
    assert len(asked) == 1
    assert asked.pop()[0] == 401
    made = register(Env(), living.root / "moved", Credentials.read(second), "moved", {})
    assert made.vault.endswith("/vaults/v2")
