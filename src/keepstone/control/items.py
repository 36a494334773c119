# SPDX-License-Identifier: Apache-2.0
"""Protected items, and what becomes of them.

    nothing      --protect-->     IRPending --its first point--> Protected
    Protected    --stop-->        ProtectionStopped or BackupsSuspended --resume--> Protected
    any of them  --delete-->      soft-deleted --undelete--> ProtectionStopped
    soft-deleted --time passes--> gone, with its points

IRPending and Protected are one state, told by whether there are points (`shown_state`). Each step leaves a job that
people see, and that is over with the request: only backups, restores and the removal of points are work for a worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from keepstone.catalogue import containers, every, first, items, one, points, vaults
from keepstone.catalogue import policies as stored
from keepstone.control import agents, alerts, jobs, locks, policies, schedules, sources, virtual_machines
from keepstone.control import containers as machines
from keepstone.control.plane import Change, Plane
from keepstone.errors import Conflict, GuardRefused, InvalidRequest, NotFound, Unsupported
from keepstone.jobs import BACKUP
from keepstone.vault import Container, Item, StoredPolicy, Vault, folded
from keepstone.vault.alerts import Kind
from keepstone.vault.properties import is_immutable, soft_delete

__all__ = [
    "PROTECTED",
    "PURGE",
    "STOPPED",
    "SUSPENDED",
    "back_up",
    "delete",
    "find",
    "get",
    "listing",
    "protect",
    "purge_due",
    "shown_state",
    "stop",
    "undelete",
    "work",
]

PROTECTED, STOPPED, SUSPENDED = "Protected", "ProtectionStopped", "BackupsSuspended"
PURGE = "PurgeBackupData"
"""The operation that removes the points of a deleted item, and the item."""
_PENDING = "IRPending"
_EXTENDED = "extendedProperties"  # which disks of a virtual machine are taken
_BATCH = 500


def get(connection: sa.Connection, identity: UUID) -> Item:
    """An item by its own id. `NotFound`."""
    item = first(connection, Item, items.c.id == identity)
    if item is None:
        raise NotFound(f"there is no item {identity}; it was removed meanwhile")
    return item


def find(connection: sa.Connection, vault: Vault, container: str, name: str) -> tuple[Container, Item]:
    """An item and what it is in. `NotFound`."""
    held = machines.find(connection, vault, container)
    item = one(connection, Item, container=held.id, key=folded(name))
    if item is None:
        error = NotFound(
            f"There is no protected item '{name}' in '{held.name}' of vault '{vault.name}'; `az backup item list` "
            "shows those "
            "that there are"
        )
        error.code = "BMSUserErrorProtectedItemNotFound"
        raise error
    return held, item


def listing(
    connection: sa.Connection, vault: Vault, where: list[sa.ColumnElement[bool]], limit: int, after: str = ""
) -> list[tuple[Item, Container, StoredPolicy | None]]:
    """Items of a vault with what they are in and the policies they have, by name; `after`: the place of the last one
    that was seen, `<key> <id>`."""
    mine = [items.c.vault == vault.id, *where]
    key, _, identity = after.rpartition(" ")
    if identity:
        mine.append(sa.tuple_(items.c.key, items.c.id) > sa.tuple_(sa.literal(key), sa.literal(UUID(identity))))
    found = every(connection, Item, *mine, order=(items.c.key, items.c.id), limit=limit)
    # What this page needs and no more: a vault may have ten thousand containers.
    held = every(connection, Container, containers.c.id.in_({item.container for item in found}))
    spoken = every(connection, StoredPolicy, stored.c.id.in_({item.policy for item in found}))
    holders = {container.id: container for container in held}
    known = {policy.id: policy for policy in spoken}
    return [(item, holders[item.container], known.get(item.policy) if item.policy else None) for item in found]


def shown_state(item: Item) -> str:
    """The state as clients see it: one without points waits for its first."""
    return _PENDING if item.state == PROTECTED and item.newest is None else item.state


def protect(
    change: Change, vault: Vault, container: str, name: str, properties: Mapping[str, Any], activity: str
) -> tuple[Item, UUID]:
    """Put something under a policy, or give it another policy; and the job that says so. `InvalidRequest`,
    `Unsupported`, `Conflict` for what is soft-deleted."""
    connection = change.connection
    locks.check_write(connection, vault.path)
    policy = policies.by_id(connection, vault, str(properties.get("policyId")))
    try:
        held, there = find(connection, vault, container, name)
    except NotFound:
        return _enable(change, vault, container, name, properties, policy, activity)
    if there.deleted is not None:
        raise Conflict(
            f"'{there.friendly}' is soft-deleted; take it back with `az backup protection undelete` and resume it then"
        )
    _check_kind(there.management, policy)
    source = there.source
    if any(key in properties for key in sources.OF_FILES):
        elsewhere = agents.machine_of(connection, held) is not None
        own = {"sourcePath": source["path"], "sourceType": source.get("sourceType")}
        wanted = sources.of_files({**own, **properties}, elsewhere=elsewhere)
        if wanted.document["path"] != source["path"]:
            raise InvalidRequest(
                f"this item is {source['path']}; protect another path as another item", target="properties.sourcePath"
            )
        if there.management == machines.AGENT and wanted.workload != there.workload:
            raise InvalidRequest(
                f"this item is protected as {there.workload}, and its points are of that; delete it first, to protect "
                f"it as {wanted.workload}",
                target="properties.sourceType",
            )
        source = wanted.document
    kept = there.properties
    if _EXTENDED in properties and virtual_machines.is_running(there):
        machine = virtual_machines.find(connection, kept.get("sourceResourceId"))
        chosen = virtual_machines.exclusion(machine, properties)
        source = {key: value for key, value in source.items() if key != "disks"} | chosen
        kept = {**kept, _EXTENDED: properties[_EXTENDED]}
    item = replace(there, policy=policy.id, state=PROTECTED, source=source, properties=kept)
    change.save(item)
    schedules.plan(change, item, policies.parsed(policy))
    return item, _done(change, held, item, "ConfigureBackup", activity, {"Policy Name": policy.name})


def stop(change: Change, vault: Vault, held: Container, item: Item, state: str, activity: str) -> tuple[Item, UUID]:
    """Make no new points. `ProtectionStopped` keeps those that there are for ever, `BackupsSuspended` as long as the
    policy says, which so stays the item's."""
    locks.check_write(change.connection, vault.path)
    if item.deleted is not None:
        raise Conflict(f"'{item.friendly}' is soft-deleted; there is nothing to stop")
    stopped = replace(item, state=state, policy=item.policy if state == SUSPENDED else None)
    change.save(stopped)
    schedules.drop(change, stopped)
    alerts.settle(change, item, Kind.BACKUP_FAILURE, Kind.ITEM_UNHEALTHY)
    return stopped, _done(change, held, stopped, "DisableBackup", activity, {})


