# SPDX-License-Identifier: Apache-2.0
"""`keepstone restore …`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from keepstone.cli.client.output import Column, at, moment, octets
from keepstone.cli.client.session import item_command, yes_option
from keepstone.cli.formats import format_option

if TYPE_CHECKING:
    from keepstone.cli.client.session import Session

__all__ = ["restore"]

Document = dict[str, Any]
_POINT = click.argument("point")
_TARGET = click.option(
    "--target", metavar="PATH", help="Where to, on the item's machine: a folder for files, a new file for a disk."
)
_MACHINE = click.option("--target-container", "machine", metavar="NAME", help="Another machine to restore on.")
_IN_PLACE = click.option("--in-place", is_flag=True, help="Over the source: only what differs is written.")
_NO_WAIT = click.option("--no-wait", is_flag=True, help="Do not wait for the end of the job.")
_DRY_RUN = click.option("--dry-run", is_flag=True, help="Only say what would be restored, and where to.")
_COLUMNS = (
    Column("would", "would"),
    Column("item", "item"),
    Column("point", "point"),
    Column("made", "made", moment),
    Column("bytes at most", "bytes", octets),
    Column("to", "target"),
    Column("on", "machine"),
    Column("what is there", "conflict"),
    Column("only", "paths"),
    Column("as", "format"),
)


@click.group()
def restore() -> None:
    """Restore items. POINT is a recovery point's name, the beginning of one, or `latest`."""


@item_command(name="files")
@_POINT
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@_TARGET
@_MACHINE
@_IN_PLACE
@click.option(
    "--conflict", type=click.Choice(("overwrite", "skip", "keep-both")),
    help="What to do about what is there and differs [default in place: overwrite; otherwise nothing may be there].",
)  # fmt: skip
@click.option("--delete", is_flag=True, help="Remove what is in restored folders and not in the point.")
@click.option("--guest-target", "guest", metavar="FOLDER",
              help="Of a machine, in place: beneath this folder of its guest.")  # fmt: skip
@yes_option
@_DRY_RUN
@_NO_WAIT
def files(
    session: Session,
    vault: str,
    item: Document,
    point: str,
    paths: tuple[str, ...],
    target: str | None,
    machine: str | None,
    in_place: bool,
    conflict: str | None,
    delete: bool,
    guest: str | None,
    yes: bool,
    dry_run: bool,
    no_wait: bool,
) -> int | None:
    """Restore a folder or a file, or with PATH... only these parts of it. Exit code 4 where some could not be had.

    Of a machine or a disk PATH... are files and folders in its volumes, as `recoverypoint browse` shows them, such as
    disk0/1/etc/fstab. With --in-place they go back into the guest, which has to run and to have a guest agent; what
    is there stops that, unless --conflict says what becomes of it.
    """
    from keepstone.errors import UsageError

    is_disk = at(item, "properties.workloadType") != "FileFolder"
    if delete and conflict is None and (is_disk or not in_place):
        raise UsageError("--delete removes from what is there; give --in-place, or --conflict with --target")
    if guest is not None and not (is_disk and in_place):
        raise UsageError("--guest-target is a folder of a machine's guest; give it with --in-place, of a machine")
    if is_disk:
        wanted = _of_disks(session, vault, item, paths, target, machine, in_place, guest)
        wanted |= {"conflict": conflict, "delete": delete}
        return _restore(session, vault, item, point, wanted, "", yes=yes, dry_run=dry_run, no_wait=no_wait)
    wanted = _wanted(session, "FilesRestoreRequest", vault, item, target, machine, in_place)
    source = str(at(item, "properties.sourcePath") or "").rstrip("/") + "/"
    within = [path[len(source) :] if path.startswith(source) else path for path in paths]
    wanted |= {"paths": within, "conflict": conflict, "delete": delete}
    question = "" if not (in_place and delete) else "Remove what the point does not have?"
    return _restore(session, vault, item, point, wanted, question, yes=yes, dry_run=dry_run, no_wait=no_wait)


