# SPDX-License-Identifier: Apache-2.0
"""Reading the disks of a point from the snapshot of it that QEMU keeps.

Nobody waits for this and nothing depends on it: what cannot be had is not there. A backup takes away what somebody
reads by, and so does whoever gives up snapshots; he goes on from the vault (`machines/near.py`), which also says
whether what was read is right. Where we are killed, a process of its own takes away what we read by (`janitor`):
nobody else could read meanwhile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path

from keepstone.disks import BlockSource
from keepstone.disks.nbd import NbdSource
from keepstone.env import Env
from keepstone.errors import KeepstoneError, SourceFailed
from keepstone.objects import PAGE
from keepstone.workloads.kvm import qmp
from keepstone.workloads.kvm.kept import Name, end_reading, forget, mark_of, standing
from keepstone.workloads.kvm.monitor import Monitor, Way
from keepstone.workloads.kvm.serving import Serving
from keepstone.workloads.kvm.sweep import TURN
from keepstone.workloads.machines.naming import prefix_of

__all__ = ["clear", "kept_by", "near_disks", "take_away"]

_ANSWER = 3.0  # seconds until a monitor is somebody else's
_PATIENCE = 10.0  # the same for a read


@contextlib.contextmanager
def near_disks(env: Env, way: Way, owner: str, stamp: int, disks: Collection[str]) -> Iterator[dict[str, BlockSource]]:
    """Those of these disks of a point, by name, that the QEMU behind this monitor keeps. `owner`: as the backup had it;
    `stamp`: that of the point (`stamp_of`)."""
    reading = _Reading(env, way, prefix_of(owner))
    try:
        yield reading.begin(stamp, disks)
    finally:
        reading.end()


def take_away(kept: bool, monitor: str, prefix: str) -> None:
    """What the janitor of a `Qemu` does, once whoever has the monitor now is done with it."""
    with contextlib.suppress(KeepstoneError), qmp.Monitor(Env(), Path(monitor), timeout=TURN) as opened:
        clear(Env(), opened, prefix)


def clear(env: Env, monitor: Monitor, prefix: str) -> None:
    """Take away what somebody read by who was killed. Another one who began to read meanwhile goes on from the vault.
    `Refused`, `Gone`."""
    end_reading(monitor)
    Serving(env, monitor, prefix).clear()


@contextlib.contextmanager
def _watched(way: Way, prefix: str) -> Iterator[None]:
    """Whatever ends this but its own end, the janitor takes away."""
    janitor = way.janitor(prefix)
    try:
        yield
    except BaseException:
        janitor.let_go()
        raise
    janitor.dismiss()


def kept_by(env: Env, way: Way, owner: str, *, none: bool = False) -> list[int]:
    """When those snapshots of an item began that the QEMU behind this monitor keeps; those whose time is over go, and
    all of them for `none`, and where one is broken: for what the guest overwrote since there was no room, or no time.
    `SourceMissing`, `Refused`, `Gone`."""
    now, prefix = env.wall_time() // 10**9, prefix_of(owner)
    with way.open(env, _ANSWER) as monitor:
        names = [name for name in standing(monitor, prefix[:-1]) if name.kind in "ws"]
        if any(name.kind == "s" for name in names) and not any(none or name.until <= now for name in names):
            return sorted({name.stamp for name in names if name.kind == "w"})  # somebody reads, and shall go on
        there = forget(monitor, prefix[:-1], lambda name: none or name.until <= now)
        if there and not _whole(env, way, monitor, prefix):
            there = forget(monitor, prefix[:-1], lambda _: True)
    return there


def _whole(env: Env, way: Way, monitor: Monitor, prefix: str) -> bool:
    """Whether the filters still hold what they should: a broken one gives nothing to read. What the disks of one
    machine keep has one folder, so one of them stands for the others."""
    serving = Serving(env, monitor, prefix)
    with _watched(way, prefix):
        try:
            serving.start()
            for name in standing(monitor, prefix[:-1]):
                if name.kind != "k":
                    continue
                node = name.of("s")
                monitor.execute("blockdev-add", driver="snapshot-access", node_name=node, file=str(name))
                monitor.execute("block-export-add", type="nbd", id=node, node_name=node, name=node, writable=False)
                try:
                    with NbdSource(env, serving.address, node, patience=_PATIENCE) as source:
                        source.pread_into(memoryview(bytearray(PAGE)), 0)
                except SourceFailed:
                    return False
            return True
        finally:
            end_reading(monitor)
            serving.close()


class _Reading:
    """One run."""

    def __init__(self, env: Env, way: Way, prefix: str) -> None:
        self._env, self._way, self._prefix = env, way, prefix
        self._serving: Serving | None = None
        self._watch = contextlib.ExitStack()
        self._sources: dict[str, NbdSource] = {}

    def begin(self, stamp: int, disks: Collection[str]) -> dict[str, BlockSource]:
        try:
            with self._way.open(self._env, _ANSWER) as monitor:
                exports = self._show(monitor, stamp, disks)
            for disk, export in exports.items():
                assert self._serving is not None
                self._sources[disk] = NbdSource(self._env, self._serving.address, export, patience=_PATIENCE)
        except (KeepstoneError, OSError):
            self.end()
            return {}
        return dict(self._sources)

    def _show(self, monitor: Monitor, stamp: int, disks: Collection[str]) -> dict[str, str]:
        there = standing(monitor, self._prefix[:-1])
        if any(name.kind == "s" for name in there):
            return {}  # somebody else reads already
        exports: dict[str, str] = {}
        for disk in disks:
            mine = [name for name in there if name.mark == mark_of(disk)]
            wanted = next((name for name in mine if name.kind == "w" and name.stamp == stamp), None)
            if wanted is None:
                continue
            if self._serving is None:
                self._watch.enter_context(_watched(self._way, self._prefix))
                self._serving = Serving(self._env, monitor, self._prefix)
                self._serving.start()
            exports[disk] = self._raise(monitor, wanted, mine)
        return exports

    def _raise(self, monitor: Monitor, wanted: Name, mine: list[Name]) -> str:
        """Make the node that reads as the disk was; its name, which its export has too."""
        newest = next(name for name in mine if name.kind == "k")
        below = newest.of("s")
        monitor.execute("blockdev-add", driver="snapshot-access", node_name=below, file=str(newest))
        between = (name for name in mine if name.kind == "v" and wanted.stamp <= name.stamp < newest.stamp)
        overlays = [(name.of("o"), str(name)) for name in sorted(between, key=lambda name: name.stamp, reverse=True)]
        if any(name.kind == "u" and name.stamp == wanted.stamp for name in mine):
            overlays.append((wanted.of("r"), str(wanted)))
        for node, file in overlays:
            monitor.execute("blockdev-add", driver="qcow2", node_name=node, file=file, backing=below, read_only=True)
            below = node
        monitor.execute("block-export-add", type="nbd", id=below, node_name=below, name=below, writable=False)
        return below

    def end(self) -> None:
        """What cannot be taken away now, the janitor takes away, or else the next backup."""
        for source in self._sources.values():
            source.close()
        self._sources.clear()
        if self._serving is None:
            return
        with (
            contextlib.suppress(KeepstoneError),
            self._watch,
            self._way.open(self._env, _ANSWER) as monitor,
        ):
            end_reading(monitor)
        self._serving.close()
        self._serving = None