def delete(change: Change, vault: Vault, held: Container, item: Item, activity: str) -> tuple[Item, UUID]:
    """Stop protection and delete the points: with soft delete they can be taken back for its days, and are removed
    then. `GuardRefused` where the vault is immutable and points have not reached their end."""
    path = f"{vault.path}/backupFabrics/Azure/protectionContainers/{held.name}/protectedItems/{item.name}"
    locks.check_delete(change.connection, path)
    if item.deleted is not None:
        raise Conflict(
            f"'{item.friendly}' is soft-deleted already; it goes for good on {item.purge:%Y-%m-%d %H:%M} UTC"
        )
    _check_removable(change, vault, item)
    now = change.now
    purge = now + timedelta(days=soft_delete(vault.properties).days)
    gone = replace(item, state=STOPPED, policy=None, deleted=now, purge=purge)
    change.save(gone)
    schedules.drop(change, gone)
    alerts.settle(change, item, Kind.BACKUP_FAILURE, Kind.ITEM_UNHEALTHY)
    until = f"it can be taken back until {purge:%Y-%m-%d %H:%M} UTC" if purge > now else "it is gone for good"
    alerts.security(
        change, vault, Kind.DATA_DELETED, f"the backup data of '{item.friendly}' was deleted; {until}", item
    )
    job = _done(change, held, gone, "DeleteBackupData", activity, {})
    if purge <= now:  # without soft delete
        work(change, vault, held, gone, PURGE, activity, {"part": ""})
    return gone, job


