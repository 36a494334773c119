# SPDX-License-Identifier: Apache-2.0
"""Machines with an agent: how one gets its identity, keeps it and loses it, and whose jobs it gets.

    vault credentials --register--> registered --renew--> registered --revoke--> revoked --register--> registered

Vault credentials are a key that somebody with a role gives to a machine; the vault knows the certificate. With them the
machine asks once for an identity of its own: a certificate for a key that it made and that never leaves it. A machine
is a container of its vault.

Invariants
* A machine has one agent at a time. Nobody takes the place of one that is not revoked, whatever credentials he has.
* Credentials are good for one machine, once, and for some days.
* Whoever asks again because an answer was lost gets the same identity again: it is the key that counts. So a machine
  keeps a new key before it asks for a certificate of it.
* Jobs of a machine that had an agent once never go to the server's workers, which would take the server's own folders
  for the machine's; nor do those of a virtual machine that is on such a machine, also when that was taken out of the
  vault. The server's own machine is the exception: its folders are the same for both.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from keepstone.catalogue import agents, containers, credentials, every, first, items, vaults
from keepstone.control import containers as machines
from keepstone.control import locks
from keepstone.control.plane import Change
from keepstone.errors import Conflict, InvalidRequest, Unauthenticated
from keepstone.identity import Authority, is_signed, key_id, read_certificate, read_key, read_request, thumbprint
from keepstone.vault import Agent, Container, Credential, Vault, folded

__all__ = [
    "DAYS",
    "HOURS",
    "SILENT",
    "Facts",
    "Registered",
    "changed_since",
    "count",
    "dismiss",
    "enroll",
    "find",
    "forget",
    "machine_of",
    "machines_of",
    "of_container",
    "of_containers",
    "register",
    "renew",
    "revoke",
    "seen",
    "serving",
]

DAYS = 10
"""How long vault credentials are good for at most, as in Azure."""
HOURS = 24
"""How long the certificate of a machine is good for."""
SILENT = timedelta(minutes=15)
"""After so long without a word from it, a machine counts as away."""
_MARK = "agent"  # among the properties of a container whose machine has had an agent
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
_FACTS = ("os", "release", "python", "cpus", "capabilities")
_LONGEST = 256  # characters of a fact
_MOST = 64  # parts of one
_KEPT = timedelta(days=30)
_STRANGE = (
    "the vault credentials are not known, or not those that signed the request; `keepstone vault credentials download` "
    "makes new ones"
)
_UNKNOWN = (
    "this machine is not registered here; register it with `keepstone agent register`, for which `keepstone vault "
    "credentials download` makes the file"
)
_NEW = "`keepstone vault credentials download` makes new ones"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a machine says of itself. `name`: its host name. `version`: of Keepstone there. `system`: os, release,
    python, cpus, capabilities; what else there is is left out."""

    name: str
    version: str = ""
    system: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """`certificate`: PEM, with that of the authority behind it."""

    certificate: bytes
    agent: Agent
    container: Container
    vault: Vault


def enroll(change: Change, vault: Vault, name: str, der: bytes) -> Credential:
    """Let whoever has the key of this certificate register a machine, until the certificate ends, for `DAYS` days at
    most. The same again changes nothing; another one of this name takes the place of those that nobody used.
    `InvalidRequest`, `Conflict`."""
    connection, now = change.connection, change.now
    locks.check_write(connection, vault.path)
    if not name or len(name) > 255:
        raise InvalidRequest("a certificate needs a name of 1 to 255 characters", target="certificateName")
    certificate, _ = read_certificate(der)
    end = certificate.not_valid_after_utc
    if end <= now:
        raise InvalidRequest(
            f"the certificate ended at {end:%Y-%m-%d %H:%M} UTC; make another one", target="properties.certificate"
        )
    there = first(connection, Credential, credentials.c.thumbprint == thumbprint(der))
    if there is not None:
        if there.vault != vault.id:
            raise Conflict("this certificate belongs to another vault; make one for each vault")
        return there
    unused = credentials.c.vault == vault.id, credentials.c.key == folded(name), credentials.c.used.is_(None)
    connection.execute(credentials.delete().where(*unused))
    made = Credential(
        thumbprint=thumbprint(der),
        vault=vault.id,
        name=name,
        certificate=der,
        created=now,
        until=min(end, now + timedelta(days=DAYS)),
    )
    change.insert(made)
    return made


