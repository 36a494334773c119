# SPDX-License-Identifier: Apache-2.0
"""What a client asks about a cloud before it asks for anything in it: endpoints, tenants, subscriptions, locations,
resource providers.

Source of the documents: Azure Resource Manager, "metadata/endpoints" 2022-09-01; Microsoft.Resources,
Subscriptions and Providers.
"""

from __future__ import annotations

from typing import Any

from keepstone.arm.table import PROVIDER, SUBSCRIPTION, Answer, Call, Table
from keepstone.errors import NotFound
from keepstone.vault import folded

__all__ = ["known_subscription", "table"]

table = Table()
_OLD_METADATA = ("2015-01-01", "2018-05-01", "2019-05-01")
_PROVIDERS: dict[str, tuple[str, ...]] = {
    "Microsoft.RecoveryServices": ("vaults", "locations", "operations"),
    "Microsoft.Resources": ("resourceGroups", "subscriptions"),
    "Microsoft.Authorization": ("roleAssignments", "roleDefinitions", "locks"),
    "Microsoft.Compute": ("virtualMachines",),
    "Microsoft.Storage": ("storageAccounts",),
    "Microsoft.Network": ("virtualNetworks",),
    "Microsoft.ManagedIdentity": ("userAssignedIdentities",),
    "Microsoft.DataProtection": ("resourceGuards",),
    "Microsoft.AlertsManagement": ("alerts",),
}
_VERSIONS = ["2026-08-01", "2026-07-01", "2025-08-01", "2024-10-01", "2024-04-01", "2023-04-01"]


@table("GET", "/metadata/endpoints", "metadata.endpoints", az=("cloud register",))
def endpoints(call: Call) -> Answer:
    """Where everything is; the older versions of the document are in a list."""
    base, tenant = call.base, call.plane.place.tenant
    host = base.partition("://")[2].rpartition(":")[0] or base.partition("://")[2]
    document = {
        "name": "Keepstone",
        "portal": f"{base}/portal",
        "authentication": {
            "loginEndpoint": base,
            "audiences": [f"{base}/"],
            "tenant": tenant,
            "identityProvider": "AAD",
        },
        "resourceManager": base,
        "graph": f"{base}/graph",
        "graphAudience": f"{base}/graph",
        "microsoftGraphResourceId": f"{base}/graph",
        "gallery": f"{base}/gallery",
        "media": base,
        "batch": base,
        "suffixes": {
            "storage": host,
            "keyVaultDns": f".vault.{host}",
            "sqlServerHostname": f".database.{host}",
        },
    }
    return Answer(body=[document] if call.query.get("api-version") in _OLD_METADATA else document)


@table("GET", "/tenants", "tenants.list", action="*/read", filtered=True, az=("login",))
def tenants(call: Call) -> Answer:
    """There is one."""
    tenant = call.plane.place.tenant
    document = {"id": f"/tenants/{tenant}", "tenantId": tenant, "displayName": "Keepstone", "tenantCategory": "Home"}
    return Answer(body={"value": [document]})


@table("GET", "/subscriptions", "subscriptions.list", action="*/read", filtered=True, az=("login", "account list"))
def subscriptions(call: Call) -> Answer:
    """Those in which the client may do anything at all."""
    value = [_subscription(call)] if call.held else []
    return Answer(body={"value": value, "count": {"type": "Total", "value": len(value)}})


@table("GET", SUBSCRIPTION, "subscriptions.get", action="*/read", filtered=True)
def subscription(call: Call) -> Answer:
    """`NotFound` for another one."""
    known_subscription(call)
    return Answer(body=_subscription(call))


@table(
    "GET", f"{SUBSCRIPTION}/locations", "subscriptions.list_locations", action="*/read", filtered=True,
    az=("account list-locations",),
)  # fmt: skip
def locations(call: Call) -> Answer:
    """There is one."""
    name = call.plane.place.location
    document = {
        "id": f"/subscriptions/{known_subscription(call)}/locations/{name}",
        "name": name,
        "type": "Region",
        "displayName": name,
        "regionalDisplayName": name,
        "metadata": {"regionType": "Physical", "regionCategory": "Recommended", "geographyGroup": "On-premises"},
    }
    return Answer(body={"value": [document]})


@table("GET", f"{SUBSCRIPTION}/providers", "providers.list", action="*/read", filtered=True)
def providers(call: Call) -> Answer:
    """The namespaces that something here answers for."""
    return Answer(body={"value": [_provider(call, namespace) for namespace in _PROVIDERS]})


@table("GET", f"{SUBSCRIPTION}/providers/{{namespace}}", "providers.get", action="*/read", filtered=True,
       az=("provider show",))  # fmt: skip
def provider(call: Call) -> Answer:
    """`NotFound` for one that nothing answers for."""
    return Answer(body=_provider(call, _namespace(call)))


@table("POST", f"{SUBSCRIPTION}/providers/{{namespace}}/register", "providers.register",
       action="Microsoft.Resources/subscriptions/providers/register/action", filtered=True)  # fmt: skip
def register(call: Call) -> Answer:
    """All are registered, always."""
    return Answer(body=_provider(call, _namespace(call)))


@table("GET", f"{PROVIDER}/operations", "client.list", action="*/read", filtered=True)
def actions(call: Call) -> Answer:
    """The actions that roles may name."""
    from keepstone.arm.operations import OPERATIONS

    names = sorted({one.action for one in OPERATIONS if one.action.startswith("Microsoft.RecoveryServices")})
    value = [
        {
            "name": name,
            "display": {
                "provider": "Microsoft Recovery Services",
                "resource": "/".join(name.split("/")[1:-1]),
                "operation": name.rpartition("/")[2],
                "description": name,
            },
            "origin": "user",
        }
        for name in names
    ]
    return Answer(body={"value": value})


def known_subscription(call: Call) -> str:
    """The id of the subscription that the path names. `NotFound` where it is another one than this service's."""
    known = call.plane.place.subscription
    if folded(call.names["subscription"]) != folded(known):
        raise _no_subscription(call)
    return known


def _no_subscription(call: Call) -> NotFound:
    error = NotFound(f"The subscription '{call.names['subscription']}' could not be found.")
    error.code = "SubscriptionNotFound"
    return error


def _subscription(call: Call) -> dict[str, Any]:
    place = call.plane.place
    return {
        "id": f"/subscriptions/{place.subscription}",
        "authorizationSource": "RoleBased",
        "managedByTenants": [],
        "subscriptionId": place.subscription,
        "tenantId": place.tenant,
        "displayName": "Keepstone",
        "state": "Enabled",
        "subscriptionPolicies": {"locationPlacementId": "OnPremises", "quotaId": "OnPremises", "spendingLimit": "Off"},
    }


def _namespace(call: Call) -> str:
    for namespace in _PROVIDERS:
        if folded(namespace) == folded(call.names["namespace"]):
            return namespace
    error = NotFound(f"The resource namespace '{call.names['namespace']}' is invalid: nothing here answers for it.")
    error.code = "InvalidResourceNamespace"
    raise error


def _provider(call: Call, namespace: str) -> dict[str, Any]:
    place = call.plane.place
    return {
        "id": f"/subscriptions/{known_subscription(call)}/providers/{namespace}",
        "namespace": namespace,
        "registrationState": "Registered",
        "registrationPolicy": "RegistrationRequired",
        "resourceTypes": [
            {
                "resourceType": kind,
                "locations": [place.location],
                "apiVersions": _VERSIONS,
                "capabilities": "SupportsTags, SupportsLocation",
            }
            for kind in _PROVIDERS[namespace]
        ],
    }
