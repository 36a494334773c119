# SPDX-License-Identifier: Apache-2.0
"""The mark of reclaim at scale: 20 million chunks, 100 points.

    python -m bench.mark [--small]

Ten disks of 500 GiB with ten daily points each; every day one per cent of a disk changes, in places of 8 MiB. The
manifests are real: written by the store's writer into a folder, read back, opened and checked by the mark. The data
packs are not: the mark is told how many chunks each would have, as the footers would tell it. The last line is
JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from array import array
from pathlib import Path

from bench.setup import bench_dir
from keepstone.crypto import Argon2Cost, PassphraseProvider
from keepstone.env import Env
from keepstone.objects import FolderStorage
from keepstone.store import Outcome, Store
from keepstone.store.commits import PointRecord
from keepstone.store.mark import Mark
from keepstone.store.moves import Moves
from keepstone.store.node import decode_node
from keepstone.store.packs import Packs
from keepstone.store.refs import PackNumbers

_DISKS, _DAYS = 10, 10
_LEAF = 4096
_PACK_CHUNKS = 128
_PLACE = 32  # chunks that change together


class _Disk:
    """Where the chunks of a disk are, day by day; leaves that did not change keep their node."""

    def __init__(self, store: Store, name: str, leaves: int, packs: list[bytes]) -> None:
        self._store, self._name, self._packs = store, name, packs
        self._rng = random.Random(name)
        self._leaves = [array("Q") for _ in range(leaves)]  # pack << 32 | position of each chunk
        self._next = 0
        self._written: list[int] = []
        self._changed = set(range(leaves))
        for leaf in range(leaves):
            self._leaves[leaf].extend(self._chunk() for _ in range(_LEAF))

    def _chunk(self) -> int:
        if self._next % _PACK_CHUNKS == 0:
            self._packs.append(self._rng.randbytes(32))
        self._next += 1
        return len(self._packs) - 1 << 32 | (self._next - 1) % _PACK_CHUNKS

    def change(self) -> None:
        """One per cent of the chunks are new."""
        self._next = 0
        for _ in range(len(self._leaves) * _LEAF // 100 // _PLACE):
            leaf = self._rng.randrange(len(self._leaves))
            at = self._rng.randrange(_LEAF - _PLACE)
            self._leaves[leaf][at : at + _PLACE] = array("Q", [self._chunk() for _ in range(_PLACE)])
            self._changed.add(leaf)

    def back_up(self) -> None:
        """Write the nodes that changed, and commit."""
        with self._store.writer(self._name, "bench") as writer:
            numbers = writer.numbers
            before = writer.child_refs(writer.node(writer.parent_root()[0])) if writer.parent else []
            places = list(before) or [0] * len(self._leaves)
            for leaf in sorted(self._changed):
                refs = [numbers.number(self._packs[ref >> 32]) << 32 | ref & 0xFFFFFFFF for ref in self._leaves[leaf]]
                places[leaf] = writer.put_node("images/leaf", refs, [], b"")
            root = writer.put_node("images/root", [], places, b"")
            writer.commit(Outcome(root=[root], detail=b"", source=b"", logical=0, read=0, files=1, warnings=0))
        self._changed.clear()


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a fiftieth of it")
    leaves = 10 if parser.parse_args().small else 489
    env = Env()
    with tempfile.TemporaryDirectory(dir=bench_dir()) as folder:
        storage = FolderStorage(env, Path(folder))
        weak = PassphraseProvider(b"bench", cost=Argon2Cost(iterations=1, memory_kib=64, lanes=1), weak=True)
        store = Store.init(env, storage, [weak])
        packs: list[bytes] = []
        for number in range(_DISKS):
            disk = _Disk(store, f"disk {number}", leaves, packs)
            for _ in range(_DAYS):
                disk.back_up()
                disk.change()
            del disk
        records = [record for _, record in store.commits.records() if isinstance(record, PointRecord)]
        begin = time.process_time()
        numbers = PackNumbers()
        reader = Packs(store.context, numbers)
        mark = Mark(numbers, lambda ref: decode_node(reader.chunk(ref)))
        there = [(numbers.number(pack), _PACK_CHUNKS) for pack in packs]
        there += [(numbers.number(pack), reader.footer(pack).chunks) for pack, _ in reader.listing()]
        mark.cover(there, Moves(numbers, ()))
        for record in records:
            mark.add_point(record)
        lost = mark.settle()
        spent = time.process_time() - begin
        if lost or not mark.live.any():
            raise SystemExit("the mark is wrong")
        result = {
            "chunks": len(packs) * _PACK_CHUNKS,
            "points": len(records),
            "nodes": sum(count for number, count in there if number >= len(packs)),
            "live": int(mark.live.sum()),
            "mark_cpu_s": round(spent, 2),
        }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