def register(
    change: Change, authority: Authority, thumbprint: str, csr: bytes, signature: bytes, facts: Facts
) -> Registered:
    """Give a machine its identity. `thumbprint`: of the credentials; `csr`: PKCS #10 (DER) for the machine's new key;
    `signature`: over that, by the credentials' key. `Unauthenticated`, `InvalidRequest`; `Conflict` where the machine
    has an agent."""
    connection, now = change.connection, change.now
    credential = first(connection, Credential, credentials.c.thumbprint == thumbprint)
    if credential is None or not is_signed(read_certificate(credential.certificate)[1], signature, csr):
        raise Unauthenticated(_STRANGE)
    if credential.until <= now:
        raise Unauthenticated(
            f"the vault credentials '{credential.name}' ended at {credential.until:%Y-%m-%d %H:%M} UTC; {_NEW}"
        )
    vault = _locked(connection, credential.vault)
    credential = first(connection, Credential, credentials.c.thumbprint == thumbprint)  # as it is now
    if credential is None:
        raise Unauthenticated(_STRANGE)
    key = key_id(read_request(csr))
    _check_facts(facts)
    known = first(connection, Agent, agents.c.key == key)
    if credential.used is not None and (known is None or known.container != credential.container):
        raise Unauthenticated(
            f"a machine has registered with the vault credentials '{credential.name}' at "
            f"{credential.used:%Y-%m-%d %H:%M} UTC already, and they are for one; {_NEW}"
        )
    if credential.used is None:
        locks.check_write(connection, vault.path)
        container = _container(change, vault, facts)
        if known is not None:
            raise Conflict("this key is that of a machine already, or was revoked; make a new one")
        change.save(replace(credential, used=now, container=container.id))
        return _issue(change, authority, vault, container, csr, key, _about(facts))
    assert known is not None
    if known.revoked is not None:
        raise Unauthenticated(_revoked(known))
    return _issue(change, authority, vault, _held(connection, known), csr, key, known)


def renew(change: Change, authority: Authority, key: bytes, csr: bytes, signature: bytes) -> Registered:
    """Give a registered machine its next certificate, also after the end of the one before. `key`: the public key that
    it has now (SubjectPublicKeyInfo, DER); `csr`: for the same key or for its next one; `signature`: over that, by the
    key that it has now. `Unauthenticated`, `InvalidRequest`; `Conflict` for a key of another machine."""
    connection = change.connection
    if not is_signed(read_key(key), signature, csr):
        raise Unauthenticated("the request for a new certificate is not signed by the machine's key")
    now, following = key_id(read_key(key)), key_id(read_request(csr))
    again = sa.and_(agents.c.former == now, agents.c.key == following)
    agent = first(connection, Agent, sa.or_(agents.c.key == now, again))
    if agent is None:
        raise Unauthenticated(_UNKNOWN)
    vault = _locked(connection, agent.vault)
    agent = first(connection, Agent, agents.c.container == agent.container, sa.or_(agents.c.key == now, again))
    if agent is None or agent.revoked is not None:
        raise Unauthenticated(_UNKNOWN if agent is None else _revoked(agent))
    taken = first(connection, Agent, agents.c.key == following, agents.c.container != agent.container)
    if taken is not None:
        raise Conflict("the next key of this machine is that of another one already; make a new one")
    if following != agent.key:
        agent = replace(agent, former=agent.key)
    return _issue(change, authority, vault, _held(connection, agent), csr, following, agent)


def revoke(change: Change, container: Container) -> bool:
    """Take the identity of a machine away: it is not let in any more, and what it was to do is cancelled. Whether it
    had one. Its items and points stay; it may register again with new credentials."""
    agent = of_container(change.connection, container.id)
    if agent is None or agent.revoked is not None:
        return False
    change.save(replace(agent, revoked=change.now))
    message = f"the agent of '{container.friendly}' was taken away; register the machine again, and ask again"
    change.plane.queue.abandon(change.connection, container.id, message)
    return True


def dismiss(change: Change, vault: Vault, container: Container) -> None:
    """Take a machine out of its vault. Where it still has items, only its identity goes, so that they can be restored
    elsewhere, or taken over by the machine that registers under its name next. `NotEmpty` where it has items and no
    identity."""
    locks.check_delete(change.connection, f"{vault.path}/backupFabrics/Azure/protectionContainers/{container.name}")
    has_items = sa.select(items.c.id).where(items.c.container == container.id).limit(1)
    if change.connection.execute(has_items).first() is not None and revoke(change, container):
        return
    machines.unregister(change, vault, container.name)


