# SPDX-License-Identifier: Apache-2.0
"""Files out of the disks of a point: into a folder of a machine, or back into the guest that runs."""

from __future__ import annotations

from collections.abc import Sequence

from keepstone.errors import InvalidRequest
from keepstone.portal.actions.action import Choice, Field, Plan
from keepstone.portal.actions.targets import Subject, files_plan, machines, over, target_field
from keepstone.portal.rendering import at
from keepstone.portal.speech import _
from keepstone.portal.visit import Visit

__all__ = ["fields", "is_of_disks", "plan"]

_GUEST = "guest"


def is_of_disks(about: Subject) -> bool:
    """Whether a point has disks, and files in these."""
    return bool(at(about.item, "properties.workloadType") != "FileFolder")


def fields(visit: Visit, about: Subject, conflicts: Sequence[Choice]) -> list[Field]:
    """What is to be given. `conflicts`: what may become of what is there."""
    goes_back = bool(at(about.point, "properties.keepstone.filesIntoGuest"))
    places = [Choice("other", _("a folder of a machine"))]
    if goes_back:
        places.append(Choice(_GUEST, _("the guest that runs, which goes on meanwhile")))
    found = [
        Field(
            name="paths",
            label=_("What of it"),
            kind="lines",
            default="\n".join(visit.texts("path")),
            help=_("Paths in the point, one a line, as its page shows them"),
            required=True,
        ),
        Field(name="to", label=_("To"), kind="choice", choices=places, default="other"),
        target_field(_("A folder")),
        machines(visit, about),
    ]
    if goes_back:
        found.append(
            Field(
                name="folder",
                label=_("Folder of the guest"),
                help=_("Where they came from, if empty: the guest is asked where that is"),
            )
        )
    return [
        *found,
        Field(
            name="conflict",
            label=_("What is there"),
            kind="choice",
            choices=[Choice("", _("nothing may be there")), *conflicts],
        ),
        Field(
            name="delete",
            label="",
            kind="check",
            choices=(Choice("yes", _("Remove what is in restored folders and not in the point")),),
        ),
    ]


def plan(visit: Visit, about: Subject, paths: list[str], conflicts: Sequence[Choice]) -> Plan:
    """`paths`: as they are shown, which is how they are asked for. `InvalidRequest`."""
    into_guest, conflict = visit.text("to", "other") == _GUEST, visit.text("conflict")
    folder, deleting = visit.text("folder").strip(), visit.text("delete") == "yes"
    if not paths:
        raise InvalidRequest(_("say which files and folders: tick them on the point's page"), target="paths")
    if into_guest and deleting:
        raise InvalidRequest(_("nothing is deleted in a guest"), target="delete")
    if folder and not into_guest:
        raise InvalidRequest(_("a folder of the guest is for files that go into it"), target="folder")
    if deleting and not conflict:
        raise InvalidRequest(
            _("what is not in the point is removed from what is there: say what becomes of that too"), target="conflict"
        )
    wanted, options = about.place(visit, "FilesRestoreRequest", in_place=into_guest)
    wanted["paths"] = paths
    if folder:
        wanted["guestPath"] = folder
        options += "--guest-target", folder
    radius: list[tuple[str, object]] = []
    if into_guest:
        radius = [
            (
                _("Into"),
                _("the guest of %(item)s, which goes on meanwhile", item=at(about.item, "properties.friendlyName")),
            ),
            *(row for row in over(visit, about) if row[0] in (_("As it was"), _("In no point"))),
            (_("What of it"), ", ".join(paths)),
            (_("To"), folder or _("where it came from")),
            (
                _("What is there"),
                next((one.label for one in conflicts if one.value == conflict), _("nothing may be there")),
            ),
        ]
    return files_plan(about, wanted, options, paths, conflict, deleting=deleting, radius=radius)
