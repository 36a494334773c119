# SPDX-License-Identifier: Apache-2.0
"""What comes from a machine, checked and put into the store in the order in which it came.

Invariants
* Nothing that a machine says of its chunks is believed: a frame is opened, its lengths compared, every id made anew.
  A frame that is right goes into the pack as it came, without being compressed again.
* A chunk that the store has already, from whomever, is not stored again, and nobody is told: the machine goes on to
  name it as "the n-th that I sent".
* Frames are checked by several threads and placed by one, in their order. At most `_AHEAD` wait.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from typing import NamedTuple

from keepstone.control.sessions.view import Shown, View
from keepstone.env import Pool
from keepstone.errors import CorruptObject, InvalidRequest, LeaseLost
from keepstone.remote.places import EARLIER, FOUND, ZEROS, decode_places
from keepstone.remote.wire import FRAME, HANDLE, FrameRecord, NodeRecord, decode, parse_frame, parse_handle
from keepstone.store import ZERO_REF, LocalWriter
from keepstone.store.frame import CODEC_RAW, CODEC_ZSTD, Frame, expand, made_frame

__all__ = ["Intake"]

_AHEAD = 8  # frames
_MOST_HANDLES = 1 << 24
_MOST_CHUNKS = 1 << 24  # of one node: 16 TiB in one file


class _Checked(NamedTuple):
    """A frame that is right. `refs`: where its chunks are already; `frame`: those that are nowhere."""

    refs: list[int | None]
    frame: Frame | None


class Intake:
    """Records of one session into one writer. One thread at a time is in here. `prefixes`: how kinds of its
    nodes begin."""

    def __init__(self, writer: LocalWriter, view: View, pool: Pool, prefixes: tuple[str, ...]) -> None:
        self._writer = writer
        self._view = view
        self._pool = pool
        self._prefixes = prefixes
        self._waiting: deque[Future[_Checked] | NodeRecord] = deque()
        self._chunks = array("Q")
        self._nodes = array("Q")
        self._handles = array("I", [0])  # the handle above each
        self._indexes = array("I", [0])  # and which child of it this one is
        self.found = array("Q")
        """Places of what the previous point was asked for and has."""

    def take(self, kind: int, content: memoryview) -> None:
        """The next record. `CorruptObject`, `InvalidRequest` for what cannot be."""
        if kind == HANDLE:
            above, index = parse_handle(content)
            if above >= len(self._handles) or len(self._handles) >= _MOST_HANDLES:
                raise InvalidRequest("a handle hangs on one that was not told")
            self._handles.append(above)
            self._indexes.append(index)
            return
        if kind == FRAME:
            self._waiting.append(self._pool.submit(self._check, parse_frame(content)))
        else:
            self._waiting.append(decode(content, NodeRecord))
        while self._waiting and (len(self._waiting) > _AHEAD or self._is_ready()):
            self._settle_first()

    def _is_ready(self) -> bool:
        first = self._waiting[0]
        return not isinstance(first, Future) or first.done()

    def drain(self) -> None:
        """Place all that came."""
        while self._waiting:
            self._settle_first()

    def drop(self) -> None:
        """Wait for what is being checked, and forget it."""
        for one in self._waiting:
            if isinstance(one, Future):
                one.exception()
        self._waiting.clear()

    def _check(self, record: FrameRecord) -> _Checked:
        """Called beside other frames."""
        payload, ids, lengths = record.payload, record.ids, record.lengths
        if record.codec == CODEC_ZSTD and len(payload) >= record.raw_length:
            raise CorruptObject("a frame is longer than what is in it")
        data = memoryview(expand(payload, record.codec, record.raw_length, strict=True))
        at = 0
        for identity, length in zip(ids, lengths, strict=True):
            if self._writer.identify(data[at : at + length]) != identity:
                raise CorruptObject("a chunk is another one than its id says")
            at += length
        refs = self._writer.known(ids, [])
        new = [index for index, ref in enumerate(refs) if ref is None]
        if len(new) == len(ids):
            if record.codec not in (CODEC_ZSTD, CODEC_RAW):
                raise CorruptObject(f"a frame has an unknown codec {record.codec}")
            hashing = self._writer.hashing
            return _Checked(refs, made_frame(hashing, bytes(payload), record.codec, record.raw_length, ids, lengths))
        if not new:
            return _Checked(refs, None)
        ends = [0]
        for length in lengths:
            ends.append(ends[-1] + length)
        rest = b"".join([data[ends[index] : ends[index + 1]] for index in new])
        frame = self._writer.compress(rest, [ids[index] for index in new], [lengths[index] for index in new])
        return _Checked(refs, frame)

    def _settle_first(self) -> None:
        first = self._waiting.popleft()
        if isinstance(first, Future):
            refs, frame = first.result()
            at = self._writer.append(frame) if frame is not None else 0
            for ref in refs:
                if ref is None:
                    ref, at = at, at + 1
                self._chunks.append(ref)
            return
        if not first.kind.startswith(self._prefixes):
            raise InvalidRequest(f"a node of kind {first.kind!r} does not belong to this point")
        chunks = self.chunks(first.chunks)
        self._nodes.append(self._writer.put_node(first.kind, chunks, self.children(first.children), first.body))

    def chunks(self, runs: bytes) -> list[int]:
        """Places of the store for those of chunks that the machine named."""
        places: list[int] = []
        for of, first, count in self._bounded(runs):
            if of == ZEROS:
                places += [ZERO_REF] * count
            elif of & EARLIER:
                named = self._named(of & ~EARLIER).chunks[first : first + count]
                places += self._usable(self._all(named, count))
            else:
                places += self._all((self.found if of == FOUND else self._chunks)[first : first + count], count)
        return places

    def children(self, runs: bytes) -> list[int]:
        """The same for nodes."""
        places: list[int] = []
        for of, first, count in self._bounded(runs):
            if of & EARLIER and of != ZEROS:
                named = self._named(of & ~EARLIER).children[first : first + count]
                places += self._usable(self._all(named, count))
            elif of in (ZEROS, FOUND):
                raise InvalidRequest("a node cannot be one that was looked for")
            else:
                places += self._all(self._nodes[first : first + count], count)
        return places

    @staticmethod
    def _bounded(runs: bytes) -> Iterator[tuple[int, int, int]]:
        """`decode_places` of a node that is not larger than any can be: a run of a few bytes names millions."""
        if sum(count for _, _, count in decode_places(runs)) > _MOST_CHUNKS:
            raise InvalidRequest("a node names more chunks than any can; back this up in smaller files")
        return decode_places(runs)

    def _all(self, places: array[int] | list[int], count: int) -> list[int]:
        if len(places) != count:
            raise InvalidRequest("a node names what was not sent, and is not in the previous point")
        return list(places)

    def _usable(self, places: list[int]) -> list[int]:
        usable = self._writer.usable(places)
        if usable is None:
            raise LeaseLost("chunks of the last point are about to be reclaimed; start the backup again")
        return usable

    def _named(self, handle: int) -> Shown:
        if handle >= len(self._handles):
            raise InvalidRequest("a node names a handle that was not told")
        path: list[int] = []
        while handle:
            path.append(self._indexes[handle])
            handle = self._handles[handle]
        return self._view.at(path[::-1])