def find(connection: sa.Connection, key: str, now: datetime) -> Agent:
    """Who has proved to have this key (`identity.key_id`). `Unauthenticated`: nobody who may come in."""
    row = connection.execute(_FIND, {"wanted": key}).first()
    if row is None:
        raise Unauthenticated(_UNKNOWN)
    agent = Agent(**row._mapping)
    if agent.revoked is not None:
        raise Unauthenticated(_revoked(agent))
    if agent.until <= now:
        raise Unauthenticated(
            f"the certificate of this machine ended at {agent.until:%Y-%m-%d %H:%M} UTC; it has to renew it first"
        )
    return agent


_FIND = (
    sa.select(agents)
    .join(vaults, vaults.c.id == agents.c.vault)
    .where(agents.c.key == sa.bindparam("wanted"), vaults.c.deleted.is_(None))
)


def changed_since(connection: sa.Connection, moment: datetime) -> dict[UUID, Hashable]:
    """The machines whose identity was given or taken away since then, or whose vault was deleted, by their containers;
    and something that is never the same after the next such change."""
    given = agents.c.until >= moment + timedelta(hours=HOURS)  # every certificate is good for as long
    changed = sa.or_(agents.c.revoked >= moment, vaults.c.deleted >= moment, given)
    query = sa.select(agents.c.container, agents.c.key, agents.c.revoked, agents.c.until, vaults.c.deleted)
    found = connection.execute(query.join(vaults, vaults.c.id == agents.c.vault).where(changed))
    return {row.container: tuple(row) for row in found}


def count(connection: sa.Connection) -> int:
    """How many machines have or had an agent: one less for each that was taken out of its vault."""
    return connection.execute(sa.select(sa.func.count()).select_from(agents)).scalar_one()


def seen(connection: sa.Connection, spoke: Mapping[UUID, tuple[datetime, str]]) -> None:
    """These machines (by their containers) spoke to the service: when last, and which version they are of."""
    rows = [{"machine": one, "moment": moment, "of": version[:64]} for one, (moment, version) in spoke.items()]
    if rows:
        connection.execute(_SEEN, rows)


_MOMENT = sa.bindparam("moment", type_=agents.c.seen.type)
_SEEN = (
    agents.update()
    .where(agents.c.container == sa.bindparam("machine"), sa.or_(agents.c.seen.is_(None), agents.c.seen < _MOMENT))
    .values(seen=_MOMENT, version=sa.bindparam("of"))
)


def machine_of(connection: sa.Connection, container: Container) -> UUID | None:
    """Whose agent is to do the jobs of a container's items; None: the server's workers."""
    return machines_of(connection, [container])[container.id]


def machines_of(connection: sa.Connection, held: Collection[Container]) -> dict[UUID, UUID | None]:
    """The same of several containers."""
    hosts = {one.id: _host(connection, one) for one in held}
    asked = [host.id for host in hosts.values() if host is not None and host.management == machines.AGENT]
    living = agents.c.revoked.is_(None), agents.c.container.in_(asked)
    found = set(connection.execute(sa.select(agents.c.container).where(*living)).scalars()) if asked else set()
    serve: dict[UUID, UUID | None] = {}
    for one, host in hosts.items():
        if host is None:
            serve[one] = one  # nobody's: what is asked of it waits until its host is back
        else:
            serve[one] = host.id if host.id in found or _is_elsewhere(host) else None
    return serve


def serving(connection: sa.Connection, container: Container) -> UUID | None:
    """The same, for what is asked for now. `Conflict` where nobody could do it: the machine has no agent any more."""
    host = _host(connection, container)
    if host is None:
        raise Conflict(
            f"'{container.friendly}' is on '{container.properties[machines.HOST]}', which is not registered any more; "
            "register that machine again, with `keepstone vault credentials download` here and `keepstone agent "
            "register` there"
        )
    if _is_elsewhere(host):
        agent = of_container(connection, host.id)
        if agent is None or agent.revoked is not None:
            raise Conflict(
                f"'{host.friendly}' has no agent; register it again, with `keepstone vault credentials download` "
                "here and `keepstone agent register` there"
            )
    return machine_of(connection, container)


def _host(connection: sa.Connection, container: Container) -> Container | None:
    """The machine that a container is on: of a virtual machine that of its hypervisor, where that is another one than
    the server's. None where it is not registered any more: it is not the server's for that."""
    name = container.properties.get(machines.HOST)
    if not isinstance(name, str):
        return container
    mine = containers.c.vault == container.vault, containers.c.key == folded(name)
    return first(connection, Container, *mine)


