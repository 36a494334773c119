# SPDX-License-Identifier: Apache-2.0
"""A point whose disks are nearer than the store: read there, and from the store where that is gone or not the same.

Invariant: nothing is believed. Each chunk that was read has the id that the store has for it, or is fetched from there;
so a wrong, a torn or a foreign snapshot costs time and nothing else.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TypeVar

from keepstone.disks import BlockSource
from keepstone.env import Env
from keepstone.errors import KeepstoneError
from keepstone.objects import BufferPool, round_up
from keepstone.store import ZERO_REF, Node, Reader
from keepstone.workloads.images.leaf import LEAF_KIND, LEAF_SPAN, read_root
from keepstone.workloads.machines.root import read_machine
from keepstone.workloads.machines.through import Through
from keepstone.workloads.salvage import DAMAGE

__all__ = ["NearReader"]

Cookie = TypeVar("Cookie")

_LEAVES = 64  # whose chunks are known at a time
_TOGETHER = 32  # chunks that a worker reads at a time
_LARGEST = 1 << 20  # bytes of a chunk


class NearReader(Through):
    """A `Reader` of a point of a machine. `near`: some of its disks, by name, each as it was at the point's moment.

    `taken`: how many bytes came from there.
    """

    def __init__(self, env: Env, reader: Reader, near: Mapping[str, BlockSource]) -> None:
        super().__init__(reader)
        self._pool = env.pool()
        self._buffers = BufferPool(_LARGEST)
        self._lock = threading.Lock()
        self._gone: set[int] = set()  # disks that failed once
        self.taken = 0
        self._disks: list[tuple[BlockSource, int]] = []  # and the length of a chunk
        self._leaves: dict[int, tuple[int, int]] = {}  # by place: (number of the disk, which leaf of it)
        self._known: OrderedDict[int, list[int]] = OrderedDict()  # by leaf: its chunks
        self._places: dict[int, tuple[int, int]] = {}  # by chunk: (disk, offset)
        machine, roots = read_machine(reader, reader.root())
        for disk, root in zip(machine.disks, roots, strict=True):
            if disk.name in near:
                image, _, leaves = read_root(reader, [root])
                for index, leaf in enumerate(leaves):
                    self._leaves.setdefault(leaf, (len(self._disks), index))
                self._disks.append((near[disk.name], image.chunk))

    def __enter__(self) -> NearReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop the workers; the reader and the disks stay their owner's."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def node(self, ref: int) -> Node:
        node = self._reader.node(ref)
        if node.kind == LEAF_KIND and ref in self._leaves:
            self._learn(ref, self._reader.chunk_refs(node))
        return node

    def _learn(self, leaf: int, refs: list[int]) -> None:
        """Where the chunks of a leaf are; those of one that nobody asked for lately come from the store again."""
        number, index = self._leaves[leaf]
        step = self._disks[number][1]
        with self._lock:
            if leaf in self._known:
                self._known.move_to_end(leaf)
                return
            self._known[leaf] = refs
            for at, ref in enumerate(refs):
                if ref != ZERO_REF:
                    self._places[ref] = number, index * LEAF_SPAN + at * step
            if len(self._known) > _LEAVES:
                for ref in self._known.popitem(last=False)[1]:
                    self._places.pop(ref, None)

    def fetch(self, requests: Iterable[tuple[int, Cookie]], sink: Callable[[Cookie, memoryview], None]) -> None:
        near: list[tuple[int, int, int, Cookie]] = []
        far: list[tuple[int, Cookie]] = []
        for ref, cookie in requests:
            place = self._places.get(ref)
            if place is None or place[0] in self._gone:
                far.append((ref, cookie))
            else:
                near.append((*place, ref, cookie))
        near.sort(key=lambda one: one[:2])
        for future in [
            self._pool.submit(self._take, near[at : at + _TOGETHER], sink) for at in range(0, len(near), _TOGETHER)
        ]:
            far += future.result()
        if far:
            self._reader.fetch(far, sink)

    def _take(
        self, wanted: list[tuple[int, int, int, Cookie]], sink: Callable[[Cookie, memoryview], None]
    ) -> list[tuple[int, Cookie]]:
        """Read these; what could not be had, or is something else."""
        far, taken = [], 0
        buffer = self._buffers.take()
        for number, offset, ref, cookie in wanted:
            chunk = self._chunk(number, offset, ref, buffer)
            if chunk is None:
                far.append((ref, cookie))
            else:
                sink(cookie, chunk)
                taken += len(chunk)
        self._buffers.give(buffer)
        with self._lock:
            self.taken += taken
        return far

    def _chunk(self, number: int, offset: int, ref: int, buffer: memoryview) -> memoryview | None:
        if number in self._gone:
            return None
        source = self._disks[number][0]
        try:
            length = self._reader.chunk_length(ref)
            room = buffer[: round_up(length)]
            if source.pread_into(room, offset) < length:
                return None
            return room[:length] if self._reader.identify(room[:length]) == self._reader.chunk_id(ref) else None
        except DAMAGE:
            return None  # the store says what is wrong with it
        except (KeepstoneError, OSError):
            self._gone.add(number)
            return None
