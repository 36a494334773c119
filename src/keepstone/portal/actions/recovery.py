# SPDX-License-Identifier: Apache-2.0
"""Recovery kits and their key: taking them, and saying that they are kept elsewhere."""

from __future__ import annotations

from keepstone.errors import InvalidRequest
from keepstone.portal.actions.action import Actions, Choice, Field, Plan
from keepstone.portal.api import Reply, Request
from keepstone.portal.kits import KEY, kit_of
from keepstone.portal.places import name_of
from keepstone.portal.rendering import link
from keepstone.portal.speech import _
from keepstone.portal.visit import Visit

__all__ = ["actions"]

actions = Actions()
_KIT_FILE, _KEY_FILE = "recovery-kit.age", "recovery-key.txt"


@actions(
    "download-kit", "Download the recovery kit",
    "The file that opens this vault when the service is gone. The recovery key opens it.", downloads=True,
)  # fmt: skip
def download_kit(visit: Visit) -> Plan:
    """A file."""
    kit = kit_of(visit, visit.needed("id"))
    name = name_of(kit["properties"]["vaultId"])
    return Plan(
        request=Request("POST", f"{kit['id']}/download"),
        keepstone=[("vault", "recovery-kit", "download", *name.at, "-f", _KIT_FILE)],
        file=_file,
    )


@actions(
    "download-key", "Download the recovery key",
    "The key that opens the recovery kits of all vaults. Whoever has it and a kit can read everything in the vault.",
    downloads=True,
)  # fmt: skip
def download_key(visit: Visit) -> Plan:
    """A file."""
    return Plan(
        request=Request("POST", f"{KEY}/download"),
        keepstone=[("vault", "recovery-kit", "download-key", "-f", _KEY_FILE)],
        file=_file,
    )


def _endings(visit: Visit) -> list[Field]:
    return [
        Field(
            name="kit", label=_("The last 8 characters of the kit"), required=True,
            help=_(
                "Open the kit with an editor: they end the last line above “END AGE ENCRYPTED FILE”. Where that line "
                "is shorter, type all of it."
            ),
        ),
        Field(
            name="key", label=_("The last 8 characters of the key's recipient"), required=True,
            help=_(
                "Open the recovery key: its first line names it; it begins with age1 and ends before the semicolon."
            ),
        ),
        Field(
            name="kept", label="", kind="check",
            choices=(Choice("yes", _("Both files are kept away from this machine, and from each other.")),),
        ),
    ]  # fmt: skip


@actions(
    "confirm-kit", "Confirm the recovery kit",
    "Says that the kit and its key are kept elsewhere. What has to be typed stands in the files alone.",
    fields=_endings,
)  # fmt: skip
def confirm_kit(visit: Visit) -> Plan:
    """Only who has both files can. The box is no part of the request: it is there to be thought about."""
    kit = kit_of(visit, visit.needed("id"))
    name = name_of(kit["properties"]["vaultId"])
    if visit.text("kept") != "yes" and visit.form:
        raise InvalidRequest(_("say that both files are kept away from this machine, once they are"), target="kept")
    given = {"kitEnding": visit.text("kit").strip(), "keyEnding": visit.text("key").strip()}
    return Plan(
        request=Request("POST", f"{kit['id']}/confirm", {"properties": given}),
        keepstone=[("vault", "recovery-kit", "confirm", *name.at, "--kit", _KIT_FILE, "--key", _KEY_FILE)],
        then=link("/security"),
        notice=_("The recovery kit of %(vault)s counts as kept.", vault=name.vault),
    )


def _file(reply: Reply) -> tuple[str, bytes]:
    properties = reply.body["properties"]
    return properties["fileName"], properties["content"].encode()
