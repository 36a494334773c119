# SPDX-License-Identifier: Apache-2.0
"""All disks of a machine at one moment, readable while the guest goes on writing.

For each disk there is a fleecing node: an empty image over the disk, into which a job of QEMU puts what the disk held
wherever the guest is about to overwrite it. Read through that node, the disk is what it was. (QEMU,
docs/interop/live-block-operations.rst, "Live disk backup", and docs/interop/bitmaps.rst)

Invariants
* One transaction begins all jobs and all new bitmaps: the disks are of one moment.
* In it new bitmaps come first, jobs then, and what the old bitmaps hold is copied last. So a write that slipped in
  between would be in one bitmap too many and never in one too few.
* An old bitmap goes on recording, and only a copy of it is read: whatever becomes of this backup, it is still right.
* Everything is made and opened before the guest is frozen, but for the transaction.
* Who reads asks afterwards whether the moment `lasted`: a job that is gone or failed held nothing from then on.
* The fleecing files have no names: nobody else can open them.

A moment may be kept beyond the backup (`keeping.py`): then its filters come right before the transaction, and what was
written in between is known (`late.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keepstone.env import Env
from keepstone.errors import SourceFailed
from keepstone.workloads.kvm.drives import Drive
from keepstone.workloads.kvm.late import Late
from keepstone.workloads.kvm.nameless import Nameless
from keepstone.workloads.kvm.qmp import Monitor
from keepstone.workloads.kvm.serving import Serving

__all__ = ["Held", "Moment"]

_GRANULARITY = 64 << 10


@dataclass(frozen=True, slots=True)
class Held:
    """A disk that is held. `export`: its name at the socket, `changes`: the bitmap there of what changed since the
    point before, None where all of it is to be read; `token`: the bitmap that records from now on."""

    drive: Drive
    export: str
    changes: str | None
    token: str


class Moment:
    """`prefix`: how all names begin; `since`: by name of the disk, the bitmap that tells what changed; `folder`: where
    the fleecing files are; `keeping`: what keeps the moment.

    `prepare`, then `hold` while the guest is frozen, then `show`; whatever comes, `close`, and then `sweep`.
    """

    def __init__(
        self,
        env: Env,
        monitor: Monitor,
        prefix: str,
        drives: Sequence[Drive],
        since: Mapping[str, str],
        folder: Path,
        *,
        keeping: Late | None = None,
    ) -> None:
        self._env = env
        self._monitor = monitor
        self._prefix = prefix
        self._files = Nameless(env, monitor, prefix, folder)
        self._keeping = keeping
        self._since = since
        self._serving = Serving(env, monitor, prefix)
        self.when = 0
        """Wall clock of the moment, ns."""
        self.disks = [self._held(number, drive) for number, drive in enumerate(drives)]

    def _held(self, number: int, drive: Drive) -> Held:
        changes = self._name("c", number) if drive.disk.name in self._since else None
        token = self._prefix + self._env.random(8).hex()
        return Held(drive, self._name("e", number), changes, token)

    def _name(self, kind: str, number: int) -> str:
        return f"{self._prefix}{kind}{number}"

    @property
    def address(self) -> Path:
        """The socket at which the exports are."""
        return self._serving.address

    @property
    def jobs(self) -> list[str]:
        """Those that hold the moment."""
        return [self._name("j", number) for number in range(len(self.disks))]

    def prepare(self) -> None:
        """Make what can be made before the guest is frozen. `Refused`, `Gone`, and what files raise."""
        if self._keeping is not None:
            self._keeping.prepare()
        for number, held in enumerate(self.disks):
            self._fleece(number, held.drive)
            if held.changes is not None:
                self._monitor.execute(
                    "block-dirty-bitmap-add",
                    node=held.drive.node,
                    name=held.changes,
                    granularity=_GRANULARITY,
                    disabled=True,
                )

    def _fleece(self, number: int, drive: Drive) -> None:
        file = self._keeping.file(number) if self._keeping is not None else ""
        file = file or self._name("f", number)
        self._files.add(file, number, drive.disk.size)
        node = self._name("q", number)
        self._monitor.execute("blockdev-add", driver="qcow2", node_name=node, file=file, backing=drive.node)

    def _state(self, job: str) -> dict[str, Any]:
        found = [told for told in self._monitor.execute("query-jobs") if told["id"] == job]
        return found[0] if found else {"status": "gone"}

    def hold(self) -> None:
        """The moment."""
        new, jobs, copies = [], [], []
        for number, held in enumerate(self.disks):
            node = held.drive.node
            bitmap = {
                "node": node,
                "name": held.token,
                "persistent": held.drive.keeps,
                "granularity": _GRANULARITY,
            }
            new.append({"type": "block-dirty-bitmap-add", "data": bitmap})
            job = {
                "job-id": self.jobs[number],
                "device": node,
                "target": self._name("q", number),
                "sync": "none",
                "filter-node-name": self._name("h", number),
            }
            jobs.append({"type": "blockdev-backup", "data": job})
            if held.changes is not None:
                copy = {"node": node, "target": held.changes, "bitmaps": [self._since[held.drive.disk.name]]}
                copies.append({"type": "block-dirty-bitmap-merge", "data": copy})
        kept = []
        if self._keeping is not None:
            self._keeping.enter()
            kept = self._keeping.actions()
        self.when = self._env.wall_time()
        self._monitor.execute("transaction", actions=[*new, *jobs, *copies, *kept])

    def show(self) -> None:
        """Let the disks be read at `address`. `Conflict` where QEMU serves somebody else."""
        self._serving.start()
        for number, held in enumerate(self.disks):
            self._monitor.execute(
                "block-export-add",
                type="nbd",
                id=held.export,
                node_name=self._name("q", number),
                name=held.export,
                writable=False,
                bitmaps=self._shown(number, held),  # QEMU finds them in the disk beneath
            )

    def _shown(self, number: int, held: Held) -> list[str]:
        late = self._keeping.bitmap(number) if self._keeping is not None else None
        return [name for name in (held.changes, late) if name is not None]

    def lasted(self) -> None:
        """`SourceFailed` where a disk was not held until now: what was read since then may be of another moment."""
        for number, held in enumerate(self.disks):
            state = self._state(self.jobs[number])
            if state["status"] != "running" or state.get("error"):
                why = state.get("error") or f"its job is {state['status']}"
                raise SourceFailed(
                    f"the moment of {held.drive.disk.name} was lost while it was read ({why}); back it up again"
                )

    def close(self) -> None:
        """Let go of what is outside of QEMU."""
        self._serving.close()
