# SPDX-License-Identifier: Apache-2.0
"""A point back to where it is wanted, whatever it is of: the same on the service's machine and on any other.

A restore to where nothing may be can end in the middle with its process. So it is looked at whether anything is there
before the first attempt (`refuse_occupied`), which is noted; one that comes after finds what that has left, and goes on
(`going_on`): with the files of a folder, each of which is compared with the point's, for the machine may have lost its
power; images are made anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from keepstone.env import Env
from keepstone.errors import NotFound, TargetExists
from keepstone.files import exists, is_folder, make_folder, remove_file
from keepstone.objects import failure
from keepstone.store import Reader
from keepstone.workloads.escaping import unescaped
from keepstone.workloads.progress import Progress

__all__ = ["FILES", "going_on", "new_places", "paths_of", "refuse_occupied", "restore_point", "restored"]

FILES = "Files"
"""The argument `mode` of a restore of files out of the disks of a point."""


@contextmanager
def restored(env: Env, reader: Reader, wanted: Mapping[str, Any]) -> Iterator[Reader]:
    """What is restored of a point: with the mode `FILES` the files in its disks, else the point itself."""
    if wanted.get("mode") != FILES:
        yield reader
        return
    from keepstone.workloads.guestfiles.tree import guest_reader

    with guest_reader(env, reader) as guest:
        yield guest


def new_places(reader: Reader, wanted: Mapping[str, Any], target: Path) -> list[Path]:
    """Where a restore to `target` makes something and nothing may be; none where it goes over what is there."""
    if reader.point.kind == "machine":
        from keepstone.workloads.machines import DESCRIPTION, machine_of, placed, wanted_disks

        machine = machine_of(reader)
        names = wanted_disks(machine, wanted.get("disks"))
        files = placed(machine, target, wanted.get("format"))
        return [*(files[name] for name in names), target / DESCRIPTION]
    return [] if wanted.get("conflict") else [target]


def refuse_occupied(env: Env, reader: Reader, places: list[Path]) -> None:
    """`TargetExists` where something is at one of these places, but for a folder with nothing in it that is to get
    files."""
    for place in places:
        try:
            empty = reader.point.kind == "files" and is_folder(env.fs, place) and not env.fs.listdir(place)
            if exists(env.fs, place, follow=False) and not empty:
                raise TargetExists(
                    f"{place} is there and not empty; choose another target, or say what becomes of it"
                    if reader.point.kind == "files"
                    else f"{place} is there already; choose another target, or restore to the original location"
                )
        except OSError as error:
            raise failure(error, str(place)) from error


def going_on(env: Env, reader: Reader, wanted: Mapping[str, Any], places: list[Path]) -> dict[str, Any]:
    """The arguments of an attempt after the first one; what that has left of images is removed. In folders nothing is
    deleted: the first one would not have done that."""
    if reader.point.kind == "files":
        return {**wanted, "conflict": "overwrite", "delete": False, "compare": True}
    for place in places:
        try:
            remove_file(env.fs, place)
        except OSError as error:
            raise failure(error, str(place)) from error
    return dict(wanted)


def paths_of(wanted: Mapping[str, Any]) -> list[bytes]:
    """The paths of the point that are wanted, none for all. Those in disks are written as they are shown
    (`escaping.escaped`), for their names may be any."""
    meant = unescaped if wanted.get("mode") == FILES else os.fsencode
    return [meant(path) for path in wanted.get("paths") or ()]


def restore_point(
    env: Env,
    reader: Reader,
    wanted: Mapping[str, Any],
    allowed: Callable[[Path], Path],
    progress: Progress,
    *,
    origin: Path | None = None,
) -> tuple[Path, bool]:
    """Restore a point, or what `restored` makes of it; where to, and whether something was left out.

    `wanted`: `target`, a path, None for where it came from; for files `paths`, `conflict` and `delete`; for a disk
    `format`, see `disks.writing`, of which another one than raw is for new files, and `folder`, whether that of the new
    file is made where it is missing. A machine goes into the folder `target`, and `disks` are those of its data disks
    that are wanted, all of them without. `allowed` gives the target as it is to be used, and raises where nobody may
    write there. `origin`: where a disk is now, if not where it was.
    """
    given = wanted.get("target")
    if reader.point.kind == "machine":
        from keepstone.workloads.machines import machine_of, restore_machine, wanted_disks

        machine = machine_of(reader)
        folder = allowed(Path(given or ""))
        names = wanted_disks(machine, wanted.get("disks"))
        done = restore_machine(env, machine, folder, progress, names=names, format=wanted.get("format"))
        return folder, bool(done.lost)
    if reader.point.kind == "files":
        from keepstone.workloads.files import folder_of

        target = allowed(Path(given) if given else folder_of(reader))
        return target, _files(env, reader, target, wanted, progress)
    target = allowed(Path(given) if given else origin or Path(os.fsdecode(reader.point.source)))
    if wanted.get("folder"):
        make_folder(env.fs, target.parent)
    return target, _image(env, reader, target, progress, overwrite=not given, name=wanted.get("format"))


def _files(env: Env, reader: Reader, target: Path, wanted: Mapping[str, Any], progress: Progress) -> bool:
    from keepstone.workloads.files import Conflict, RestoreOptions, restore_files

    in_place = not wanted.get("target") or bool(wanted.get("conflict"))
    is_ours = wanted.get("mode") != FILES  # what would lend a guest's identity to somebody here is left out
    options = RestoreOptions(
        paths=tuple(paths_of(wanted)),
        in_place=in_place,
        conflict=Conflict(wanted.get("conflict") or Conflict.OVERWRITE),
        compare_content=bool(wanted.get("compare")),
        delete=bool(wanted.get("delete")) and in_place,
        numeric_ids=not is_ours,
        xattrs=is_ours,
        capabilities=is_ours,
        setuid=is_ours,
        devices=is_ours,
    )
    report = restore_files(env, reader, target, options, progress)
    return bool(report.failed)


def _image(
    env: Env, reader: Reader, target: Path, progress: Progress, *, overwrite: bool, name: str | None = None
) -> bool:
    from keepstone.disks import RawSink, RawSource, refuse_image
    from keepstone.disks.writing import RAW, chosen
    from keepstone.workloads.images import image_size, restore_image, restore_into

    if not is_folder(env.fs, target.parent):
        raise NotFound(f"the folder of {target} does not exist; make it, or choose another target")
    there = exists(env.fs, target)
    if there and not overwrite:
        raise TargetExists(f"{target} is there already; choose another target, or restore to the original location")
    wanted = chosen(target, name or RAW)
    if wanted.name != RAW:
        return bool(restore_into(env, reader, target, wanted, progress))
    if overwrite:
        refuse_image(env, target)
    with ExitStack() as stack:
        sink = stack.enter_context(RawSink(env, target, image_size(reader), overwrite=there))
        existing = stack.enter_context(RawSource(env, target)) if there else None
        return bool(restore_image(env, reader, sink, progress, existing=existing))
