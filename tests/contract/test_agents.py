# SPDX-License-Identifier: Apache-2.0
"""Machines and their identities over every database: who gets one, keeps it, and loses it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

from keepstone.catalogue import Database, agents, containers, credentials, jobs, outbox, vaults
from keepstone.control import agents as control
from keepstone.control import containers as machines
from keepstone.control.agents import Facts, Registered
from keepstone.control.plane import Place, Plane
from keepstone.errors import Conflict, InvalidRequest, KeepstoneError, NotEmpty, Unauthenticated
from keepstone.identity import Authority, key_id, new_credentials, thumbprint
from keepstone.jobs import BACKUP, JobQueue
from keepstone.vault import Container, Item, Stores, Vault

from .conftest import Clock

pytestmark = pytest.mark.service

DER = serialization.Encoding.DER
SYSTEM = {"os": "Linux", "release": "6.1", "python": "3.11.9", "cpus": 4, "capabilities": ["files", "images"]}
Key = ec.EllipticCurvePrivateKey


def new_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def request(key: Key) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "any")])
    return x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256()).public_bytes(DER)


def spki(key: Key) -> bytes:
    return key.public_key().public_bytes(DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def signed(key: Key, data: bytes) -> bytes:
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


@dataclass
class Machine:
    """A machine and what it asks for."""

    plane: Plane
    authority: Authority
    name: str = "web"
    key: Key = field(default_factory=new_key)

    def register(self, secret: tuple[str, Key], key: Key | None = None, **facts: Any) -> Registered:
        mark, private = secret
        csr = request(key or self.key)
        about = Facts(**{"name": self.name, "version": "0.2.0", "system": SYSTEM} | facts)
        with self.plane.change() as change:
            return control.register(change, self.authority, mark, csr, signed(private, csr), about)

    def renew(self, following: Key | None = None, by: Key | None = None, now: Key | None = None) -> Registered:
        now = now or self.key
        csr = request(following or now)
        with self.plane.change() as change:
            return control.renew(change, self.authority, spki(now), csr, signed(by or now, csr))

    def find(self, key: Key | None = None) -> Any:
        with self.plane.look() as connection:
            return control.find(connection, key_id((key or self.key).public_key()), self.plane.env.utc())


@pytest.fixture(scope="module")
def issued() -> Any:
    return Authority.create(Clock(), "Keepstone test").issued


@pytest.fixture
def authority(clock: Clock, issued: Any) -> Authority:
    return Authority(clock, issued)


@pytest.fixture
def plane(database: Database, queue: JobQueue, clock: Clock, tmp_path: Path) -> Plane:
    """Of vaults without stores: their journals stay in the outbox."""
    place = Place(str(uuid4()), str(uuid4()), "onprem1")
    return Plane(clock, database, queue, Stores(clock, tmp_path), place, tmp_path)


@pytest.fixture
def vault(plane: Plane) -> Vault:
    return new_vault(plane, "vault1")


def new_vault(plane: Plane, name: str) -> Vault:
    now = plane.env.utc()
    vault = Vault(
        id=uuid4(), subscription=plane.place.subscription, group_name="rg", name=name, location="onprem1",
        created=now, changed=now, properties={},
    )  # fmt: skip
    with plane.change() as change:
        change.insert(vault)
    return vault


@pytest.fixture
def machine(plane: Plane, authority: Authority) -> Machine:
    return Machine(plane, authority)


@pytest.fixture
def secret(plane: Plane, vault: Vault) -> Callable[..., tuple[str, Key]]:
    """Makes vault credentials: what they are known by, and their key."""

    def make(name: str = "one", days: int = 2, into: Vault | None = None) -> tuple[str, Key]:
        der, key = certificate(plane, name, days)
        with plane.change() as change:
            return control.enroll(change, into or vault, name, der).thumbprint, key

    return make


def certificate(plane: Plane, name: str = "one", days: int = 2) -> tuple[bytes, Key]:
    made = new_credentials(plane.env, name, days)
    key = serialization.load_pem_private_key(made.key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return x509.load_pem_x509_certificate(made.certificate).public_bytes(DER), key


Secret = Callable[..., tuple[str, Key]]


def item_of(plane: Plane, held: Container) -> Item:
    item = Item(
        id=uuid4(), vault=held.vault, container=held.id, name="FileFolder;1", friendly="/data", management="MAB",
        workload="FileFolder", state="Protected", source={"path": "/data"}, created=plane.env.utc(),
    )  # fmt: skip
    with plane.change() as change:
        change.insert(item)
    return item


# Credentials


def test_a_certificate_becomes_vault_credentials(plane: Plane, vault: Vault, clock: Clock) -> None:
    der, _ = certificate(plane, days=2)
    with plane.change() as change:
        made = control.enroll(change, vault, "one", der)
    assert (made.thumbprint, made.vault, made.name) == (thumbprint(der), vault.id, "one")
    assert (made.created, made.until, made.used) == (clock.now, clock.now + timedelta(days=2), None)
    clock.now += timedelta(hours=1)
    with plane.change() as change:
        again = control.enroll(change, vault, "one", der)
    assert (again.thumbprint, again.created, again.until) == (made.thumbprint, made.created, made.until)
    with plane.change() as change:
        long, _ = certificate(plane, "long", days=400)
        assert control.enroll(change, vault, "long", long).until == clock.now + timedelta(days=control.DAYS)


def test_certificates_that_are_refused(plane: Plane, vault: Vault, clock: Clock) -> None:
    der, _ = certificate(plane, days=1)
    with plane.change() as change:
        control.enroll(change, vault, "one", der)
    other = new_vault(plane, "vault2")
    with pytest.raises(Conflict, match="another vault"), plane.change() as change:
        control.enroll(change, other, "one", der)
    clock.now += timedelta(days=2)
    for data, message in ((b"no certificate", "cannot be read"), (der, "ended at 2026-11-27 12:00 UTC")):
        with pytest.raises(InvalidRequest, match=message), plane.change() as change:
            control.enroll(change, other, "one", data)


def test_new_credentials_of_a_name_take_the_place_of_unused_ones(
    machine: Machine, secret: Secret, plane: Plane
) -> None:
    used, lost, others = secret("mine"), secret("mine2"), secret("other")
    machine.register(used)
    assert len({used[0], lost[0], secret("MINE2")[0], secret("mine")[0]}) == 4

    with pytest.raises(Unauthenticated, match="not known"):
        machine.register(lost, new_key())
    with pytest.raises(Unauthenticated, match="has registered with"):
        machine.register(used, new_key())
    machine.name = "db"
    machine.register(others, new_key())


def test_old_credentials_are_forgotten(plane: Plane, secret: Secret, clock: Clock) -> None:
    secret(days=1)
    for days, left in ((30, 1), (2, 0)):
        clock.now += timedelta(days=days)
        with plane.change() as change:
            control.forget(change)
            assert change.connection.execute(sa.select(sa.func.count()).select_from(credentials)).scalar() == left


# Registration


def test_a_machine_registers(machine: Machine, secret: Secret, vault: Vault, clock: Clock) -> None:
    made = machine.register(secret(), system=SYSTEM | {"secret": "left out"})

    assert (made.vault.id, made.container.name, made.container.friendly) == (vault.id, "Windows;web", "web")
    assert (made.container.management, made.container.kind) == ("MAB", "Windows")
    leaf, ca = x509.load_pem_x509_certificates(made.certificate)
    assert ca == machine.authority.certificate
    leaf.verify_directly_issued_by(ca)
    assert leaf.public_key() == machine.key.public_key()
    assert leaf.subject.rfc4514_string() == "CN=web"
    agent = machine.find()
    assert agent == made.agent
    assert (agent.container, agent.vault, agent.key) == (
        made.container.id,
        vault.id,
        key_id(machine.key.public_key()),
    )
    assert agent.until == leaf.not_valid_after_utc == clock.now + timedelta(hours=control.HOURS)
    assert (agent.seen, agent.version, agent.system) == (clock.now, "0.2.0", SYSTEM)


def test_who_asks_again_is_answered_alike(machine: Machine, secret: Secret, clock: Clock) -> None:
    """As a machine does whose answer was lost."""
    given = secret()
    made = machine.register(given)
    clock.now += timedelta(minutes=5)

    again = machine.register(given)

    assert again.container.id == made.container.id
    assert again.agent.key == made.agent.key
    assert again.agent.until == made.agent.until + timedelta(minutes=5)
    assert machine.find() == again.agent
    with pytest.raises(Unauthenticated, match="has registered with the vault credentials 'one' at 2026-11-26 12:00"):
        machine.register(given, new_key())
    machine.name = "other"
    with pytest.raises(Unauthenticated, match="are for one"):
        machine.register(given, new_key())
    other = new_key()
    machine.register(secret("two"), other)
    with pytest.raises(Unauthenticated, match="are for one"):  # also for the key of a machine that there is
        machine.register(given, other)
    with machine.plane.change() as change:
        control.revoke(change, made.container)
    machine.name = "web"
    with pytest.raises(Unauthenticated, match="taken away at 2026-11-26 12:05 UTC"):
        machine.register(given)


def test_who_is_not_registered(machine: Machine, secret: Secret, plane: Plane, clock: Clock, vault: Vault) -> None:
    mark, private = secret(days=2)
    with pytest.raises(Unauthenticated, match="not known"):
        machine.register(("0" * 64, private))
    with pytest.raises(Unauthenticated, match="not those that signed"):
        machine.register((mark, new_key()))
    csr = request(machine.key)
    with pytest.raises(Unauthenticated), plane.change() as change:
        control.register(change, machine.authority, mark, csr, signed(private, request(new_key())), Facts(name="web"))
    bad = csr[:-1] + bytes([csr[-1] ^ 1])
    with pytest.raises(InvalidRequest, match="not signed by its own key"), plane.change() as change:
        control.register(change, machine.authority, mark, bad, signed(private, bad), Facts(name="web"))
    with plane.database.change() as connection:
        connection.execute(vaults.update().values(deleted=clock.now))
    with pytest.raises(Unauthenticated, match="vault of this machine was deleted"):
        machine.register((mark, private))
    clock.now += timedelta(days=2)
    with pytest.raises(Unauthenticated, match="'one' ended at 2026-11-28 12:00 UTC"):
        machine.register((mark, private))
    with plane.look() as connection:
        assert connection.execute(sa.select(containers)).first() is None
        assert connection.execute(sa.select(agents)).first() is None
    with pytest.raises(Unauthenticated, match="not registered"):
        machine.find()


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a;b", "-a", "a\n", "ä", "a" * 201, "..", "\0"])
def test_names_that_are_none(machine: Machine, secret: Secret, name: str) -> None:
    with pytest.raises(InvalidRequest, match="is no name of a machine"):
        machine.register(secret(), name=name)


@pytest.mark.parametrize(
    "facts",
    [
        {"system": {"os": {"a": "b"}}},
        {"system": {"os": "x" * 300}},
        {"system": {"release": "a\0b"}},
        {"system": {"capabilities": ["x"] * 65}},
        {"system": {"capabilities": [["x"]]}},
        {"system": {"python": "\ud800"}},
        {"version": "1\n2"},
    ],
    ids=repr,
)
def test_facts_that_are_none(machine: Machine, secret: Secret, facts: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="has to be a short text"):
        machine.register(secret(), **facts)


def test_credentials_with_an_rsa_key(machine: Machine, plane: Plane, vault: Vault) -> None:
    """Such as clients of Azure make."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "azure")])
    now = plane.env.utc()
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    der = builder.sign(key, hashes.SHA256()).public_bytes(DER)
    csr = request(machine.key)
    with plane.change() as change:
        mark = control.enroll(change, vault, "azure", der).thumbprint
        signature = key.sign(csr, padding.PKCS1v15(), hashes.SHA256())
        control.register(change, machine.authority, mark, csr, signature, Facts(name="web"))
    assert machine.find().version == ""


