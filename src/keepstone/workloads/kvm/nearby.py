# SPDX-License-Identifier: Apache-2.0
"""Reading the disks of a point from the snapshot of it that QEMU keeps.

Nobody waits for this and nothing depends on it: what cannot be had is not there. A backup takes away what somebody
reads by, and so does whoever gives up snapshots; he goes on from the vault (`machines/near.py`), which also says
whether what was read is right. Where we are killed, a process of its own takes away what we read by (`janitor`):
nobody else could read meanwhile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from keepstone.disks import BlockSource
from keepstone.disks.nbd import NbdSource
from keepstone.env import Env
from keepstone.errors import KeepstoneError, SourceFailed
from keepstone.objects import PAGE
from keepstone.workloads.kvm.kept import Name, end_reading, forget, mark_of, standing
from keepstone.workloads.kvm.qmp import Monitor
from keepstone.workloads.kvm.serving import Serving
from keepstone.workloads.kvm.sweep import TURN
from keepstone.workloads.machines.janitor import Janitor
from keepstone.workloads.machines.naming import prefix_of, stamp_of

__all__ = ["kept_by", "near_disks", "take_away"]

_ANSWER = 3.0  # seconds until a monitor is somebody else's
_PATIENCE = 10.0  # the same for a read


@contextlib.contextmanager
def near_disks(env: Env, path: Path, owner: str, tokens: Mapping[str, str]) -> Iterator[dict[str, BlockSource]]:
    """The disks of a point, by name, as far as the QEMU at this monitor keeps them. `owner`: as the backup had it;
    `tokens`: those of the point, by disk."""
    reading = _Reading(env, path, prefix_of(owner))
    try:
        yield reading.begin(tokens)
    finally:
        reading.end()


def take_away(kept: bool, monitor: str, prefix: str) -> None:
    """What the janitor does, once whoever has the monitor now is done with it. Another one who began to read meanwhile
    goes on from the vault."""
    with contextlib.suppress(KeepstoneError), Monitor(Env(), Path(monitor), timeout=TURN) as opened:
        end_reading(opened)
        Serving(Env(), opened, prefix).clear()


@contextlib.contextmanager
def _watched(path: Path, prefix: str) -> Iterator[None]:
    """Whatever ends this but its own end, the janitor takes away."""
    janitor = Janitor(__name__, str(path), prefix)
    try:
        yield
    except BaseException:
        janitor.let_go()
        raise
    janitor.dismiss()


def kept_by(env: Env, path: Path, owner: str, *, none: bool = False) -> list[int]:
    """When those snapshots of an item began that the QEMU at this monitor keeps; those whose time is over go, and all
    of them for `none`, and where one is broken: for what the guest overwrote since there was no room, or no time.
    `SourceMissing`, `Refused`, `Gone`."""
    now, prefix = env.wall_time() // 10**9, prefix_of(owner)
    with Monitor(env, path, timeout=_ANSWER) as monitor:
        names = [name for name in standing(monitor, prefix[:-1]) if name.kind in "ws"]
        if any(name.kind == "s" for name in names) and not any(none or name.until <= now for name in names):
            return sorted({name.stamp for name in names if name.kind == "w"})  # somebody reads, and shall go on
        there = forget(monitor, prefix[:-1], lambda name: none or name.until <= now)
        if there and not _whole(env, monitor, prefix):
            there = forget(monitor, prefix[:-1], lambda _: True)
    return there


def _whole(env: Env, monitor: Monitor, prefix: str) -> bool:
    """Whether the filters still hold what they should: a broken one gives nothing to read. What the disks of one
    machine keep has one folder, so one of them stands for the others."""
    serving = Serving(env, monitor, prefix)
    with _watched(monitor.path, prefix):
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

    def __init__(self, env: Env, path: Path, prefix: str) -> None:
        self._env, self._path, self._prefix = env, path, prefix
        self._serving: Serving | None = None
        self._watch = contextlib.ExitStack()
        self._sources: dict[str, NbdSource] = {}

    def begin(self, tokens: Mapping[str, str]) -> dict[str, BlockSource]:
        try:
            with Monitor(self._env, self._path, timeout=_ANSWER) as monitor:
                exports = self._show(monitor, tokens)
            for disk, export in exports.items():
                assert self._serving is not None
                self._sources[disk] = NbdSource(self._env, self._serving.address, export, patience=_PATIENCE)
        except (KeepstoneError, OSError):
            self.end()
            return {}
        return dict(self._sources)

    def _show(self, monitor: Monitor, tokens: Mapping[str, str]) -> dict[str, str]:
        there = standing(monitor, self._prefix[:-1])
        if any(name.kind == "s" for name in there):
            return {}  # somebody else reads already
        exports: dict[str, str] = {}
        for disk, token in tokens.items():
            mine = [name for name in there if name.mark == mark_of(disk)]
            wanted = next((name for name in mine if name.kind == "w" and name.stamp == stamp_of(token)), None)
            if wanted is None:
                continue
            if self._serving is None:
                self._watch.enter_context(_watched(self._path, self._prefix))
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
        for node, file in [*overlays, (wanted.of("r"), str(wanted))]:
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
            Monitor(self._env, self._path, timeout=_ANSWER) as monitor,
        ):
            end_reading(monitor)
        self._serving.close()
        self._serving = None
