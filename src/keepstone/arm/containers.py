# SPDX-License-Identifier: Apache-2.0
"""Containers: what holds items. Source: backup API 2024-04-01, ProtectionContainers, ProtectableContainers,
BackupProtectionContainers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from keepstone.arm.answers import accepted, moment, page, paged, skip_token
from keepstone.arm.filters import filter_of
from keepstone.arm.lro import CONTAINER, FABRIC, taken_on
from keepstone.arm.table import VAULT, Answer, Call, Table
from keepstone.arm.vaults import find
from keepstone.control import agents, containers, hypervisors, operations, resources
from keepstone.vault import Agent, Container, Resource, Vault, folded

__all__ = ["document", "path", "table"]

table = Table()
_VAULTS = "Microsoft.RecoveryServices/Vaults"
_CONTAINERS = f"{_VAULTS}/backupFabrics/protectionContainers"
_PAGE = 200
_KEYS = ("backupManagementType", "status", "friendlyName", "containerType", "backupEngineName", "fabricName")


@table("GET", f"{VAULT}/backupProtectionContainers", "backup_protection_containers.list",
       action=f"{_VAULTS}/backupProtectionContainers/read",
       az=("backup container list", "backup container show"))  # fmt: skip
def listing(call: Call) -> Answer:
    """Those that all of the filter is true of, page by page. All of them count as registered, also a machine whose
    agent was taken away: az always asks for registered ones, and would not find what that machine has."""
    wanted = filter_of(call, _KEYS)
    with call.plane.look() as connection:
        vault = find(call, connection)
        found = containers.listing(
            connection,
            vault,
            management=wanted.get("backupManagementType"),
            friendly=wanted.get("friendlyName"),
            kind=wanted.get("containerType"),
            after=skip_token(call),
            limit=_PAGE + 1,
        )
        counts = containers.counts(connection, found[:_PAGE])
        known = agents.of_containers(connection, found[:_PAGE])
    if folded(wanted.get("status", "Registered")) != "registered" or "backupEngineName" in wanted:
        found = []
    now = call.plane.env.utc()
    return paged(
        call,
        found,
        _PAGE,
        lambda one: one.key,
        lambda one: document(vault, one, counts.get(one.id, 0), known.get(one.id), now),
    )


@table("GET", f"{VAULT}/backupDeletedProtectionContainers", "deleted_protection_containers.list",
       action=f"{_VAULTS}/backupDeletedProtectionContainers/read",
       az=("backup vault list-soft-deleted-containers",))  # fmt: skip
def deleted(call: Call) -> Answer:
    """None: a container stays while it holds something, also something that is soft-deleted, and goes at once then."""
    filter_of(call, _KEYS)
    with call.plane.look() as connection:
        find(call, connection)
    return page([])


@table("GET", CONTAINER, "protection_containers.get", action=f"{_CONTAINERS}/read")
def get(call: Call) -> Answer:
    """`NotFound`."""
    with call.plane.look() as connection:
        vault = find(call, connection)
        container = containers.find(connection, vault, call.names["container"])
        count = containers.count(connection, container)
        agent = agents.of_container(connection, container.id)
    return Answer(body=document(vault, container, count, agent, call.plane.env.utc()))


@table("PUT", CONTAINER, "protection_containers.begin_register", action=f"{_CONTAINERS}/write",
       az=("backup container register", "backup container re-register"))  # fmt: skip
def register(call: Call) -> Answer:
    """202 with the container as its body: a client reads it."""
    name, properties = call.names["container"], call.part("properties")
    with call.plane.change() as change:
        vault = find(call, change.connection)
        if folded(str(properties.get("containerType"))) == folded(containers.HYPERVISOR):
            container = hypervisors.register(change, vault, name, properties, call.correlation)
        else:
            container = containers.register(change, vault, name, properties)
        agent = agents.of_container(change.connection, container.id)
        operation = operations.record(change, vault.id)
        body = document(vault, container, 0, agent, change.now)
    return taken_on(call, operation, path(vault, container), body)


@table("DELETE", CONTAINER, "protection_containers.unregister", action=f"{_CONTAINERS}/delete",
       az=("backup container unregister",))  # fmt: skip
def unregister(call: Call) -> Answer:
    """204 where there is none."""
    with call.plane.change() as change:
        vault = find(call, change.connection)
        if not containers.unregister(change, vault, call.names["container"]):
            return Answer(status=204)
        operation = operations.record(change, vault.id)
    return accepted(
        call,
        status=f"{vault.path}/backupFabrics/Azure/operationsStatus/{operation.id}",
        location=f"{vault.path}/backupOperationResults/{operation.id}",
    )


@table("POST", f"{CONTAINER}/inquire", "protection_containers.inquire", action=f"{_CONTAINERS}/inquire/action",
       az=("backup protectable-item initialize",))  # fmt: skip
def inquire(call: Call) -> Answer:
    """Look for what could be protected: there is nothing to wait for."""
    with call.plane.change() as change:
        vault = find(call, change.connection)
        container = containers.find(change.connection, vault, call.names["container"])
        operation = operations.record(change, vault.id)
    return taken_on(call, operation, path(vault, container))


@table("POST", f"{FABRIC}/refreshContainers", "protection_containers.refresh",
       action=f"{_VAULTS}/backupFabrics/refreshContainers/action",
       az=("backup container register", "backup protection enable-for-vm"))  # fmt: skip
def refresh(call: Call) -> Answer:
    """Look for what could be protected or registered: the operation is over when the hypervisors were looked at."""
    with call.plane.change() as change:
        vault = find(call, change.connection)
        asked = hypervisors.ask(change, vault, call.correlation)
        job, beside = next(iter(asked), None), asked[1:]
        operation = operations.record(change, vault.id, job=job, beside=beside, wait=bool(asked))
    return taken_on(call, operation, f"{vault.path}/backupFabrics/Azure")


@table("GET", f"{FABRIC}/protectableContainers", "protectable_containers.list",
       action=f"{_VAULTS}/backupFabrics/protectableContainers/read", az=("backup container register",))  # fmt: skip
def protectable(call: Call) -> Answer:
    """Virtual machines that could be registered for the databases in them."""
    wanted = filter_of(call, _KEYS)
    if folded(wanted.get("backupManagementType", containers.WORKLOAD)) != folded(containers.WORKLOAD):
        return page([])
    with call.plane.look() as connection:
        vault = find(call, connection)
        machines = resources.listing(connection, vault.subscription, kind=containers.VIRTUAL_MACHINE)
        registered = containers.listing(connection, vault, management=containers.WORKLOAD)
    taken = {folded(container.name) for container in registered}
    names = {containers.workload_name(machine): machine for machine in machines}
    return page([_protectable(vault, name, machine) for name, machine in names.items() if folded(name) not in taken])


def path(vault: Vault, container: Container) -> str:
    """The resource id of a container."""
    return f"{vault.path}/backupFabrics/Azure/protectionContainers/{container.name}"


def _protectable(vault: Vault, name: str, machine: Resource) -> dict[str, Any]:
    return {
        "id": f"{vault.path}/backupFabrics/Azure/protectableContainers/{name}",
        "name": name,
        "type": "Microsoft.RecoveryServices/vaults/backupFabrics/protectableContainers",
        "properties": {
            "protectableContainerType": containers.WORKLOADS,
            "friendlyName": machine.name,
            "backupManagementType": containers.WORKLOAD,
            "healthStatus": "Healthy",
            "containerId": machine.path,
        },
    }


def document(vault: Vault, container: Container, count: int, agent: Agent | None, now: datetime) -> dict[str, Any]:
    """A container as clients see it. `count`: how many items it holds; `agent`: the one that it has or had."""
    properties: dict[str, Any] = {
        "containerType": container.kind,
        "friendlyName": container.friendly,
        "backupManagementType": container.management,
        "registrationStatus": "Registered",
        "healthStatus": "Healthy",
        "protectableObjectType": container.kind,
    }
    if container.management == containers.AGENT:
        properties |= {
            "canReRegister": False,
            "containerId": container.id.int & 0x7FFFFFFFFFFFFFFF,
            "protectedItemCount": count,
            "agentVersion": "Keepstone",
            "extendedInfo": None,
            "mabContainerHealthDetails": [],
            "containerHealthState": "Healthy",
        }
        if agent is not None:
            properties |= _of_agent(agent, now)
    elif container.management == containers.WORKLOAD:
        properties |= {
            "sourceResourceId": container.properties.get("sourceResourceId"),
            "workloadType": container.properties.get("workloadType"),
            "lastUpdatedTime": moment(container.registered),
            "operationType": "Register",
            "extendedInfo": {
                "hostServerName": container.friendly,
                "inquiryInfo": {"status": "Success", "inquiryDetails": []},
                "nodesList": [],
            },
        }
    elif container.kind == containers.HYPERVISOR:
        properties |= {
            "fabricName": "Azure",
            "extendedInformation": {"serviceEndpoints": hypervisors.endpoints(container)},
        }
    else:
        machine = container.properties.get("sourceResourceId", "")
        properties |= {
            "virtualMachineId": machine,
            "virtualMachineVersion": "Compute",
            "resourceGroup": machine.split("/")[4] if machine.count("/") > 4 else None,
        }
    return {
        "id": path(vault, container),
        "name": container.name,
        "type": "Microsoft.RecoveryServices/vaults/backupFabrics/protectionContainers",
        "properties": properties,
    }


def _of_agent(agent: Agent, now: datetime) -> dict[str, Any]:
    """What a machine with an agent shows of it."""
    wrong = _wrong(agent, now)
    health = "Healthy" if wrong is None else "Unhealthy"
    shown = {
        "registrationStatus": "Registered" if agent.revoked is None else "NotRegistered",
        "healthStatus": health,
        "containerHealthState": health,
        "mabContainerHealthDetails": [] if wrong is None else [wrong],
        "canReRegister": agent.revoked is not None,
        "agentVersion": agent.version,
        "extendedInfo": {"lastRefreshedAt": moment(agent.seen)},
    }
    own = {"lastSeen": moment(agent.seen), "revoked": moment(agent.revoked), "certificateEnds": moment(agent.until)}
    return shown | {"keepstone": own | {"system": agent.system}}


def _wrong(agent: Agent, now: datetime) -> dict[str, Any] | None:
    """Why nobody answers for this machine."""
    if agent.revoked is not None:
        title, message = "AgentRevoked", f"its agent was taken away at {agent.revoked:%Y-%m-%d %H:%M} UTC"
        todo = "make new credentials with `keepstone vault credentials download`, and register it again with them"
    elif agent.seen is None or now - agent.seen > agents.SILENT:
        last = "was not seen yet" if agent.seen is None else f"was last seen at {agent.seen:%Y-%m-%d %H:%M} UTC"
        title, message = "AgentNotReachable", f"its agent {last}"
        todo = "see that the machine is on, that `keepstone agent run` runs there, and that it reaches this service"
    else:
        return None
    return {"code": _CODES[title], "title": title, "message": message, "recommendations": [todo]}


_CODES = {"AgentRevoked": 1, "AgentNotReachable": 2}  # numbers of our own: Azure's are nowhere published