def test_nobody_takes_the_place_of_a_living_agent(machine: Machine, secret: Secret, clock: Clock) -> None:
    first = machine.register(secret("a"))
    clock.now += timedelta(days=40)  # however long it was not seen
    given = secret("b")
    for name in ("web", "WEB"):
        with pytest.raises(Conflict, match=r"'web' has an agent in vault 'vault1' \(it was last seen at 2026-11-26"):
            machine.register(given, new_key(), name=name)

    with machine.plane.change() as change:
        assert control.revoke(change, first.container)
        assert not control.revoke(change, first.container)
    with pytest.raises(Conflict, match="or was revoked; make a new one"):
        machine.register(given, machine.key)
    later = machine.register(given, new_key())  # which the refused tries have not used
    assert later.container.id == first.container.id
    with pytest.raises(Unauthenticated, match="not registered"):
        machine.find()


def test_a_key_is_of_one_machine(machine: Machine, secret: Secret) -> None:
    machine.register(secret("a"))
    with pytest.raises(Conflict, match="that of a machine already"):
        machine.register(secret("b"), name="other")


def test_the_same_name_in_two_vaults_is_two_machines(machine: Machine, secret: Secret, plane: Plane) -> None:
    first = machine.register(secret("a"))
    second = machine.register(secret("a", into=new_vault(plane, "vault2")), new_key())
    assert first.container.id != second.container.id


