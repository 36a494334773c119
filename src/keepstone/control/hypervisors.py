# SPDX-License-Identifier: Apache-2.0
"""Hypervisors: hosts that register with a vault, and whose virtual machines become resources that it can protect.

A hypervisor is a container of its vault, of the kind that Azure has for whatever is none of its own
(`GenericContainer`); where its machines are found are its `serviceEndpoints`:

    qemu             a folder with a monitor for each machine (`NAME.qmp`), and its agent's socket (`NAME.qga`); or
    libvirt          the URI of a libvirt
    resourceGroup    where its machines are as resources; the vault's own group where it is missing
    host             the container of the machine that it is on, whose agent looks; the service's machine without it

A job looks for machines: when it registers, when a client asks what could be protected (`refreshContainers`), and
every hour. A machine that is not found any more stays a resource, for it may be off; somebody deletes it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from uuid import UUID

import sqlalchemy as sa

from keepstone.catalogue import containers, every, first, jobs, vaults
from keepstone.control import agents, groups, locks, resources, virtual_machines
from keepstone.control import containers as holders
from keepstone.control.plane import Change, Plane
from keepstone.errors import Conflict, InvalidRequest, KeepstoneError, NotFound, UsageError
from keepstone.jobs import Status
from keepstone.vault import Container, Resource, Vault, folded
from keepstone.workloads.hypervisors import socket_of

if TYPE_CHECKING:
    from keepstone.workloads.hypervisors.discovery import Found

__all__ = [
    "DISCOVER",
    "ask",
    "ask_all",
    "endpoints",
    "is_here",
    "machines",
    "note",
    "of_vault",
    "register",
    "strays",
    "told",
]

DISCOVER = "DiscoverMachines"
"""The operation of the job."""
_EXTENDED, _ENDPOINTS = "extendedInformation", "serviceEndpoints"
_QEMU, _LIBVIRT, _GROUP = "qemu", "libvirt", "resourceGroup"
_PLACES = (_QEMU, _LIBVIRT)
_MOST = 1000  # machines that an agent tells of
_NEAR = timedelta(minutes=2)  # within which an agent was heard of, to be waited for
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")


def register(change: Change, vault: Vault, name: str, properties: Mapping[str, Any], activity: str) -> Container:
    """Register one, or give one other endpoints, and ask for its machines. `InvalidRequest`; `GuardRefused` where the
    service's workers may not go there."""
    locks.check_write(change.connection, vault.path)
    prefix, _, own = name.partition(";")
    if folded(prefix) != folded(holders.HYPERVISOR) or not _NAME.fullmatch(own):
        raise InvalidRequest(
            f"a hypervisor's container is called '{holders.HYPERVISOR};NAME', of letters, digits, '.', '_' and '-'; "
            f"not '{name}'",
            target="containerName",
        )
    told = _endpoints(change, vault, properties)
    held = holders.ensure(change, vault, f"{holders.HYPERVISOR};{own}", own, holders.GENERIC, holders.HYPERVISOR, {})
    held = replace(held, properties={_ENDPOINTS: told})
    change.save(held)
    ask(change, vault, activity)
    return held


