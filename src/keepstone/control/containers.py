# SPDX-License-Identifier: Apache-2.0
"""Containers: what holds items. The machine that the service runs on is one, of the kind that Azure has for machines
with an agent; a virtual machine is one by itself. A hypervisor (`hypervisors.py`) holds none: its machines do."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from keepstone.catalogue import containers, every, first, items, one
from keepstone.catalogue.columns import alike
from keepstone.control import locks, resources
from keepstone.control.plane import Change
from keepstone.errors import InvalidRequest, NotEmpty, NotFound, Unsupported
from keepstone.vault import Container, Item, Resource, Vault, folded

__all__ = [
    "AGENT",
    "GENERIC",
    "HOST",
    "HYPERVISOR",
    "MACHINE",
    "VIRTUAL_MACHINE",
    "WORKLOAD",
    "WORKLOADS",
    "count",
    "counts",
    "ensure",
    "find",
    "listing",
    "local_name",
    "register",
    "unregister",
    "workload_name",
]

AGENT = "MAB"
MACHINE = "Windows"
"""containerType of a machine with an agent, whatever its system: clients know no other."""
VIRTUAL_MACHINE = "Microsoft.Compute/virtualMachines"
GENERIC = "DefaultBackup"
HYPERVISOR = "GenericContainer"
"""containerType of a hypervisor."""
WORKLOAD = "AzureWorkload"
WORKLOADS = "VMAppContainer"
"""containerType of a virtual machine with databases in it."""


HOST = "host"
"""The property of a virtual machine's container that names the one of its hypervisor's machine; without it that is the
service's own."""
_KEPT = ("sourceResourceId", "friendlyName", "workloadType", HOST)


def local_name() -> str:
    """What the container of this machine is called."""
    return f"{MACHINE};{socket.gethostname()}"


def find(connection: sa.Connection, vault: Vault, name: str) -> Container:
    """`NotFound`."""
    container = one(connection, Container, vault=vault.id, key=folded(name))
    if container is None:
        error = NotFound(
            f"There is no container '{name}' in vault '{vault.name}'; `az backup container list` shows those that "
            "there are"
        )
        error.code = "BMSUserErrorContainerNotFound"
        raise error
    return container


def listing(
    connection: sa.Connection,
    vault: Vault,
    *,
    management: str | None = None,
    friendly: str | None = None,
    kind: str | None = None,
    after: str = "",
    limit: int | None = None,
) -> list[Container]:
    """The containers of a vault by name; those that all of this is true of. `after`: the folded name of the last one
    that was seen."""
    wanted = {containers.c.management: management, containers.c.friendly: friendly, containers.c.kind: kind}
    where = [alike(column, value) for column, value in wanted.items() if value is not None]
    if after:
        where.append(containers.c.key > after)
    return every(connection, Container, containers.c.vault == vault.id, *where, order=containers.c.key, limit=limit)


def counts(connection: sa.Connection, of: Sequence[Container]) -> dict[UUID, int]:
    """How many items each of these containers holds, by its id; none for none."""
    mine = items.c.container.in_([container.id for container in of])
    query = sa.select(items.c.container, sa.func.count()).where(mine).group_by(items.c.container)
    return dict(connection.execute(query).all())


def count(connection: sa.Connection, container: Container) -> int:
    """How many items it holds."""
    query = sa.select(sa.func.count()).where(items.c.container == container.id)
    return connection.execute(query).scalar_one()


def register(change: Change, vault: Vault, name: str, properties: Mapping[str, Any]) -> Container:
    """Register a machine with the vault: the one that the service runs on, or a virtual machine for the databases in
    it. The same again changes nothing. `Unsupported` for other kinds, `InvalidRequest` for machines that register by
    their agents."""
    locks.check_write(change.connection, vault.path)
    kind = str(properties.get("containerType") or "")
    if folded(kind) == folded(WORKLOADS):
        return _register_workloads(change, vault, name, properties)
    if folded(kind) != folded(MACHINE):
        raise Unsupported(
            f"a container of type {kind or 'none'!r} cannot be registered in this version; this machine registers as "
            f"{MACHINE}, and a virtual machine with databases as {WORKLOADS}"
        )
    if folded(name) != folded(local_name()):
        there = first(change.connection, Container, containers.c.vault == vault.id, containers.c.key == folded(name))
        if there is None:
            raise InvalidRequest(
                f"'{name}' is another machine than the one that the service runs on, '{local_name()}'; it registers by "
                "itself, with `keepstone agent register` there, and the file of `keepstone vault credentials download`",
                target="containerName",
            )
        return there
    return ensure(change, vault, local_name(), socket.gethostname(), AGENT, MACHINE, properties)


def workload_name(machine: Resource) -> str:
    """What the container of the databases in a virtual machine is called."""
    return f"{WORKLOADS};Compute;{machine.group_name};{machine.name}"


def _register_workloads(change: Change, vault: Vault, name: str, properties: Mapping[str, Any]) -> Container:
    """A virtual machine for the databases in it. `InvalidRequest` where there is no such machine."""
    path = str(properties.get("sourceResourceId") or "")
    try:
        machine = resources.find(change.connection, path)
    except NotFound as error:
        raise InvalidRequest(str(error), target="properties.sourceResourceId", code="BMSUserErrorVMNotFound") from error
    if folded(machine.type) != folded(VIRTUAL_MACHINE) or folded(name) != folded(workload_name(machine)):
        raise InvalidRequest(
            f"the container of '{path}' is '{workload_name(machine)}', not '{name}'",
            target="properties.sourceResourceId",
        )
    kept = {"sourceResourceId": machine.path, "workloadType": properties.get("workloadType")}
    return ensure(change, vault, workload_name(machine), machine.name, WORKLOAD, WORKLOADS, kept)


def ensure(
    change: Change, vault: Vault, name: str, friendly: str, management: str, kind: str, properties: Mapping[str, Any]
) -> Container:
    """The container of this name, made where it is missing."""
    there = first(change.connection, Container, containers.c.vault == vault.id, containers.c.key == folded(name))
    if there is not None:
        return there
    container = Container(
        id=change.plane.new_id(),
        vault=vault.id,
        name=name,
        friendly=friendly,
        management=management,
        kind=kind,
        registered=change.now,
        properties={key: value for key, value in properties.items() if key in _KEPT},
    )
    change.insert(container)
    return container


def unregister(change: Change, vault: Vault, name: str) -> bool:
    """Remove a container that holds nothing, and its agent with it; whether there was one. `NotEmpty`."""
    if not name.strip():
        raise InvalidRequest("a container is named by its name", target="containerName")
    try:
        container = find(change.connection, vault, name)
    except NotFound:
        return False
    locks.check_delete(change.connection, f"{vault.path}/backupFabrics/Azure/protectionContainers/{container.name}")
    held = every(change.connection, Item, items.c.container == container.id, order=items.c.key, limit=1)
    if held:
        soft = "; it is soft-deleted, and goes when its time has passed" if held[0].deleted else ""
        raise NotEmpty(
            f"Container '{container.name}' still has '{held[0].friendly}'{soft}. Stop its protection and delete "
            "its data first"
        )
    message = f"'{container.friendly}' was taken out of vault '{vault.name}'; register it again, and ask again"
    change.plane.queue.abandon(change.connection, container.id, message)
    change.remove(container)
    return True