def test_many_at_once_with_the_same_credentials(machine: Machine, secret: Secret, plane: Plane) -> None:
    """One of them gets an identity, and nobody a fault."""
    given = secret()
    keys = [new_key() for _ in range(4)]
    made: list[Registered] = []
    refused: list[BaseException] = []
    barrier = threading.Barrier(len(keys))

    def run(key: Key) -> None:
        barrier.wait(30)
        try:
            made.append(machine.register(given, key))
        except BaseException as error:
            refused.append(error)

    _at_once(run, keys)

    assert len(made) == 1
    assert [type(error) for error in refused] == [Unauthenticated] * 3
    with plane.look() as connection:
        assert connection.execute(sa.select(agents.c.key)).scalars().all() == [made[0].agent.key]


def test_many_at_once_under_one_name(machine: Machine, secret: Secret, plane: Plane) -> None:
    given = [secret(f"c{number}") for number in range(4)]
    made: list[Registered] = []
    refused: list[BaseException] = []
    barrier = threading.Barrier(len(given))

    def run(one: tuple[str, Key]) -> None:
        barrier.wait(30)
        try:
            made.append(machine.register(one, new_key()))
        except BaseException as error:
            refused.append(error)

    _at_once(run, given)

    assert len(made) == 1
    assert [type(error) for error in refused] == [Conflict] * 3


