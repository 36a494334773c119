# SPDX-License-Identifier: Apache-2.0
"""What can be done with a recovery point: its files or its disk restored, a drill of it; and for a machine what
`machine_restores` has."""

from __future__ import annotations

from pathlib import PurePath

from keepstone.disks.writing import FORMATS, RAW, chosen
from keepstone.errors import InvalidRequest, UsageError
from keepstone.portal.actions import guest_files, machine_restores
from keepstone.portal.actions.action import Actions, Choice, Field, Plan
from keepstone.portal.actions.offered import Offer, offer
from keepstone.portal.actions.targets import files_plan, machines, over, subject, target_field
from keepstone.portal.api import Document, Request
from keepstone.portal.rendering import at, link
from keepstone.portal.speech import _
from keepstone.portal.visit import Visit
from keepstone.workloads.escaping import unescaped

__all__ = ["actions", "offered"]

actions = Actions()


def _places() -> tuple[Choice, ...]:
    """Where to."""
    return (Choice("other", _("another place")), Choice("original", _("where it came from, over what is there")))


def _conflicts() -> tuple[Choice, ...]:
    """What becomes of what is there."""
    return (
        Choice("", _("as is usual: nothing may be there; in its own place it is overwritten")),
        Choice("overwrite", _("is overwritten where it differs")),
        Choice("skip", _("stays, and the point's is left out")),
        Choice("keep-both", _("stays, and the point's is put beside it")),
    )


def _file_fields(visit: Visit) -> list[Field]:
    about = subject(visit)
    if guest_files.is_of_disks(about):
        return guest_files.fields(visit, about, _conflicts()[1:])
    return [
        Field(
            name="paths",
            label=_("What of it"),
            kind="lines",
            default="\n".join(visit.texts("path")),
            help=_("Paths in the point, one a line, as its page shows them. All of it, if empty"),
        ),
        Field(name="to", label=_("To"), kind="choice", choices=_places(), default="other"),
        target_field(_("A folder")),
        machines(visit, about),
        Field(name="conflict", label=_("What is there"), kind="choice", choices=_conflicts()),
        Field(
            name="delete",
            label="",
            kind="check",
            choices=(Choice("yes", _("Remove what is in restored folders and not in the point")),),
        ),
    ]


@actions(
    "restore-files", "Restore files", "Puts a folder, or a part of it, back as it was when the point was made.",
    fields=_file_fields,
)  # fmt: skip
def restore_files(visit: Visit) -> Plan:
    """Files and folders of a point."""
    about = subject(visit)
    if guest_files.is_of_disks(about):
        return guest_files.plan(visit, about, _given(visit), _conflicts()[1:])
    is_in_place, paths = visit.text("to", "other") == "original", _paths(visit)
    conflict, deleting = visit.text("conflict"), visit.text("delete") == "yes"
    if deleting and not is_in_place and not conflict:
        raise InvalidRequest(
            _("what is not in the point is removed from what is there: say what becomes of that too"), target="conflict"
        )
    wanted, options = about.place(visit, "FilesRestoreRequest", in_place=is_in_place)
    wanted["paths"] = paths
    radius: list[tuple[str, object]] = []
    if is_in_place:
        fate = next(one.label for one in _conflicts() if one.value == (conflict or "overwrite"))
        radius = [
            *over(visit, about),
            (_("What of it"), ", ".join(_given(visit)) or _("all of it")),
            (_("What is there"), fate),
            (_("What the point does not have"), _("is removed") if deleting else _("stays")),
        ]
    return files_plan(about, wanted, options, paths, conflict, deleting=deleting, radius=radius)


def _disk_fields(visit: Visit) -> list[Field]:
    about = subject(visit)
    return [
        Field(name="to", label=_("To"), kind="choice", choices=_places(), default="other"),
        target_field(_("A new file")),
        machines(visit, about),
        Field(
            name="format",
            label=_("As"),
            kind="choice",
            choices=(
                Choice("", _("raw bytes, where it is not called otherwise")),
                *(Choice(name, name) for name in FORMATS),
            ),
            help=_("In its own place it is always raw bytes"),
        ),
    ]


@actions(
    "restore-disk", "Restore the disk", "Writes the disk into a new file, or over what it is now.", fields=_disk_fields
)
def restore_disk(visit: Visit) -> Plan:
    """A disk, as an image."""
    about = subject(visit)
    is_in_place, kind = visit.text("to", "other") == "original", visit.text("format")
    wanted, options = about.place(visit, "ImageRestoreRequest", in_place=is_in_place)
    if is_in_place and kind not in ("", RAW):
        raise InvalidRequest(
            _("a %(kind)s is written into a new file; choose another place", kind=kind), target="format"
        )
    if not is_in_place:
        try:
            kind = chosen(PurePath(wanted["targetPath"]), kind or None, "the format").name
        except UsageError as error:
            raise InvalidRequest(str(error), target="format") from error
        wanted["format"] = kind
        options += "--format", kind
    radius = [*over(visit, about), (_("The disk that is there"), _("is overwritten; nobody may use it meanwhile"))]
    return Plan(
        request=Request("POST", f"{about.name.id}/restore", {"properties": wanted}),
        keepstone=[("restore", "disk", *about.name.held, *options, "--yes", about.name.point)],
        radius=radius if is_in_place else (),
        then=link("/point", id=about.name.id),
        notice=_("The restore begins."),
    )


@actions("drill", "Prove it by a drill", "Starts the point where it reaches nobody, and keeps what came of it.")
def drill(visit: Visit) -> Plan:
    """A restore drill."""
    about = subject(visit)
    return Plan(
        request=Request("POST", f"{about.name.id}/drill"),
        keepstone=[("drill", "run", *about.name.held, about.name.point)],
        then=link("/point", id=about.name.id),
        notice=_("The drill begins."),
    )


def offered(visit: Visit, item: Document, point: Document) -> list[Offer]:
    """What he may do with a point."""
    identity, kind = point["id"], at(item, "properties.workloadType")
    known = {one.name: one for one in (*actions, *machine_restores.actions)}
    restore, start = Request("POST", f"{identity}/restore"), Request("POST", f"{identity}/drill")
    if kind == "FileFolder":
        return offer(visit, known["restore-files"], restore, identity)
    found: list[Offer] = []
    if at(item, "properties.backupManagementType") == "AzureIaasVM":
        found += offer(visit, known["restore-machine"], restore, identity)
    if not at(point, "properties.isManagedVirtualMachine"):
        found += offer(visit, known["restore-disk"], restore, identity)
    found += offer(visit, known["restore-files"], restore, identity)
    return found + offer(visit, known["drill"], start, identity)


def _given(visit: Visit) -> list[str]:
    """The paths that were chosen, as they are shown: in the form, or else on the page that led to it."""
    given = visit.text("paths").splitlines() if visit.texts("paths") else visit.texts("path")
    return [shown for shown in given if shown]


def _paths(visit: Visit) -> list[str]:
    """The paths that were chosen, as they are. `InvalidRequest`."""
    found = []
    for shown in _given(visit):
        try:
            path = unescaped(shown)
            found.append(path.decode())
        except (ValueError, OverflowError) as error:
            raise InvalidRequest(
                _("%(shown)s is no name in UTF-8; restore the folder that has it, or download it", shown=repr(shown)),
                target="paths",
            ) from error
    return found
