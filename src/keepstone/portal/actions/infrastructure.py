# SPDX-License-Identifier: Apache-2.0
"""What can be done with machines and hypervisors."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from keepstone.errors import InvalidRequest
from keepstone.identity import new_credentials
from keepstone.portal.actions.action import Actions, Choice, Field, Plan
from keepstone.portal.api import Reply, Request
from keepstone.portal.places import named
from keepstone.portal.rendering import link
from keepstone.portal.speech import _, counted
from keepstone.portal.visit import Visit

__all__ = ["actions"]

actions = Actions()
_PAGE = link("/infrastructure")
_DAYS = ("1", "2", "3", "5", "10")


def _for_how_long(visit: Visit) -> Sequence[Field]:
    return [
        Field(
            name="name",
            label=_("Name"),
            default=f"keepstone-{visit.plane.env.random(6).hex()}",
            help=_("What the service calls the file's certificate"),
            required=True,
        ),
        Field(
            name="days",
            label=_("Good for"),
            kind="choice",
            choices=[Choice(days, counted("%(number)s day", "%(number)s days", int(days))) for days in _DAYS],
            default="2",
        ),
    ]


@actions(
    "credentials", "Credentials for a machine",
    "Makes a file by which one machine registers its agent with this vault, once. Its key is in the file alone.",
    fields=_for_how_long, downloads=True,
)  # fmt: skip
def credentials(visit: Visit) -> Plan:
    """A file to register with."""
    name, called = named(visit, "vault"), visit.needed("name")
    days = visit.text("days", "2")
    if days not in _DAYS:
        raise InvalidRequest(
            _("days is %(days)s; choose one of %(known)s", days=repr(days), known=", ".join(_DAYS)), target="days"
        )
    if "/" in called:
        raise InvalidRequest(_("%(called)s is no name", called=repr(called)), target="name")
    issued = new_credentials(visit.plane.env, called, int(days))
    der = x509.load_pem_x509_certificate(issued.certificate).public_bytes(serialization.Encoding.DER)
    body = {"properties": {"authType": "AAD", "certificate": base64.b64encode(der).decode()}}
    authority = (visit.plane.root / "tls" / "ca.pem").read_text()

    def file(reply: Reply) -> tuple[str, bytes]:
        """As `keepstone vault credentials download` writes it."""
        about: dict[str, Any] = {
            "url": visit.client.base,
            "ca": authority,
            "vault": name.vault_id,
            "name": called,
            "thumbprint": reply.body["properties"]["thumbprint"],
            "certificate": issued.certificate.decode(),
            "key": issued.key.decode(),
            "until": reply.body["properties"]["validTo"],
        }
        data = msgspec.json.format(msgspec.json.encode(about), indent=2) + b"\n"
        return f"{called}.json", data

    command = "vault", "credentials", "download", *name.at, "-n", called, "--days", days, "--file", f"{called}.json"
    return Plan(
        request=Request("PUT", f"{name.vault_id}/certificates/{called}", body),
        keepstone=[command],
        then=_PAGE,
        file=file,
    )


def _where(visit: Visit) -> Sequence[Field]:
    vault = named(visit, "vault").vault_id
    wanted = {"$filter": "backupManagementType eq 'MAB'"}
    found = visit.client.every(f"{vault}/backupProtectionContainers", **wanted)
    agents = [one for one in found if one["properties"].get("keepstone")]
    hosts = [Choice("", _("the service's own"))] + [
        Choice(one["name"], one["properties"]["friendlyName"]) for one in agents
    ]
    kinds = [
        Choice("libvirt", _("libvirt: a URI")),
        Choice("qemu", _("QEMU: a folder with the monitors of its machines")),
    ]
    return [
        Field(name="name", label=_("Name"), required=True),
        Field(name="kind", label=_("What runs the machines"), kind="choice", choices=kinds, default="libvirt"),
        Field(name="place", label=_("Where"), default="qemu:///system", required=True),
        Field(name="host", label=_("On the machine"), kind="choice", choices=hosts),
        Field(name="group", label=_("Resource group of its machines"), help=_("The vault's, if empty")),
    ]


@actions(
    "register-hypervisor", "Register a hypervisor", "Finds its virtual machines now and every hour, to be protected.",
    fields=_where,
)  # fmt: skip
def register_hypervisor(visit: Visit) -> Plan:
    """Its machines are found from now on."""
    name, called = named(visit, "vault"), visit.needed("name")
    kind, place = visit.text("kind", "libvirt"), visit.needed("place")
    if kind not in ("libvirt", "qemu") or "/" in called:
        raise InvalidRequest(_("choose what runs the machines, and a name without a slash"), target="kind")
    endpoints = {kind: place}
    options = [f"--{kind}", place]
    for key, option, endpoint in (("host", "--on", "host"), ("group", "--machine-group", "resourceGroup")):
        if visit.text(key):
            endpoints[endpoint] = visit.text(key)
            options += [option, visit.text(key)]
    body = {
        "containerType": "GenericContainer",
        "backupManagementType": "DefaultBackup",
        "friendlyName": called,
        "extendedInformation": {"serviceEndpoints": endpoints},
    }
    path = f"{name.vault_id}/backupFabrics/Azure/protectionContainers/GenericContainer;{called}"
    return Plan(
        request=Request("PUT", path, {"properties": body}),
        keepstone=[("hypervisor", "register", *name.at, "-n", called, *options)],
        then=_PAGE,
        notice=_("It is registered; its machines are found now."),
    )


@actions("find-machines", "Look for machines", "Looks for virtual machines now. It is done every hour, too.")
def find_machines(visit: Visit) -> Plan:
    """A look at all hypervisors of the vault."""
    name = named(visit, "vault")
    return Plan(
        request=Request("POST", f"{name.vault_id}/backupFabrics/Azure/refreshContainers"),
        keepstone=[("hypervisor", "refresh", *name.at)],
        then=link("/protectable", vault=name.vault_id),
        notice=_("The hypervisors are looked at."),
    )


@actions(
    "unregister", "Unregister", "Removes a machine that holds no items, or a hypervisor; points stay.", destroys=True
)
def unregister(visit: Visit) -> Plan:
    """It is not known any more."""
    name = named(visit, "container")
    kind, called = name.container.partition(";")[::2]
    command = (
        ("hypervisor", "unregister", *name.at, "-n", called, "-y")
        if kind == "GenericContainer"
        else ("container", "unregister", *name.at, "-n", name.container, "-y")
    )
    return Plan(
        request=Request("DELETE", name.id),
        keepstone=[command],
        radius=[(_("It goes"), called), (_("Points and items"), _("stay as they are"))],
        then=_PAGE,
        notice=_("%(called)s is unregistered.", called=called),
    )


@actions(
    "revoke-agent", "Revoke the agent",
    "Takes the identity of a machine's agent away, at once. Items and points stay, and it may register again.",
    destroys=True,
)  # fmt: skip
def revoke_agent(visit: Visit) -> Plan:
    """The machine is not let in any more."""
    name = named(visit, "container")
    return Plan(
        request=Request("DELETE", f"{name.vault_id}/registeredIdentities/{name.container}"),
        keepstone=[("container", "revoke", *name.at, "-n", name.container, "-y")],
        radius=[
            (_("It goes"), _("the identity of the agent; what it was to do is cancelled")),
            (_("Items and points"), _("stay")),
        ],
        then=_PAGE,
        notice=_("The agent is not let in any more."),
    )