def _endpoints(change: Change, vault: Vault, properties: Mapping[str, Any]) -> dict[str, str]:
    target = f"properties.{_EXTENDED}.{_ENDPOINTS}"
    extended = properties.get(_EXTENDED)
    told = extended.get(_ENDPOINTS) if isinstance(extended, dict) else None
    if not isinstance(told, dict) or not all(isinstance(value, str) for value in told.values()):
        raise InvalidRequest(f"{target} says where the hypervisor's machines are; it is missing", target=target)
    places = [key for key in _PLACES if key in told]
    unknown = sorted(set(told) - {*_PLACES, _GROUP, holders.HOST})
    if unknown or len(places) != 1:
        raise InvalidRequest(
            f"{target} has to have one of {' and '.join(_PLACES)}, a folder of monitors or a URI; it may have {_GROUP} "
            f"and {holders.HOST}" + (f"; not {', '.join(unknown)}" if unknown else ""),
            target=target,
        )
    (kind,) = places
    place = told[kind]
    if kind == _LIBVIRT:
        try:
            place = str(socket_of(place))
        except UsageError as error:
            raise InvalidRequest(str(error), target=f"{target}.{kind}") from error
    elif not PurePosixPath(place).is_absolute() or "\0" in place:
        raise InvalidRequest(f"{target}.{kind} is {place!r}; name an absolute folder", target=f"{target}.{kind}")
    if holders.HOST in told:
        there = holders.find(change.connection, vault, told[holders.HOST])
        if agents.serving(change.connection, there) is None and folded(there.name) != folded(holders.local_name()):
            raise InvalidRequest(f"'{there.name}' is no machine with an agent", target=f"{target}.{holders.HOST}")
    else:
        change.plane.reach.check(place)
    groups.find(change.connection, vault.subscription, told.get(_GROUP, vault.group_name))
    return {key: told[key] for key in (kind, _GROUP, holders.HOST) if key in told}


def endpoints(hypervisor: Container) -> dict[str, str]:
    """As they were given."""
    return dict(hypervisor.properties.get(_ENDPOINTS) or {})


def is_here(hypervisor: Container) -> bool:
    """Whether it is on the service's machine."""
    return holders.HOST not in endpoints(hypervisor)


def machines(plane: Plane, hypervisor: Container, warn: Callable[[str], None]) -> Iterator[Found]:
    """Look at what one has. `GuardRefused` where the service may not go there, and what looking raises."""
    from keepstone.workloads.hypervisors.discovery import discover_domains, discover_monitors

    told = endpoints(hypervisor)
    if _LIBVIRT in told:
        plane.reach.check(socket_of(told[_LIBVIRT]))
        return discover_domains(told[_LIBVIRT])
    plane.reach.check(told[_QEMU])
    return discover_monitors(plane.env, Path(told[_QEMU]), warn)


def of_vault(connection: sa.Connection, vault: Vault) -> list[Container]:
    """Those of a vault, by name."""
    return holders.listing(connection, vault, kind=holders.HYPERVISOR)


def strays(connection: sa.Connection, vault: Vault) -> list[Resource]:
    """The machines of its subscription that somebody made by their addresses, and no hypervisor has told of."""
    found = resources.listing(connection, vault.subscription, kind=resources.MACHINE)
    told = [(one, one.properties.get(virtual_machines.BEHIND)) for one in found]
    return [one for one, behind in told if isinstance(behind, dict) and "hypervisor" not in behind]


def ask(change: Change, vault: Vault, activity: str = "") -> list[UUID]:
    """Ask for a look at what the hypervisors of a vault have; the jobs of that, but for those of agents that were not
    heard of for two minutes: nobody knows when they look. What was asked for and has not begun is not asked for
    again."""
    connection = change.connection
    known = of_vault(connection, vault)
    asked = []
    if any(is_here(one) for one in known) or strays(connection, vault):
        asked.append(_asked(change, vault, {}, None, activity))
    for one in known:
        if not is_here(one):
            with contextlib.suppress(NotFound, Conflict):  # its machine was unregistered, or has no agent any more
                host = holders.find(connection, vault, endpoints(one)[holders.HOST])
                agent = agents.serving(connection, host)
                about = {"hypervisor": one.name, "machine": host.friendly}
                job = _asked(change, vault, about, agent, activity)
                known_agent = agents.of_container(connection, host.id)
                if known_agent is None or (known_agent.seen and change.now - known_agent.seen < _NEAR):
                    asked.append(job)
    return asked