@item_command(name="disk")
@_POINT
@_TARGET
@_MACHINE
@_IN_PLACE
@format_option
@yes_option
@_DRY_RUN
@_NO_WAIT
def disk(
    session: Session,
    vault: str,
    item: Document,
    point: str,
    target: str | None,
    machine: str | None,
    in_place: bool,
    kind: str | None,
    yes: bool,
    dry_run: bool,
    no_wait: bool,
) -> int | None:
    """Restore a disk: to a new file, or over its own, which nobody may use meanwhile."""
    from pathlib import PurePath

    from keepstone.disks.writing import RAW, chosen
    from keepstone.errors import UsageError

    if in_place and kind not in (None, RAW):
        raise UsageError(f"a {kind} is written into a new file; give --target instead of --in-place")
    if target is not None:
        kind = chosen(PurePath(target), kind).name
    wanted = _wanted(session, "ImageRestoreRequest", vault, item, target, machine, in_place)
    if kind is not None:
        wanted["format"] = kind
    question = "Overwrite the disk that is there?" if in_place else ""
    return _restore(session, vault, item, point, wanted, question, yes=yes, dry_run=dry_run, no_wait=no_wait)


@item_command(name="machine")
@_POINT
@click.option("--target", metavar="FOLDER", help="Into a new folder: an image of each disk, and what machine it was.")
@click.option("--storage-account", metavar="ID", help="Into a folder of its own in that of a storage account.")
@click.option("--new-machine", metavar="NAME", help="Make a machine of it, whose images are in --target: one of QEMU "
                                                    "runs at once, and is copied there while it does.")  # fmt: skip
@click.option("--machine-group", metavar="NAME", help="The resource group of the new machine [default: the vault's].")
@click.option("--vnet", metavar="ID", help="The virtual network that it is put into [default: none].")
@_MACHINE
@_IN_PLACE
@click.option("--disk", "disks", multiple=True, metavar="NAME", help="Of its data disks only these; again for more.")
@format_option
@click.option("--safety-point/--no-safety-point", default=True, show_default=True,
              help="In place: make a point of what is there first.")  # fmt: skip
@yes_option
@_DRY_RUN
@_NO_WAIT
def machine_command(
    session: Session,
    vault: str,
    item: Document,
    point: str,
    target: str | None,
    storage_account: str | None,
    new_machine: str | None,
    machine_group: str | None,
    vnet: str | None,
    machine: str | None,
    in_place: bool,
    disks: tuple[str, ...],
    kind: str | None,
    safety_point: bool,
    yes: bool,
    dry_run: bool,
    no_wait: bool,
) -> int | None:
    """Restore a virtual machine: its disks into new images, or in place, over those that it has, for which it is paused
    and starts anew when all is written. Or as a new machine."""
    from keepstone.cli.client.machine import destination
    from keepstone.errors import UsageError

    if [in_place, target is not None, storage_account is not None].count(True) != 1:
        raise UsageError("where to? give one of --target, --storage-account and --in-place")
    if in_place and (kind is not None or machine is not None or new_machine is not None):
        raise UsageError(
            "in place it stays where it is, as it is; leave out --format, --target-container and --new-machine"
        )
    if new_machine is None and (machine_group or vnet):
        raise UsageError("--machine-group and --vnet are of a new machine; give --new-machine, or leave them out")
    own: Document = {"disks": list(disks), "safetyPoint": safety_point}
    wanted: Document = {
        "objectType": "IaasVMRestoreRequest",
        "recoveryType": "OriginalLocation" if in_place else "RestoreDisks",
        "storageAccountId": storage_account,
    }
    if target is not None:
        place = destination(session, vault, item, machine, target)
        own["targetPath"] = place.pop("targetPath")
        wanted |= place
    if kind is not None:
        own["format"] = kind
    if new_machine is not None:
        group = machine_group or vault.split("/")[4]
        name = (
            f"{session.subscription}/resourceGroups/{group}/providers/Microsoft.Compute/virtualMachines/{new_machine}"
        )
        wanted |= {"recoveryType": "AlternateLocation", "targetVirtualMachineId": name, "virtualNetworkId": vnet}
    wanted["keepstone"] = own
    question = "Pause the machine, overwrite its disks and start it anew?" if in_place else ""
    return _restore(session, vault, item, point, wanted, question, yes=yes, dry_run=dry_run, no_wait=no_wait)


