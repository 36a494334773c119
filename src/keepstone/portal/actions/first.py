# SPDX-License-Identifier: Apache-2.0
"""The first item: a folder of the machine that the service runs on."""

from __future__ import annotations

from dataclasses import replace

from keepstone.control.containers import local_name
from keepstone.control.sources import item_name
from keepstone.errors import InvalidRequest
from keepstone.portal.actions.action import Actions, Field, Plan
from keepstone.portal.actions.protecting import protect_path
from keepstone.portal.speech import _
from keepstone.portal.visit import Visit

__all__ = ["actions", "item_of"]

actions = Actions()


def _path(visit: Visit) -> list[Field]:
    return [Field(name="path", label=_("Folder of the service's machine"), required=True, help=_("Such as /srv/data"))]


@actions(
    "first-item", "Protect a folder", "Of the machine that the service runs on, once a day by the policy for files.",
    fields=_path,
)  # fmt: skip
def first_item(visit: Visit) -> Plan:
    """A folder of this machine."""
    if not visit.text("path").strip().startswith("/"):
        raise InvalidRequest(_("name a folder from the root of the machine, such as /srv/data"), target="path")
    return replace(protect_path(visit), notice=_("The folder is protected. Make its first point now."))


def item_of(vault: str, path: str) -> str:
    """The id of the item that a folder of this machine is."""
    return f"{vault}/backupFabrics/Azure/protectionContainers/{local_name()}/protectedItems/{item_name(path)}"