def undelete(change: Change, vault: Vault, held: Container, item: Item, activity: str) -> tuple[Item, UUID]:
    """Take a deletion back; the item is stopped then. `Conflict` where it is not deleted, or gone already."""
    locks.check_write(change.connection, vault.path)
    if item.deleted is None:
        raise Conflict(f"'{item.friendly}' is not deleted")
    if item.purge is not None and item.purge <= change.now:
        raise Conflict(f"the time in which '{item.friendly}' could be taken back is over")
    back = replace(item, state=STOPPED, deleted=None, purge=None)
    change.save(back)
    alerts.settle(change, item, Kind.DATA_DELETED, Kind.PURGE_UPCOMING)
    alerts.security(change, vault, Kind.DATA_UNDELETED, f"the deletion of '{item.friendly}' was taken back", item)
    return back, _done(change, held, back, "Undelete", activity, {})


def back_up(change: Change, vault: Vault, held: Container, item: Item, until: datetime | None, activity: str) -> UUID:
    """Ask for a backup now; its job. `until`: how long its point is kept, where that is not the policy's to say.
    `Conflict` where the item is not protected, its machine has no agent any more, or a backup of it goes on."""
    if item.deleted is not None or item.state != PROTECTED:
        raise Conflict(
            f"'{item.friendly}' is not protected: it is {'soft-deleted' if item.deleted else item.state}; resume "
            "it with "
            "`az backup protection resume`"
        )
    if until is not None and until <= change.now:
        raise InvalidRequest(
            f"the point would be over on {until:%Y-%m-%d}, before it is made; choose a later date",
            target="properties.recoveryPointExpiryTimeInUTC",
        )
    queue = change.plane.queue
    if queue.is_open(change.connection, item.id, BACKUP, "Full"):
        raise _in_progress(item)
    about = {"part": "Full", "until": until.isoformat() if until else None, "user": True}
    machine = agents.serving(change.connection, held)
    return work(change, vault, held, item, BACKUP, activity, about, machine)


def work(
    change: Change,
    vault: Vault,
    held: Container,
    item: Item,
    operation: str,
    activity: str,
    about: dict[str, Any],
    machine: UUID | None = None,
) -> UUID:
    """Ask for something; the job. `machine`: whose agent does it (`agents.serving`); None: a worker of the server."""
    arguments = jobs.about(held, item) | about
    return change.plane.queue.enqueue(
        change.connection, operation, arguments, vault=vault.id, item=item.id, machine=machine, activity=activity
    )


def purge_due(plane: Plane) -> int:
    """Ask for the removal of soft-deleted items whose time has passed; of how many."""
    asked = 0
    with plane.change() as change:
        connection = change.connection
        for item in every(connection, Item, items.c.purge <= change.now, limit=_BATCH):
            if plane.queue.is_open(connection, item.id, PURGE, ""):
                continue
            held = first(connection, Container, containers.c.id == item.container)
            vault = first(connection, Vault, vaults.c.id == item.vault)
            assert held is not None
            assert vault is not None
            work(change, vault, held, item, PURGE, "", {"part": ""})
            asked += 1
    return asked


