# SPDX-License-Identifier: Apache-2.0
"""What a disk is divided into: partitions by its table, logical volumes in them, or the whole disk without a table."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytsk3

from keepstone.workloads.guestfiles import lvm
from keepstone.workloads.guestfiles.blocks import Part, Readable
from keepstone.workloads.guestfiles.filesystems import FileSystem, opened
from keepstone.workloads.guestfiles.sleuth import Image
from keepstone.workloads.guestfiles.wire import Volume

__all__ = ["found"]

_NAME = re.compile(r"[A-Za-z0-9_+.][A-Za-z0-9_+.-]*-[A-Za-z0-9_+.-]+")
_MOST = 256  # volumes of a disk that are looked at
_USED = int(pytsk3.TSK_VS_PART_FLAG_ALLOC)


def found(disk: Readable) -> list[tuple[Volume, FileSystem | None]]:
    """The volumes of a disk, and what reads them."""
    partitions = list(_partitions(disk))[:_MOST] or [(0, 0, disk.size, "")]
    volumes: list[tuple[Volume, FileSystem | None]] = []
    physical: list[tuple[int, Part]] = []
    for number, offset, size, label in partitions:
        part = Part(disk, offset, size)
        if lvm.is_physical(part):
            physical.append((offset, part))
            note = "a physical volume of LVM"
            volumes.append((Volume(str(number), number, offset, part.size, "lvm", label, note), None))
            continue
        kind, filesystem, note = opened(part)
        if filesystem is not None or kind or number:
            label = (filesystem.label if filesystem is not None else "") or label
            volumes.append((Volume(str(number), number, offset, part.size, kind, label, note), filesystem))
    taken = {volume.name for volume, _ in volumes}
    for logical in lvm.logical(physical)[:_MOST]:
        if _NAME.fullmatch(logical.name) is None or logical.name in taken:
            continue  # LVM lets nobody call one so
        taken.add(logical.name)
        if logical.data is None:
            volumes.append((Volume(logical.name, 0, logical.offset, logical.size, note=logical.note), None))
            continue
        kind, filesystem, note = opened(logical.data)
        label = filesystem.label if filesystem is not None else ""
        volume = Volume(logical.name, 0, logical.offset, logical.size, kind, label, note, list(logical.parts))
        volumes.append((volume, filesystem))
    return volumes


def _partitions(disk: Readable) -> Iterator[tuple[int, int, int, str]]:
    """(number, offset, size, name) of each partition, numbered as Linux does: the slots of the table, and behind the
    four of an MBR the logical ones in order."""
    image = Image(disk)
    for kind in (pytsk3.TSK_VS_TYPE_GPT, pytsk3.TSK_VS_TYPE_DOS):
        try:
            table = pytsk3.Volume_Info(image, kind)
        except OSError:
            continue
        logical = 5
        sector = int(table.info.block_size)
        for part in table:
            if int(part.flags) != _USED:
                continue
            number = int(part.slot_num) + 1
            label = ""
            if kind == pytsk3.TSK_VS_TYPE_GPT:
                label = part.desc.decode("utf-8", "replace")
            elif int(part.table_num) > 0:
                number, logical = logical, logical + 1
            yield number, int(part.start) * sector, int(part.len) * sector, label
        return
