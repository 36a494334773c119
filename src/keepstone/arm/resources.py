# SPDX-License-Identifier: Apache-2.0
"""What stands around a vault: virtual machines, storage accounts, networks, managed identities. Clients look them up
before they ask a vault for something. Source: Microsoft.Resources, Resources 2024-11-01; each type's own API has the
same envelope."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from keepstone.arm.answers import moment, page, paged, skip_token
from keepstone.arm.authorization import RESOURCE
from keepstone.arm.cloud import known_subscription
from keepstone.arm.filters import filter_of
from keepstone.arm.table import GROUP, SUBSCRIPTION, VAULT, Answer, Call, Table
from keepstone.control import people, resources, vaults
from keepstone.errors import InvalidRequest, NotFound
from keepstone.vault import Resource, Vault, folded

__all__ = ["table"]

table = Table()
_VAULTS = "Microsoft.RecoveryServices/vaults"
_READ = "Microsoft.Resources/subscriptions/resources/read"
_KEYS = ("resourceType", "resourceGroup", "name", "location", "tagName", "tagValue")
_PAGE = 1000
# What stands beside the properties of some, and comes back as it was sent.
_BESIDE: dict[str, tuple[type, str]] = {
    "sku": (dict, "an object"),
    "kind": (str, "a text"),
    "zones": (list, "a list of texts"),
}
_LONGEST = 255  # characters of a kind
# By type: what the SDK calls its operations, and az its commands.
_TYPES = {
    resources.MACHINE: ("virtual_machines", "vm"),
    resources.STORAGE: ("storage_accounts", "storage account"),
    resources.NETWORK: ("virtual_networks", "network vnet"),
    resources.IDENTITY: ("user_assigned_identities", "identity"),
}


@table("GET", f"{SUBSCRIPTION}/resources", "resources.list", action=_READ, filtered=True, az=("resource list",))
@table("GET", f"{GROUP}/resources", "resources.list_by_resource_group", action=_READ, filtered=True,
       az=("resource list -g",))  # fmt: skip
def everything(call: Call) -> Answer:
    """The resources that the client may see, vaults among them; those that all of the filter is true of."""
    wanted = {key: folded(value) for key, value in filter_of(call, _KEYS).items()}
    with call.plane.look() as connection:
        found = resources.everything(connection, known_subscription(call), group=call.names.get("group"))
    seen = [one for one in found if _may_read(call, one) and _is_wanted(one, wanted)]
    last = skip_token(call)
    rest = [one for one in seen if folded(one.path) > last]
    return paged(call, rest[: _PAGE + 1], _PAGE, lambda one: folded(one.path), _summary)


def listing(call: Call, kind: str) -> Answer:
    """Those of this type that the client may see."""
    with call.plane.look() as connection:
        found = resources.listing(connection, known_subscription(call), group=call.names.get("group"), kind=kind)
    return page([_document(one) for one in found if _may_read(call, one)])


def get(call: Call, kind: str) -> Answer:
    """As it was put there. `NotFound`."""
    with call.plane.look() as connection:
        return Answer(body=_document(resources.find(connection, _path(call, kind))))


def exists(call: Call, kind: str) -> Answer:
    """204 or 404, neither with a body."""
    try:
        get(call, kind)
    except NotFound:
        return Answer(status=404)
    return Answer(status=204)


def put(call: Call, kind: str) -> Answer:
    """A new one, which is 201, or everything of one that there is."""
    location = call.document().get("location") or ""
    if not isinstance(location, str):
        raise InvalidRequest("location has to be a text", target="location")
    with call.plane.change() as change:
        made, new = resources.put(
            change,
            known_subscription(call),
            call.names["group"],
            kind,
            call.names["name"],
            location,
            call.part("properties"),
            call.tags(),
            _beside(call),
        )
    return Answer(status=201 if new else 200, body=_document(made))


def patch(call: Call, kind: str) -> Answer:
    """What is sent is laid over what is there; tags are replaced as a whole."""
    with call.plane.change() as change:
        there = resources.find(change.connection, _path(call, kind))
        made, _ = resources.put(
            change,
            there.subscription,
            there.group_name,
            there.type,
            there.name,
            there.location,
            {**there.properties, **call.part("properties")},
            call.tags() if call.document().get("tags") is not None else there.tags,
            {key: getattr(there, key) for key in _BESIDE} | _beside(call),
        )
    return Answer(body=_document(made))


def delete(call: Call, kind: str) -> Answer:
    """204 where there is none."""
    with call.plane.change() as change:
        try:
            there = resources.find(change.connection, _path(call, kind))
        except NotFound:
            return Answer(status=204)
        resources.delete(change, there)
    return Answer()


_ONE: tuple[tuple[str, str, str, tuple[str, ...], Callable[..., Answer]], ...] = (
    # verb, the SDK's method, the right, the commands of az (`{}`: those of the type), what answers
    ("GET", "get", "read", ("{} show", "resource show"), get),
    ("HEAD", "check_existence", "read", (), exists),
    ("PUT", "create_or_update", "write", ("resource create",), put),
    ("PATCH", "update", "write", ("resource tag",), patch),
    ("DELETE", "delete", "delete", ("{} delete", "resource delete"), delete),
)


def _register(kind: str, methods: str, command: str) -> None:
    """The operations on resources of one type."""
    for scope, where in ((SUBSCRIPTION, "subscription"), (GROUP, "resource_group")):
        about = {"action": f"{kind}/read", "filtered": True, "az": (f"{command} list",)}
        table("GET", f"{scope}/providers/{kind}", f"{methods}.list_by_{where}", **about)(partial(listing, kind=kind))
    for verb, method, right, words, run in _ONE:
        about = {"action": f"{kind}/{right}", "az": tuple(word.format(command) for word in words)}
        table(verb, f"{GROUP}/providers/{kind}/{{name}}", f"{methods}.{method}", **about)(partial(run, kind=kind))


for _kind, (_methods, _command) in _TYPES.items():
    _register(_kind, _methods, _command)


@table("HEAD", VAULT, "resources.check_existence", action="Microsoft.RecoveryServices/Vaults/read")
def vault_exists(call: Call) -> Answer:
    """204 or 404, neither with a body."""
    with call.plane.look() as connection:
        there = vaults.lookup(connection, known_subscription(call), call.names["group"], call.names["vault"])
    return Answer(status=404 if there is None else 204)


@table("GET", RESOURCE, "resources.get", action="*/read", filtered=True)
@table("HEAD", RESOURCE, "resources.check_existence", action="*/read", filtered=True)
@table("PUT", RESOURCE, "resources.begin_create_or_update", action="*/write", filtered=True)
@table("PATCH", RESOURCE, "resources.begin_update", action="*/write", filtered=True)
@table("DELETE", RESOURCE, "resources.begin_delete", action="*/delete", filtered=True)
def unknown(call: Call) -> Answer:
    """`NotFound`: of any other type there are none. Clients try the types of Azure's first deployment model first, and
    go on when there is no such resource."""
    known_subscription(call)
    names = call.names
    raise NotFound(
        f"The Resource '{names['namespace']}/{names['type']}/{names['name']}' under resource group '{names['group']}' "
        f"was not found. Beside vaults this service keeps {', '.join(_TYPES)}."
    )


def _path(call: Call, kind: str) -> str:
    group = f"/subscriptions/{known_subscription(call)}/resourceGroups/{call.names['group']}"
    return f"{group}/providers/{kind}/{call.names['name']}"


def _may_read(call: Call, one: Resource | Vault) -> bool:
    assert call.who is not None
    return people.may(call.held, call.who.id, f"{_type(one)}/read", one.path)


def _type(one: Resource | Vault) -> str:
    return one.type if isinstance(one, Resource) else _VAULTS


def _is_wanted(one: Resource | Vault, wanted: dict[str, str]) -> bool:
    """Whether all of a filter, whose values are folded, is true."""
    facts = {
        "resourceType": _type(one),
        "resourceGroup": one.group_name,
        "name": one.name,
        "location": one.location,
    }
    tags = {folded(key): folded(value) for key, value in one.tags.items()}
    if "tagName" in wanted and wanted["tagName"] not in tags:
        return False
    if "tagValue" in wanted and tags.get(wanted.get("tagName", "")) != wanted["tagValue"]:
        return False
    return all(folded(fact) == wanted.get(key, folded(fact)) for key, fact in facts.items())


def _beside(call: Call) -> dict[str, Any]:
    """What a request says beside the properties. `InvalidRequest`."""
    sent = {key: value for key in _BESIDE if (value := call.document().get(key)) is not None}
    for key, (kind, what) in _BESIDE.items():
        if key in sent and not isinstance(sent[key], kind):
            raise InvalidRequest(f"{key} has to be {what}", target=key)
    if not all(isinstance(zone, str) for zone in sent.get("zones", ())):
        raise InvalidRequest("zones has to be a list of texts", target="zones")
    if len(sent.get("kind", "")) > _LONGEST:
        raise InvalidRequest(f"kind has to be a text of {_LONGEST} characters at most", target="kind")
    return sent


def _envelope(one: Resource | Vault) -> dict[str, Any]:
    shown = {"id": one.path, "name": one.name, "type": _type(one), "location": one.location, "tags": one.tags}
    return shown | {key: value for key in _BESIDE if (value := getattr(one, key, None)) is not None}


def _summary(one: Resource | Vault) -> dict[str, Any]:
    """As lists of everything show it."""
    changed = one.changed if isinstance(one, Vault) else one.created
    document = _envelope(one) | {
        "createdTime": moment(one.created),
        "changedTime": moment(changed),
        "provisioningState": "Succeeded",
    }
    if isinstance(one, Vault):
        document |= {"identity": one.identity}
    return document


def _document(one: Resource) -> dict[str, Any]:
    """As its own type shows it."""
    properties = {**one.properties, "provisioningState": "Succeeded"}
    subnets = properties.get("subnets")
    if one.type == resources.NETWORK and isinstance(subnets, list):
        properties["subnets"] = [
            {**subnet, "id": f"{one.path}/subnets/{subnet['name']}"}
            if isinstance(subnet, dict) and "name" in subnet
            else subnet
            for subnet in subnets
        ]
    return _envelope(one) | {"properties": properties}