def _of_disks(
    session: Session,
    vault: str,
    item: Document,
    paths: tuple[str, ...],
    target: str | None,
    machine: str | None,
    in_place: bool,
    guest: str | None,
) -> Document:
    """What of a request says which files of its disks, and where to. `UsageError`."""
    from keepstone.errors import UsageError

    name = at(item, "properties.friendlyName")
    if not paths:
        raise UsageError(
            f"which files of '{name}'? give paths as `keepstone recoverypoint browse` shows them; `keepstone restore "
            "machine` and `disk` restore whole disks"
        )
    wanted = _wanted(session, "FilesRestoreRequest", vault, item, target, machine, in_place) | {"paths": list(paths)}
    return wanted if guest is None else wanted | {"guestPath": guest}


def _wanted(
    session: Session, kind: str, vault: str, item: Document, target: str | None, machine: str | None, in_place: bool
) -> Document:
    """What of a request every kind of restore has. `UsageError`."""
    from keepstone.cli.client.machine import destination
    from keepstone.errors import UsageError

    if in_place == (target is not None):
        raise UsageError("where to? give either --target or --in-place")
    if target is None:
        if machine is not None:
            raise UsageError("another machine has no place of its own for it; give --target with --target-container")
        return {"objectType": kind, "recoveryType": "OriginalLocation"}
    place = destination(session, vault, item, machine, target)
    return {"objectType": kind, "recoveryType": "AlternateLocation"} | place


def _restore(
    session: Session,
    vault: str,
    item: Document,
    name: str,
    wanted: Document,
    question: str,
    *,
    yes: bool,
    dry_run: bool,
    no_wait: bool,
) -> int | None:
    """`question`: asked first, where there is one."""
    from keepstone.cli.client.finding import find_point
    from keepstone.cli.client.waiting import ended

    point = find_point(session, item, name)
    made = moment(at(point, "properties.recoveryPointTime"))
    if dry_run:
        found = {
            "would": "restore",
            "item": at(item, "properties.friendlyName"),
            "point": point["name"],
            "made": at(point, "properties.recoveryPointTime"),
            "bytes": at(point, "properties.keepstone.logicalBytes"),
            "target": _target(item, wanted),
            "machine": (at(wanted, "targetInfo.containerId") or "").rpartition(";")[2] or None,
            "conflict": _fate(item, wanted),
            "paths": wanted.get("paths") or None,
            "format": wanted.get("format") or at(wanted, "keepstone.format"),
        }
        session.show(found, _COLUMNS)
        return None
    if question:
        title = at(item, "properties.friendlyName")
        session.console.confirm(f"Restore {title} in place, as it was at {made}. {question}", yes)
    answer = session.arm.ask("POST", f"{point['id']}/restore", {"properties": wanted})
    return ended(session, vault, answer, wait=not no_wait)


def _target(item: Document, wanted: Document) -> str:
    given = wanted.get("targetPath") or at(wanted, "keepstone.targetPath") or wanted.get("storageAccountId")
    name = at(item, "properties.friendlyName")
    if not given and _goes_into_guest(item, wanted):
        return f"the guest of {name}, {wanted.get('guestPath') or 'where they came from'}"
    return str(given or f"in place, {name}")


def _goes_into_guest(item: Document, wanted: Document) -> bool:
    is_files = wanted["objectType"] == "FilesRestoreRequest" and "targetPath" not in wanted
    return is_files and at(item, "properties.workloadType") != "FileFolder"


def _fate(item: Document, wanted: Document) -> str:
    """What becomes of what is at the target."""
    if wanted["objectType"] == "IaasVMRestoreRequest":
        in_place = wanted["recoveryType"] == "OriginalLocation"
        return "is overwritten where it differs" if in_place else "nothing may be there"
    in_its_place = "targetPath" not in wanted and not _goes_into_guest(item, wanted)
    conflict = wanted.get("conflict") or ("overwrite" if in_its_place else "")
    if not conflict:
        return "nothing may be there"
    what = {"overwrite": "is overwritten where it differs", "skip": "stays", "keep-both": "stays beside it"}[conflict]
    return f"{what}, and what the point does not have is removed" if wanted.get("delete") else what


for _command in (files, disk, machine_command):
    restore.add_command(_command)
