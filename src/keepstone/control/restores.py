# SPDX-License-Identifier: Apache-2.0
"""Asking for a restore: on the machine that the item is of, or on another one of its vault."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from uuid import UUID

from keepstone.control import agents, containers, items, sources
from keepstone.control.plane import Change
from keepstone.control.work.restore import RESTORE
from keepstone.disks.writing import RAW, chosen
from keepstone.errors import InvalidRequest, UsageError
from keepstone.vault import Container, Item, RecoveryPoint, Vault, folded

__all__ = ["Wanted", "machine", "place", "restore"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """`target`: a path of the machine that restores; None for where the point came from. `container`: the machine, by
    the name of its container; None for the item's own. `paths`: what of it, all where there are none. `conflict`,
    `delete`: see `workloads.files.RestoreOptions`. `format`: of a disk's image, see `disks.writing`; None for raw.
    `guest`: a folder of the guest, for files out of the disks of a machine that runs."""

    target: str | None = None
    container: str | None = None
    paths: tuple[str, ...] = ()
    conflict: str | None = None
    delete: bool = False
    format: str | None = None
    guest: str | None = None


def restore(
    change: Change, vault: Vault, held: Container, item: Item, point: RecoveryPoint, wanted: Wanted, activity: str
) -> UUID:
    """Ask for the restore of a point; the job. A soft-deleted item can be restored from, too. `InvalidRequest`;
    `NotFound` where the vault has no such machine, `Conflict` where it has no agent any more."""
    if wanted.guest is not None:
        raise InvalidRequest(
            f"'{item.friendly}' is no machine whose guest has folders; leave out properties.guestPath",
            target="properties.guestPath",
        )
    there = machine(change, vault, held, wanted.container, wanted.target)
    agent = agents.serving(change.connection, there)
    target = None if wanted.target is None else place(there, wanted.target, elsewhere=agent is not None)
    if target is not None and agent is None:
        change.plane.reach.check(target)
    about = {
        "target": target,
        "paths": list(wanted.paths),
        "conflict": wanted.conflict,
        "delete": wanted.delete,
        "format": _format(item, target, wanted.format),
        "point": point.name,
        "user": True,
    }
    if there.id != held.id:
        about["to"] = there.friendly
    return items.work(change, vault, held, item, RESTORE, activity, about, agent)


def _format(item: Item, target: str | None, wanted: str | None) -> str | None:
    """The format of the image that a disk becomes; None for anything else. `InvalidRequest`, also where the target is
    called like an image of another format than raw and nobody chose."""
    option = "properties.format"
    if item.workload == "FileFolder":
        if wanted is not None:
            raise InvalidRequest(f"{option} is for disks, and '{item.friendly}' has files; leave it out", target=option)
        return None
    if target is None:
        if wanted not in (None, RAW):
            raise InvalidRequest(
                f"{option} is '{wanted}', and a disk goes back to its own place as raw bytes; restore it into a new "
                "file, with AlternateLocation",
                target=option,
            )
        return RAW
    try:
        return chosen(PurePosixPath(target), wanted, option).name
    except UsageError as error:
        raise InvalidRequest(str(error), target=option) from error


def place(there: Container, target: str, *, elsewhere: bool) -> str:
    """A path of this machine, as it is kept; `elsewhere` as in `sources.absolute`. `InvalidRequest`."""
    path = sources.absolute(target, elsewhere=elsewhere)
    if path is None:
        raise InvalidRequest(
            f"properties.targetPath is {target!r}; name an absolute path of '{there.friendly}'",
            target="properties.targetPath",
        )
    return path


def machine(change: Change, vault: Vault, held: Container, name: str | None, target: str | None) -> Container:
    """Where a point goes: to the container of this name; None for the item's own. `target` as in `Wanted`.
    `InvalidRequest`, `NotFound`."""
    if name is None:
        return held
    there = containers.find(change.connection, vault, name)
    own = folded(containers.local_name())
    if agents.machine_of(change.connection, there) is None and folded(there.name) != own:
        raise InvalidRequest(
            f"'{there.name}' is no machine with an agent; choose one of `keepstone container list "
            "--backup-management-type MAB`",
            target="properties.targetInfo.containerId",
        )
    if there.id != held.id and target is None:
        raise InvalidRequest(
            f"another machine has no original location; name a path of '{there.friendly}', with AlternateLocation",
            target="properties.recoveryType",
        )
    return there