def of_container(connection: sa.Connection, container: UUID) -> Agent | None:
    """The agent that a machine has, or had; None where it never had one."""
    return first(connection, Agent, agents.c.container == container)


def of_containers(connection: sa.Connection, held: Iterable[Container]) -> dict[UUID, Agent]:
    """The agents of these containers that have one, by their containers."""
    mine = agents.c.container.in_([container.id for container in held])
    return {agent.container: agent for agent in every(connection, Agent, mine)}


def forget(change: Change) -> None:
    """Vault credentials that have ended for a month are of no use to anybody."""
    change.connection.execute(credentials.delete().where(credentials.c.until < change.now - _KEPT))


def _locked(connection: sa.Connection, vault: UUID) -> Vault:
    """The vault, which one registration at a time works with. `Unauthenticated` where it is gone."""
    connection.execute(sa.select(vaults.c.id).where(vaults.c.id == vault).with_for_update())
    found = first(connection, Vault, vaults.c.id == vault, vaults.c.deleted.is_(None))
    if found is None:
        raise Unauthenticated("the vault of this machine was deleted; register it with another one")
    return found


def _container(change: Change, vault: Vault, facts: Facts) -> Container:
    """The machine of this name, which has no agent now. `Conflict` where it has one."""
    name = f"{machines.MACHINE};{facts.name}"
    held = machines.ensure(change, vault, name, facts.name, machines.AGENT, machines.MACHINE, {})
    agent = of_container(change.connection, held.id)
    if agent is not None and agent.revoked is None:
        last = f"it was last seen at {agent.seen:%Y-%m-%d %H:%M} UTC" if agent.seen else "it was not seen yet"
        raise Conflict(
            f"'{held.friendly}' has an agent in vault '{vault.name}' ({last}). If that one is lost, take it away with "
            f"`keepstone container revoke -n {held.friendly}` and register again; if this is another machine, register "
            "it under another name"
        )
    if held.properties.get(_MARK) is not True:
        held = replace(held, properties={**held.properties, _MARK: True})
        change.save(held)
    return held


def _issue(
    change: Change,
    authority: Authority,
    vault: Vault,
    container: Container,
    csr: bytes,
    key: str,
    about: Agent | Mapping[str, Any],
) -> Registered:
    """A new certificate, and the row of its machine. `about`: the agent as it was, or what a new one says of itself."""
    certificate = authority.machine(csr, container.friendly, HOURS)
    until = certificate.not_valid_after_utc
    if isinstance(about, Agent):
        agent = replace(about, key=key, until=until)
    else:
        agent = Agent(container=container.id, vault=vault.id, key=key, until=until, seen=change.now, **about)
    change.save(agent)
    return Registered(certificate=_chain(certificate, authority), agent=agent, container=container, vault=vault)


def _chain(certificate: x509.Certificate, authority: Authority) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM) + authority.issued.certificate


def _held(connection: sa.Connection, agent: Agent) -> Container:
    held = first(connection, Container, containers.c.id == agent.container)
    assert held is not None  # it would have taken its agent with it
    return held


def _is_elsewhere(container: Container) -> bool:
    """Whether it is another machine than the server's, and so nothing of it lies here."""
    return container.properties.get(_MARK) is True and folded(container.name) != folded(machines.local_name())


def _about(facts: Facts) -> dict[str, Any]:
    """What is remembered of it."""
    return {"version": facts.version[:64], "system": {key: facts.system[key] for key in _FACTS if key in facts.system}}


def _check_facts(facts: Facts) -> None:
    if not _NAME.fullmatch(facts.name):
        raise InvalidRequest(
            f"{facts.name[:250]!r} is no name of a machine; it may have 200 letters of A to Z, digits, '.', '_' and "
            "'-', and begins with a letter or a digit",
            target="name",
        )
    for key, value in (("version", facts.version), *((f"system.{one}", facts.system.get(one)) for one in _FACTS)):
        parts = value if isinstance(value, (list, tuple)) else [value]
        if len(parts) > _MOST or not all(map(_is_plain, parts)):
            raise InvalidRequest(f"{key} has to be a short text, a number, or a list of them", target=key)


def _is_plain(value: object) -> bool:
    return value is None or (isinstance(value, (str, int)) and len(str(value)) <= _LONGEST and str(value).isprintable())


def _revoked(agent: Agent) -> str:
    return (
        f"the identity of this machine was taken away at {agent.revoked:%Y-%m-%d %H:%M} UTC; where it is to be "
        f"protected again, register it anew: {_NEW}"
    )
