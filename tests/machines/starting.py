# SPDX-License-Identifier: Apache-2.0
"""Points of machines that can be started, and what is seen of a machine that runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from keepstone.store import Store
from keepstone.workloads.kvm.definition import DOCUMENT
from keepstone.workloads.machines import Disk, PointOfMachine, machine_of
from tests.machines.guest import initramfs
from tests.machines.points import machine_point

__all__ = ["alive", "defined", "little", "point_of"]


@contextlib.contextmanager
def point_of(store: Store, disks: dict[str, Path]) -> Iterator[PointOfMachine]:
    """A point of a machine with these disks, of which nothing else is known."""
    with store.reader(machine_point(store, disks)) as reader:
        yield machine_of(reader)


def defined(point: PointOfMachine, told: dict[str, Any], *more: tuple[Disk, Any]) -> PointOfMachine:
    """The same point, with this definition and more disks."""
    disks = [*point.disks, *more]
    about = msgspec.structs.replace(
        point.about, definition={DOCUMENT: msgspec.json.encode(told)}, disks=[disk for disk, _ in disks]
    )
    return PointOfMachine(about, disks)


def little(*words: str) -> dict[str, Any]:
    """The definition of the tiny guest; `words`: more for its kernel."""
    kernel, image = initramfs()
    append = " ".join(["console=ttyS0 quiet panic=-1", *words])
    command = ["qemu", "-M", "q35", "-kernel", str(kernel), "-initrd", str(image), "-append", append]
    return {"command": command, "memory-size-summary": {"base-memory": 256 << 20}}


def alive(process: int) -> bool:
    """Whether it runs."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"
