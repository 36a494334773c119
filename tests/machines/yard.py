# SPDX-License-Identifier: Apache-2.0
"""A running guest, a store, and backups of the one into the other."""

from __future__ import annotations

import contextlib
import os
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
from keepstone.workloads.kvm import Fleecing, Qemu, backup_qemu
from keepstone.workloads.kvm.qmp import Monitor
from keepstone.workloads.machines import PointOfMachine, machine_of, restore_disks
from keepstone.workloads.machines.naming import prefix_of
from keepstone.workloads.machines.root import tokens
from tests.machines.guest import Guest, monitor, until
from tests.unit.files.points import new_store

__all__ = ["OWNER", "Made", "Yard", "oracle"]

# What is in /tmp goes by it, and workers of one run are beside each other; processes that they start have it as well.
OWNER = "the store/vm" + os.environ.get("PYTEST_XDIST_TESTRUNUID", "") + os.environ.get("PYTEST_XDIST_WORKER", "")
RESERVE = 4 << 20


@dataclass(frozen=True)
class Made:
    """A point that was made."""

    report: Report
    warnings: list[str]
    point: Point
    machine: PointOfMachine = field(repr=False)


class Yard:
    """`folder`: where the store is, unless it is another one, and what the guest overwrites."""

    def __init__(self, guest: Guest, folder: Path, *, store: Store | None = None) -> None:
        self.env = Env(threads=2)
        self.store = store or new_store(self.env, folder / "store")
        self.guest = guest
        self.folder = folder
        self.qemu = self.way = Qemu(guest.qmp, guest.qga)
        self.owner = OWNER

    def backup(self, *, qemu: Qemu | None = None, fleecing: Fleecing | None = None, **options: Any) -> Made:
        """Make a point."""
        progress = Silent()
        options.setdefault("owner", OWNER)
        with self.store.writer("vm", "machine") as writer:
            report = backup_qemu(
                self.env,
                writer,
                qemu or self.qemu,
                progress,
                fleecing=fleecing or Fleecing(self.folder, RESERVE),
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
                self.env,
                machine_of(wrap(reader)),
                lambda disk: (place / disk.name, FORMATS["raw"]),
                Silent(),
            )
        assert [lost for _, lost in done if lost] == []
        return {disk.name: place / disk.name for disk, _ in done}

    def left(self, owner: str = OWNER, *, bitmaps: bool = True) -> list[str]:
        """Everything that is in QEMU and belongs to this item; bitmaps or not."""
        with monitor(self.guest.qmp) as ask:
            nodes = ask("query-named-block-nodes", flat=True)
            fdsets = [str(fd.get("opaque")) for fdset in ask("query-fdsets") for fd in fdset["fds"]]
            names = [node["node-name"] for node in nodes] + [job["id"] for job in ask("query-jobs")] + fdsets
            names += [export["id"] for export in ask("query-block-exports")]
            if bitmaps:
                names += [bitmap.get("name", "") for node in nodes for bitmap in node.get("dirty-bitmaps", ())]
            status = ask("query-status")["status"]
        assert status == "running"
        return sorted(name for name in names if name.startswith(prefix_of(owner)))

    def tokens(self, made: Made) -> list[str]:
        """The bitmaps of this point."""
        return sorted(tokens(made.point.record).values())


@contextlib.contextmanager
def oracle(monkeypatch: pytest.MonkeyPatch, guest: Guest, place: Path) -> Iterator[dict[str, Path]]:
    """While it lasts, each transaction also begins a full copy of every disk by QEMU itself: (node, copy)."""
    place.mkdir()
    copies = {node: place / node for node, _ in guest.disks}
    plain: Callable[..., Any] = Monitor.execute

    def execute(self: Monitor, command: str, **arguments: Any) -> Any:
        if command == "transaction":
            nodes = plain(self, "query-named-block-nodes", flat=True)
            sizes = {node["node-name"]: node["image"] for node in nodes}
            for node, copy in copies.items():
                with copy.open("wb") as file:
                    file.truncate(sizes[node]["virtual-size"])
                file_node = {"driver": "file", "filename": str(copy)}
                plain(self, "blockdev-add", driver="raw", node_name=f"copy-{node}", file=file_node)
                job = {"job-id": f"copy-{node}", "device": node, "target": f"copy-{node}", "sync": "full"}
                arguments["actions"] = [*arguments["actions"], {"type": "blockdev-backup", "data": job}]
        return plain(self, command, **arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Monitor, "execute", execute)
        yield copies
    with monitor(guest.qmp) as ask:
        until(lambda: not ask("query-block-jobs"), "the end of the full copies")
        for node in copies:
            ask("blockdev-del", node_name=f"copy-{node}")
