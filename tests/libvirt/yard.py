# SPDX-License-Identifier: Apache-2.0
"""A domain, a store, and backups of the one into the other."""

from __future__ import annotations

import contextlib
import filecmp
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from keepstone.disks.writing import FORMATS
from keepstone.env import Env
from keepstone.store import Point, Reader, Store
from keepstone.workloads import Silent
from keepstone.workloads.images import Report
from keepstone.workloads.libvirt import Virsh, backup_domain, find
from keepstone.workloads.libvirt.checkpoints import checkpoint_of
from keepstone.workloads.libvirt.moment import Moment
from keepstone.workloads.libvirt.monitor import Way
from keepstone.workloads.machines import PointOfMachine, machine_of, restore_disks
from keepstone.workloads.machines.guard import Room
from keepstone.workloads.machines.naming import prefix_of
from keepstone.workloads.machines.root import tokens
from tests.libvirt.daemon import Defined, Little
from tests.machines.guest import until
from tests.unit.files.points import new_store

__all__ = ["OWNER", "RESERVE", "Made", "Yard", "oracle", "same"]

OWNER = "the store/vm"
RESERVE = 4 << 20


@dataclass(frozen=True)
class Made:
    """A point that was made."""

    report: Report
    warnings: list[str]
    point: Point
    machine: PointOfMachine = field(repr=False)

    @property
    def tokens(self) -> dict[str, str]:
        """By disk."""
        return tokens(self.point.record)

    @property
    def checkpoints(self) -> list[str]:
        """Those that the point needs."""
        return sorted({checkpoint_of(token) for token in self.tokens.values()})


class Yard:
    """`folder`: where the store is, and what the guest overwrites."""

    def __init__(self, machine: Defined, folder: Path, *, store: Store | None = None) -> None:
        self.env = Env(threads=2)
        self.store = store or new_store(self.env, folder / "store")
        self.machine, self.folder = machine, folder
        self.virsh = Virsh(machine.daemon.uri)
        self.owner = OWNER
        self.fleece = machine.daemon.folder / "fleece"
        self.fleece.mkdir(exist_ok=True)

    @property
    def way(self) -> Way:
        """To its monitor."""
        return Way(self.virsh, find(self.virsh, self.machine.name).uuid)

    @property
    def little(self) -> Little:
        """The guest, where it is the tiny one."""
        assert isinstance(self.machine, Little)
        return self.machine

    def backup(self, *, room: Path | None = None, reserve: int = RESERVE, **options: Any) -> Made:
        """Make a point."""
        progress = Silent()
        options.setdefault("owner", OWNER)
        options.setdefault("readable", lambda path: None)
        options.setdefault("snapshots", Room(self.env, self.fleece, RESERVE))
        with self.store.writer("vm", "machine") as writer:
            report = backup_domain(
                self.env,
                writer,
                self.virsh,
                self.machine.name,
                progress,
                fleecing=Room(self.env, room or self.fleece, reserve),
                **options,
            )
        point = self.store.points.find(report.commit)
        assert point.record.warnings == report.warnings == len(progress.warnings)
        with self.store.reader(point) as reader:
            return Made(report, [text for _, text in progress.warnings], point, machine_of(reader))

    def restore(
        self, made: Made, place: Path, wrap: Callable[[Reader], Reader] = lambda reader: reader
    ) -> dict[str, Path]:
        """The disks of a point, by name; read by what `wrap` makes of its reader."""
        place.mkdir()
        with self.store.reader(made.point) as reader:
            done = restore_disks(
                self.env, machine_of(wrap(reader)), lambda disk: (place / disk.name, FORMATS["raw"]), Silent()
            )
        assert [lost for _, lost in done if lost] == []
        return {disk.name: place / disk.name for disk, _ in done}

    def quiet(self) -> None:
        """Wait until nothing of ours runs any more that could still change something in this libvirt."""
        uri = self.machine.daemon.uri.encode()
        until(lambda: not any(uri in _words(process) for process in Path("/proc").glob("[0-9]*")), "quiet", 20)

    def left(self, owner: str = OWNER) -> list[str]:
        """Everything that is there and belongs to this item, checkpoints included."""
        assert not self.machine.job()
        prefix = prefix_of(owner)
        names = [*self.machine.checkpoints(), *(path.name for path in self.fleece.iterdir())]
        return sorted(name for name in names if name.startswith(prefix))


def _words(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


@contextlib.contextmanager
def oracle(monkeypatch: pytest.MonkeyPatch, place: Path) -> Iterator[dict[str, Path]]:
    """While it lasts, all of each disk is read by QEMU's own program, too, from the moment that is held."""
    place.mkdir()
    copies: dict[str, Path] = {}
    plain = Moment.lasted

    def lasted(self: Moment) -> None:
        for disk in self._disks:
            copies[disk.target] = place / disk.target
            where = f"nbd+unix:///{disk.target}?socket={self.address}"
            command: list[str | Path] = ["qemu-img", "convert", "-f", "raw", "-O", "raw", where, copies[disk.target]]
            subprocess.run(command, check=True)
        plain(self)

    with monkeypatch.context() as patched:
        patched.setattr(Moment, "lasted", lasted)
        yield copies


def same(restored: dict[str, Path], copies: dict[str, Path]) -> None:
    assert restored.keys() == copies.keys()
    assert all(filecmp.cmp(restored[name], copies[name], shallow=False) for name in copies)
