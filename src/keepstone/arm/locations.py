# SPDX-License-Identifier: Apache-2.0
"""What a client asks in a region before it makes or protects something. Source: Microsoft.RecoveryServices, vaults
2024-04-01, RecoveryServices_*; backup API 2024-04-01, BackupStatus, FeatureSupport and ProtectionIntent_Validate."""

from __future__ import annotations

from typing import Any

from keepstone.arm.cloud import known_subscription
from keepstone.arm.table import GROUP, PROVIDER, SUBSCRIPTION, Answer, Call, Table
from keepstone.control import datasources, groups, vaults
from keepstone.errors import AlreadyExists, InvalidRequest, UsageError
from keepstone.vault import folded
from keepstone.vault.properties import check_name

__all__ = ["table"]

table = Table()
_LOCATION = f"{PROVIDER}/locations/{{location}}"
_ACTION = "Microsoft.RecoveryServices/locations"
_VAULTS = "Microsoft.RecoveryServices/Vaults"
_FEATURES = {"AzureVMResourceBackup": "Supported", "AzureBackupGoals": "NotSupported"}


@table("POST", f"{GROUP}{_LOCATION}/checkNameAvailability", "recovery_services.check_name_availability",
       action=f"{_ACTION}/checkNameAvailability/action")  # fmt: skip
def name_availability(call: Call) -> Answer:
    """Whether a vault of this name can be made in the group, and why not."""
    subscription, name = _known(call), call.text("name")
    kind = call.document().get("type")
    if kind is not None and folded(str(kind)) != folded(_VAULTS):
        raise InvalidRequest(f"type is {kind!r}; names are checked of {_VAULTS}", target="type")
    with call.plane.look() as connection:
        group = groups.find(connection, subscription, call.names["group"])
        there = vaults.lookup(connection, subscription, group.name, name)
    if there is not None:
        message = f"There is a vault '{there.name}' in '{group.name}' already; choose another name"
        return Answer(body={"nameAvailable": False, "reason": "AlreadyExists", "message": message})
    try:
        check_name(name)
    except InvalidRequest as error:
        return Answer(body={"nameAvailable": False, "reason": "Invalid", "message": str(error)})
    return Answer(body={"nameAvailable": True, "reason": "", "message": ""})


@table("POST", f"{SUBSCRIPTION}{_LOCATION}/capabilities", "recovery_services.capabilities",
       action=f"{_ACTION}/capabilities/action")  # fmt: skip
def capabilities(call: Call) -> Answer:
    """The DNS zones of private links: none, the service has one address."""
    _known(call)
    kind = call.text("type")
    wanted = call.part("properties").get("dnsZones") or []
    if not isinstance(wanted, list) or not all(isinstance(zone, dict) for zone in wanted):
        raise InvalidRequest("properties.dnsZones has to be a list of objects", target="properties.dnsZones")
    zones = [{"subResource": zone.get("subResource"), "requiredZoneNames": []} for zone in wanted]
    return Answer(body={"type": kind, "properties": {"dnsZones": zones}})


@table("POST", f"{SUBSCRIPTION}{_LOCATION}/backupStatus", "backup_status.get", action=f"{_ACTION}/backupStatus/action",
       az=("backup protection check-vm",))  # fmt: skip
def backup_status(call: Call) -> Answer:
    """Whether a resource is protected, and in which vault it has its points."""
    subscription, resource = _known(call), call.text("resourceId")
    with call.plane.look() as connection:
        there = datasources.protection(connection, subscription, resource)
    if there is None:
        return Answer(
            body={
                "protectionStatus": "NotProtected",
                "vaultId": "",
                "fabricName": "Azure",
                "containerName": "",
                "protectedItemName": "",
                "errorCode": "Success",
                "errorMessage": "",
                "policyName": "",
                "registrationStatus": "NotRegistered",
                "protectedItemsCount": 0,
            }
        )
    return Answer(
        body={
            "protectionStatus": "Protected" if there.active else "NotProtected",
            "vaultId": there.vault.path,
            "fabricName": "Azure",
            "containerName": there.container.name,
            "protectedItemName": there.item.name,
            "errorCode": "Success",
            "errorMessage": "",
            "policyName": "" if there.policy is None else there.policy.name,
            "registrationStatus": "Registered",
            "protectedItemsCount": there.count,
        }
    )


@table("POST", f"{SUBSCRIPTION}{_LOCATION}/backupValidateFeatures", "feature_support.validate",
       action=f"{_ACTION}/backupValidateFeatures/action")  # fmt: skip
def features(call: Call) -> Answer:
    """Whether a feature is there: virtual machines of every size are."""
    _known(call)
    wanted = call.text("featureType")
    for name, support in _FEATURES.items():
        if folded(name) == folded(wanted):
            return Answer(body={"supportStatus": support})
    raise InvalidRequest(f"featureType is {wanted!r}; choose one of {', '.join(_FEATURES)}", target="featureType")


@table("POST", f"{SUBSCRIPTION}{_LOCATION}/backupPreValidateProtection", "protection_intent.validate",
       action=f"{_ACTION}/backupPreValidateProtection/action")  # fmt: skip
def prevalidate(call: Call) -> Answer:
    """Whether a resource can be protected in a vault; why not stands in the answer."""
    subscription = _known(call)
    kind, resource, path = call.text("resourceType"), call.text("resourceId"), call.text("vaultId")
    parts = path.strip("/").split("/")
    if len(parts) != 8 or folded(f"/{'/'.join(parts[4:7])}") != folded(f"{PROVIDER}/vaults"):
        raise InvalidRequest(f"vaultId is {path!r}; it has to be the id of a vault", target="vaultId")
    with call.plane.look() as connection:
        vault = vaults.find(connection, parts[1], parts[3], parts[7])
        try:
            datasources.check(connection, subscription, kind, resource, vault)
        except (UsageError, AlreadyExists) as error:
            return Answer(body=_validated("Failed", error.code, str(error)))
    return Answer(body=_validated("Succeeded", "Success", ""))


def _known(call: Call) -> str:
    """The subscription. `NotFound`; `InvalidRequest` for another region than this one."""
    subscription, here = known_subscription(call), call.plane.place.location
    if folded(call.names["location"]).replace(" ", "") != folded(here):
        raise InvalidRequest(
            f"there is no region '{call.names['location']}' here; choose '{here}'",
            target="location",
            code="NoRegisteredProviderFound",
        )
    return subscription


def _validated(status: str, code: str, message: str) -> dict[str, Any]:
    return {
        "status": status,
        "errorCode": code,
        "errorMessage": message,
        "recommendation": "",
        "containerName": "",
        "protectedItemName": "",
    }