def _at_once(run: Callable[[Any], None], arguments: list[Any]) -> None:
    threads = [threading.Thread(target=run, args=(one,)) for one in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


# Renewal


def test_a_machine_renews_its_certificate(machine: Machine, secret: Secret, clock: Clock) -> None:
    machine.register(secret())
    clock.now += timedelta(hours=20)
    made = machine.renew()
    assert made.agent.until == clock.now + timedelta(hours=24)
    assert made.agent.former is None
    assert machine.find() == made.agent


def test_also_long_after_its_end(machine: Machine, secret: Secret, clock: Clock) -> None:
    machine.register(secret())
    clock.now += timedelta(days=90)
    with pytest.raises(Unauthenticated, match="ended at 2026-11-27 12:00 UTC; it has to renew"):
        machine.find()
    machine.renew()
    machine.find()


def test_with_a_new_key(machine: Machine, secret: Secret, clock: Clock) -> None:
    machine.register(secret())
    old, new, newer = machine.key, new_key(), new_key()
    first = machine.renew(new)
    with pytest.raises(Unauthenticated, match="not registered"):
        machine.find(old)
    assert machine.find(new) == first.agent

    clock.now += timedelta(minutes=1)
    again = machine.renew(new, now=old)  # the answer was lost
    assert (again.agent.key, again.agent.former) == (first.agent.key, first.agent.former)
    with pytest.raises(Unauthenticated, match="not registered"):
        machine.renew(newer, now=old)
    machine.renew(newer, now=new)
    for gone in (old, new):
        with pytest.raises(Unauthenticated, match="not registered"):
            machine.renew(new, now=gone)
    machine.find(newer)


def test_who_gets_no_new_certificate(machine: Machine, secret: Secret, plane: Plane) -> None:
    made = machine.register(secret("a"))
    other = new_key()
    Machine(plane, machine.authority, "other").register(secret("b"), other)
    with pytest.raises(Unauthenticated, match="not signed by the machine's key"):
        machine.renew(by=new_key())
    with pytest.raises(Unauthenticated, match="not registered"):
        machine.renew(now=new_key())
    with pytest.raises(Conflict, match="that of another one"):
        machine.renew(other)
    with pytest.raises(InvalidRequest), plane.change() as change:
        control.renew(change, machine.authority, b"no key", request(other), b"")
    with plane.change() as change:
        control.revoke(change, made.container)
    with pytest.raises(Unauthenticated, match="taken away"):
        machine.renew()
    with pytest.raises(Unauthenticated, match="taken away"):
        machine.find()


# Revocation


def test_what_goes_with_an_identity(machine: Machine, secret: Secret, plane: Plane, queue: JobQueue) -> None:
    made = machine.register(secret())
    with plane.change() as change:
        job = queue.enqueue(change.connection, BACKUP, {}, vault=made.vault.id, machine=made.container.id)
    with plane.change() as change:
        assert control.revoke(change, made.container)
    with plane.look() as connection:
        found = connection.execute(sa.select(jobs.c.status, jobs.c.error).where(jobs.c.id == job)).one()
    assert found.status == "Cancelled"
    assert "the agent of 'web' was taken away" in found.error["message"]


def test_a_machine_that_is_taken_out(machine: Machine, secret: Secret, plane: Plane, queue: JobQueue) -> None:
    made = machine.register(secret())
    with plane.change() as change:
        job = queue.enqueue(change.connection, "Restore", {}, vault=made.vault.id, machine=made.container.id)
        control.dismiss(change, made.vault, made.container)
    with plane.look() as connection:
        assert connection.execute(sa.select(containers)).first() is None
        assert connection.execute(sa.select(agents)).first() is None
        assert connection.execute(sa.select(jobs.c.status).where(jobs.c.id == job)).scalar() == "Cancelled"
    with pytest.raises(Unauthenticated, match="not registered"):
        machine.find()


def test_one_with_items_loses_its_identity_alone(machine: Machine, secret: Secret, plane: Plane) -> None:
    made = machine.register(secret())
    item_of(plane, made.container)
    with pytest.raises(NotEmpty), plane.change() as change:
        machines.unregister(change, made.vault, made.container.name)
    machine.find()
    with plane.change() as change:
        control.dismiss(change, made.vault, made.container)
    with pytest.raises(Unauthenticated, match="taken away"):
        machine.find()
    with pytest.raises(NotEmpty), plane.change() as change:
        control.dismiss(change, made.vault, made.container)


def test_a_deleted_vault_lets_nobody_in(machine: Machine, secret: Secret, plane: Plane, clock: Clock) -> None:
    machine.register(secret())
    for deleted, is_in in ((clock.now, False), (None, True)):
        with plane.database.change() as connection:
            connection.execute(vaults.update().values(deleted=deleted))
        for ask in (machine.find, machine.renew):
            if is_in:
                ask()
                continue
            with pytest.raises(Unauthenticated):
                ask()


# Whose jobs are whose


def test_whose_agent_does_the_jobs_of_a_container(machine: Machine, secret: Secret, plane: Plane, vault: Vault) -> None:
    made = machine.register(secret("a"))
    with plane.change() as change:
        own = machines.register(change, vault, machines.local_name(), {"containerType": "Windows"})
        disk = machines.ensure(
            change, vault, "IaasVMContainer;x", "vm", "AzureIaasVM", "Microsoft.Compute/virtualMachines", {}
        )
    held = [made.container, own, disk]

    def found() -> list[UUID | None]:
        with plane.look() as connection:
            return list(control.machines_of(connection, held).values())

    assert found() == [made.container.id, None, None]
    local = machine.register(secret("b"), new_key(), name=machines.local_name().partition(";")[2])
    assert local.container.id == own.id
    held[1] = local.container
    assert found() == [made.container.id, own.id, None]

    with plane.change() as change:
        for one in (made.container, local.container):
            control.revoke(change, one)
    # What lies on the service's own machine is here; what lies elsewhere waits for the next agent there.
    assert found() == [made.container.id, None, None]
    with plane.look() as connection:
        assert control.machine_of(connection, local.container) is None
        assert control.serving(connection, local.container) is None
        assert control.machine_of(connection, made.container) == made.container.id
        with pytest.raises(Conflict, match="'web' has no agent; register it again"):
            control.serving(connection, made.container)


def test_jobs_of_a_rebuilt_vault_wait_for_their_machines(machine: Machine, secret: Secret, plane: Plane) -> None:
    """After which the agents are not known, but which machine is elsewhere is: the journal has its container."""
    made = machine.register(secret())
    with plane.database.change() as connection:
        connection.execute(agents.delete())
        bodies = connection.execute(sa.select(outbox.c.body)).scalars().all()
    assert b"Windows;web" in b"".join(bodies)
    assert made.agent.key.encode() not in b"".join(bodies)
    with plane.look() as connection:
        held = machines.find(connection, made.vault, "windows;WEB")
        assert control.machine_of(connection, held) == held.id
        with pytest.raises(Conflict, match="has no agent"):
            control.serving(connection, held)
    machine.register(secret("new"), new_key())
    with plane.look() as connection:
        assert control.serving(connection, held) == held.id


# Who was seen


def test_who_was_seen(machine: Machine, secret: Secret, plane: Plane, clock: Clock) -> None:
    keys = {name: new_key() for name in ("a", "b", "c")}
    made = {name: machine.register(secret(name), key, name=name) for name, key in keys.items()}
    later, earlier = clock.now + timedelta(minutes=1), clock.now - timedelta(minutes=1)
    with plane.database.change() as connection:
        control.seen(connection, {})
        control.seen(
            connection,
            {
                made["a"].container.id: (later, "0.3.0"),
                made["b"].container.id: (earlier, "0.1.0"),  # told late by another process
                uuid4(): (later, "0.3.0"),
            },
        )
    found = {name: machine.find(key) for name, key in keys.items()}
    assert (found["a"].seen, found["a"].version) == (later, "0.3.0")
    assert (found["b"].seen, found["b"].version) == (clock.now, "0.2.0")
    assert found["c"] == made["c"].agent
    with plane.look() as connection:
        held = [one.container for one in made.values()]
        assert set(control.of_containers(connection, held)) == {one.id for one in held}
        assert set(control.of_containers(connection, held[:1])) == {held[0].id}


def test_refusals_say_what_to_do(machine: Machine, secret: Secret) -> None:
    said: list[KeepstoneError] = []
    for ask in (machine.find, machine.renew, lambda: machine.register(("0" * 64, new_key()))):
        with pytest.raises(Unauthenticated) as refused:
            ask()
        said.append(refused.value)
    assert all("keepstone vault credentials download" in str(error) for error in said)
