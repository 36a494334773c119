# SPDX-License-Identifier: Apache-2.0
"""What the guest writes after the filter of a snapshot came, and before the moment: the snapshot has it as it was then.

A bitmap records where that was, until the transaction that is the moment stops it. What those places held at the moment
is read while the job of the backup holds it, and put into the file of what was overwritten while the backup read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keepstone.disks.nbd import NbdSink, NbdSource
from keepstone.workloads.kvm.keeping import Keeping
from keepstone.workloads.kvm.serving import Serving
from keepstone.workloads.kvm.sweep import end_exports, remove_nodes

__all__ = ["Late"]

_MOST = 64 << 20  # bytes of a disk that may be written in between


class Late(Keeping):
    """The same, of a backup whose transaction and files are ours: `actions` go into the one, `file` is one of the
    others, and `read` comes while the moment is held."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._late: dict[int, list[tuple[int, bytes]]] = defaultdict(list)  # by number: what was at these places

    def file(self, number: int) -> str | None:
        """What the file of this disk is called into which the backup fleeces; None where it is not kept."""
        return self.disks[number].name.of("u") if number in self.disks else None

    def bitmap(self, number: int) -> str | None:
        """That of what was written between the filter of this disk and the moment; None where it is not kept."""
        return f"{self._prefix}d{number}" if number in self.disks else None

    def prepare(self) -> None:
        super().prepare()
        for one in list(self.disks.values()):
            with self.tried(one):
                self._monitor.execute("block-dirty-bitmap-add", node=one.drive.node, name=self.bitmap(one.number))

    def actions(self) -> list[dict[str, Any]]:
        """What goes into the transaction of the moment."""
        bitmaps = [{"node": one.drive.node, "name": self.bitmap(one.number)} for one in self.disks.values()]
        return [{"type": "block-dirty-bitmap-disable", "data": bitmap} for bitmap in bitmaps]

    def read(self, address: Path, exports: Sequence[str]) -> None:
        """Read what was written before the moment and after the filter came, as it was at the moment."""
        for one in list(self.disks.values()):
            bitmap = self.bitmap(one.number)
            with NbdSource(self._env, address, exports[one.number], bitmap=bitmap) as source:
                extents = list(source.extents(bitmap)) if source.tracked else []
                if not source.tracked or sum(extent.length for extent in extents) > _MOST:
                    self.leave_out(one, "the guest wrote too much while it began")
                    continue
                for extent in extents:
                    room = bytearray(extent.length)
                    source.pread_into(memoryview(room), extent.offset)
                    self._late[one.number].append((extent.offset, bytes(room)))

    def finish(self) -> list[int]:
        self._put()
        return super().finish()

    def _put(self) -> None:
        """Into the files of what was overwritten meanwhile, which QEMU itself writes."""
        disks = [one for one in self.disks.values() if self._late.get(one.number)]
        if not disks:
            return
        nodes = {one.number: f"{self._prefix}p{one.number}" for one in disks}
        serving = Serving(self._env, self._monitor, self._prefix)
        serving.start()
        try:
            for one in disks:
                node = nodes[one.number]
                self._monitor.execute("blockdev-add", driver="qcow2", node_name=node, file=one.name.of("u"))
                self._monitor.execute("block-export-add", type="nbd", id=node, node_name=node, name=node, writable=True)
                with NbdSink(self._env, serving.address, node) as sink:
                    for offset, data in self._late[one.number]:
                        sink.write(offset, data)
                    sink.finish()
        finally:
            serving.close()
        end_exports(self._monitor, self._prefix)
        remove_nodes(self._monitor, list(nodes.values()))