def _asked(change: Change, vault: Vault, about: dict[str, Any], machine: UUID | None, activity: str) -> UUID:
    mine = jobs.c.vault == vault.id, jobs.c.operation == DISCOVER, jobs.c.status == Status.QUEUED
    waiting = change.connection.execute(sa.select(jobs.c.id, jobs.c.arguments).where(*mine)).all()
    for job, arguments in waiting:
        if arguments.get("hypervisor") == about.get("hypervisor"):
            there: UUID = job
            return there
    arguments = {"entity": vault.name, "user": bool(activity), **about}
    return change.plane.queue.enqueue(
        change.connection, DISCOVER, arguments, vault=vault.id, machine=machine, priority=1, activity=activity
    )


def told(change: Change, vault: UUID, name: str, found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keep what an agent told of a hypervisor, as far as it can be read; what is wrong with the rest."""
    from keepstone.workloads.hypervisors.discovery import read_found

    owner = first(change.connection, Vault, vaults.c.id == vault)
    mine = containers.c.vault == vault, containers.c.key == folded(name)
    hypervisor = first(change.connection, Container, *mine)
    if owner is None or hypervisor is None:
        return ["the hypervisor was unregistered meanwhile"]
    warnings: list[str] = []
    readable: list[Found] = []
    for one in found[:_MOST]:
        try:
            readable.append(read_found(one))
        except UsageError as error:
            warnings.append(f"what the agent tells of a machine cannot be read: {error}")
    return warnings + note(change, owner, hypervisor, readable)


def ask_all(plane: Plane) -> None:
    """The same for every vault that has hypervisors."""
    with plane.change() as change:
        held = sa.select(containers.c.vault).where(containers.c.kind == holders.HYPERVISOR)
        for vault in every(change.connection, Vault, vaults.c.deleted.is_(None), vaults.c.id.in_(held)):
            ask(change, vault)


def note(change: Change, vault: Vault, hypervisor: Container, found: Iterable[Found]) -> list[str]:
    """Make machines resources, or bring those that they are up to date; why some cannot be one. A machine that somebody
    made by its address, or restored, is that resource, in whatever group it is and whatever it is called."""
    made = {_where(one.properties[virtual_machines.BEHIND]): one for one in strays(change.connection, vault)}
    said = (_noted(change, vault, hypervisor, one, made) for one in found)
    return [why for why in said if why]


def _noted(
    change: Change, vault: Vault, hypervisor: Container, found: Found, made: Mapping[tuple[str, ...], Resource]
) -> str:
    place = endpoints(hypervisor)
    group = place.get(_GROUP, vault.group_name)
    name = _UNFIT.sub("-", found.name).strip("-.")[:64] or "machine"
    path = f"/subscriptions/{vault.subscription}/resourceGroups/{group}/providers/{resources.MACHINE}/{name}"
    told = {"hypervisor": hypervisor.name, **found.address.document}
    if holders.HOST in place:
        told[holders.HOST] = place[holders.HOST]
    there = None
    with contextlib.suppress(NotFound):
        there = resources.find(change.connection, path)
    if there is None or not _is_at(there, told):
        there = made.get(_where(told), there)
    try:
        if there is None:
            there, _ = resources.put(
                change, vault.subscription, group, resources.MACHINE, name, vault.location,
                {virtual_machines.BEHIND: told}, {},
            )  # fmt: skip
    except KeepstoneError as error:  # such as a group that is gone, or locked
        return f"the machine at {told['machine']} does not become a resource: {error}"
    if not _is_at(there, told):
        return f"the machine at {told['machine']} is called '{found.name}', and '{path}' is another one; rename one"
    virtual_machines.noted(change, there, found)
    return ""


def _where(told: Mapping[str, Any]) -> tuple[str, ...]:
    """What of an address tells machines apart. People may have written anything into it."""
    return tuple(str(told.get(key)) for key in ("machine", "connect", holders.HOST))


def _is_at(machine: Resource, told: Mapping[str, Any]) -> bool:
    behind = machine.properties.get(virtual_machines.BEHIND)
    return isinstance(behind, dict) and _where(behind) == _where(told)