def _enable(
    change: Change,
    vault: Vault,
    container: str,
    name: str,
    properties: Mapping[str, Any],
    policy: StoredPolicy,
    activity: str,
) -> tuple[Item, UUID]:
    kind, machine_id = folded(str(properties.get("protectedItemType", ""))), None
    if kind == "mabfilefolderprotecteditem":
        held = machines.register(change, vault, container, {"containerType": machines.MACHINE})
        machine_id = agents.serving(change.connection, held)
        if machine_id is None and folded(held.name) != folded(machines.local_name()):
            raise InvalidRequest(
                f"'{container}' is no machine with an agent, nor the one that the service runs on, "
                f"'{machines.local_name()}'",
                target="container",
            )
        source = sources.of_files(properties, elsewhere=machine_id is not None)
        wanted, management = sources.item_name(source.document["path"]), machines.AGENT
    elif kind == "microsoft.compute/virtualmachines":
        source = virtual_machines.source(change.connection, properties)
        machine = source.machine
        assert machine is not None
        if folded(machine.location) != folded(vault.location):
            raise InvalidRequest(
                f"virtual machine '{machine.name}' is in '{machine.location}' and the vault in '{vault.location}'",
                target="properties.sourceResourceId",
            )
        ending = f"iaasvmcontainerv2;{folded(machine.group_name)};{folded(machine.name)}"
        wanted, management = f"VM;{ending}", "AzureIaasVM"
        held = machines.ensure(
            change, vault, f"IaasVMContainer;{ending}", machine.name, management, machines.VIRTUAL_MACHINE,
            {"sourceResourceId": machine.path, **virtual_machines.host(machine)},
        )  # fmt: skip
        machine_id = agents.serving(change.connection, held)
        if folded(container) != folded(held.name):
            raise InvalidRequest(
                f"the container of this machine is '{held.name}', not '{container}'", target="container"
            )
    else:
        raise Unsupported(
            f"items of type {properties.get('protectedItemType')!r} are not part of this version; it protects "
            "folders, files and disks of machines (MabFileFolderProtectedItem), and virtual machines "
            "(Microsoft.Compute/virtualMachines)"
        )
    if machine_id is None:
        for path in virtual_machines.paths(source.document):
            change.plane.reach.check(path)
    if folded(name) != folded(wanted):
        raise InvalidRequest(
            f"the item is called '{wanted}', not '{name}'; its name follows from its source", target="name"
        )
    _check_kind(management, policy)
    about = {} if source.machine is None else {"sourceResourceId": source.machine.path}
    if "disks" in source.document:
        about[_EXTENDED] = properties[_EXTENDED]
    item = Item(
        id=change.plane.new_id(),
        vault=vault.id,
        container=held.id,
        name=wanted,
        friendly=source.friendly,
        management=management,
        workload=source.workload,
        state=PROTECTED,
        source=source.document,
        created=change.now,
        policy=policy.id,
        properties=about,
    )
    change.insert(item)
    schedules.plan(change, item, policies.parsed(policy))
    return item, _done(change, held, item, "ConfigureBackup", activity, {"Policy Name": policy.name})


def _check_kind(management: str, policy: StoredPolicy) -> None:
    if policy.management != management:
        raise InvalidRequest(
            f"policy '{policy.name}' is for {policy.management}, and this item is {management}; choose another policy",
            target="properties.policyId",
            code="BMSUserErrorInvalidPolicyId",
        )


def _check_removable(change: Change, vault: Vault, item: Item) -> None:
    """`GuardRefused` while points may not go."""
    now = change.now
    mine = points.c.item == item.id
    query = sa.select(sa.func.count(), sa.func.max(points.c.locked)).where(mine, points.c.locked > now)
    locked, latest = change.connection.execute(query).one()
    if locked:
        raise GuardRefused(f"{locked} points of '{item.friendly}' are locked until {latest:%Y-%m-%d %H:%M} UTC at most")
    if not is_immutable(vault.properties):
        return
    kept = change.connection.execute(
        sa.select(sa.func.count()).where(mine, sa.or_(points.c.until.is_(None), points.c.until > now))
    ).scalar_one()
    if kept:
        raise GuardRefused(
            f"vault '{vault.name}' is immutable, and {kept} points of '{item.friendly}' have not reached their "
            "end; stop its "
            "protection and retain the data instead"
        )


def _in_progress(item: Item) -> Conflict:
    error = Conflict(f"a backup of '{item.friendly}' is in progress or waits for its turn; wait for its job")
    error.code = "UserErrorBackupOperationInProgress"
    return error


def _done(change: Change, held: Container, item: Item, operation: str, activity: str, about: dict[str, Any]) -> UUID:
    """The job of something that the request itself has done."""
    arguments = jobs.about(held, item) | {"user": True, "properties": about}
    return change.plane.queue.record(
        change.connection, operation, arguments, vault=item.vault, item=item.id, activity=activity
    )
