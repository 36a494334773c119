# SPDX-License-Identifier: Apache-2.0
"""From the disks of a machine, all of one moment, to a recovery point.

Which machine it is, and how its disks are held at that moment, is the business of whoever has it; here are sources.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from keepstone.disks import BlockSource
from keepstone.errors import FormatError, ObjectMissing
from keepstone.store import Outcome, Writer
from keepstone.workloads.images.backup import Report, store_image
from keepstone.workloads.images.parent import Parent
from keepstone.workloads.machines.root import MACHINE_KIND, Disk, Machine, detail_of, read_machine, tokens
from keepstone.workloads.progress import Progress

__all__ = ["Part", "backup_machine"]


@dataclass(frozen=True, slots=True)
class Part:
    """A disk and what it is read from. A source gives a token where the next backup can ask it for what changed."""

    disk: Disk
    source: BlockSource


def backup_machine(
    writer: Writer,
    machine: Machine,
    parts: Sequence[Part],
    progress: Progress,
    *,
    name: bytes,
    held: Callable[[], None],
    warnings: int = 0,
    stamp: int = 0,
) -> Report:
    """Make a point of these disks and commit it. `held` is called when all is read, and raises where the moment was
    lost meanwhile; `warnings`: how many were told before; `stamp`: when the snapshot of it began that is to stay in the
    hypervisor (`stamp_of`), 0 for none.

    Raises what the sources and the store raise; nothing is visible then, and the caller aborts the writer.
    """

    def warn(message: str) -> None:
        nonlocal warnings
        warnings += 1
        progress.warn(name, message)

    size = sum(part.source.size for part in parts)
    progress.expect(size)
    before, known = _parent(writer, warn), tokens(writer.parent)
    roots, read = [], 0
    for part in parts:
        earlier = [before[part.disk.name]] if part.disk.name in before else []
        parent = Parent(writer, earlier.copy, warn)
        disk = part.disk.name
        root, count = store_image(writer, part.source, progress, parent, since=known.get(disk), name=disk)
        roots.append(root)
        read += count
    held()
    body = msgspec.msgpack.encode(machine)
    states = {part.disk.name: token for part in parts if (token := part.source.token()) is not None}
    outcome = Outcome(
        root=[writer.put_node(MACHINE_KIND, [], roots, body)],
        detail=detail_of(states, machine.consistency.level, stamp),
        source=name,
        logical=size,
        read=read,
        files=len(parts),
        warnings=warnings,
    )
    return Report(writer.commit(outcome), size, read, warnings)


def _parent(writer: Writer, warn: Callable[[str], None]) -> dict[str, int]:
    """Where the parent has each disk."""
    if writer.parent is None:
        return {}
    try:
        machine, places = read_machine(writer, writer.parent_root())
    except (FormatError, ObjectMissing) as error:
        warn(f"the previous recovery point is no help to this backup: {error}")
        return {}
    return dict(zip((disk.name for disk in machine.disks), places, strict=True))
