# SPDX-License-Identifier: Apache-2.0
"""What the snapshots of a machine hold, whichever monitor reaches its QEMU."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from keepstone.disks import BlockSource
from keepstone.env import Env
from keepstone.store import Point, Reader
from keepstone.workloads.kvm import near_disks
from keepstone.workloads.kvm.monitor import Way
from keepstone.workloads.machines import PointOfMachine
from keepstone.workloads.machines.naming import prefix_of
from keepstone.workloads.machines.near import NearReader
from keepstone.workloads.machines.root import stamp_of
from tests.machines.guest import until

__all__ = ["DAY", "Later", "content", "near_of", "restore_near", "who_reads_is_killed"]

_ROOT = Path(__file__).parents[2]
DAY = 86_400 * 10**9


class Later(Env):
    """Its clock goes `ahead`, by nanoseconds."""

    ahead = 0

    def wall_time(self) -> int:
        return super().wall_time() + self.ahead


class _Yard(Protocol):
    env: Env
    owner: str

    @property
    def way(self) -> Way: ...

    def restore(self, made: Any, place: Path, wrap: Callable[[Reader], Reader]) -> dict[str, Path]: ...


class _Made(Protocol):
    @property
    def point(self) -> Point: ...

    @property
    def machine(self) -> PointOfMachine: ...


def near_of(yard: _Yard, made: _Made) -> AbstractContextManager[dict[str, BlockSource]]:
    """The disks of a point as far as there is a snapshot of it."""
    names = [disk.name for disk in made.machine.about.disks]
    return near_disks(yard.env, yard.way, yard.owner, stamp_of(made.point.record), names)


def content(yard: _Yard, made: _Made) -> dict[str, bytes]:
    """What the snapshot of a point reads as, by disk; nothing where it is gone."""
    found = {}
    with near_of(yard, made) as disks:
        for name, source in disks.items():
            data = bytearray(source.size)
            source.pread_into(memoryview(data), 0)
            found[name] = bytes(data)
    return found


def restore_near(
    yard: _Yard, made: _Made, place: Path, disks: Mapping[str, BlockSource]
) -> tuple[dict[str, Path], int]:
    """The disks of a point, restored beside these of its snapshot, and how much came from there."""
    readers: list[NearReader] = []

    def near(reader: Reader) -> Reader:
        readers.append(NearReader(yard.env, reader, disks))
        return readers[-1]

    paths = yard.restore(made, place, near)
    readers[-1].close()
    return paths, readers[-1].taken


def who_reads_is_killed(machine: Mapping[str, str], made: _Made, owner: str, is_as_before: Callable[[], bool]) -> None:
    """Who reads a disk of this point, one after the other, and who looks at all of them; nothing of that stays.
    `machine`: its document."""
    stamp, folders = stamp_of(made.point.record), f"{prefix_of(owner)}*"
    for arguments in (*((disk.name, stamp) for disk in made.machine.about.disks), ()):
        command = [sys.executable, "-m", "tests.machines.reading", json.dumps(machine), owner, *arguments]
        killed = subprocess.run([*map(str, command)], cwd=_ROOT, check=False, capture_output=True, text=True)
        assert (killed.returncode, killed.stdout) == (-signal.SIGKILL, "reads\n"), killed.stderr
        until(is_as_before, "the end of what it read by", 10)
        until(lambda: not [*Path(tempfile.gettempdir()).glob(folders)], "the end of its folder", 10)
