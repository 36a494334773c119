# SPDX-License-Identifier: Apache-2.0
"""From a block source to a recovery point.

Holes are not read. A segment is read into its worker's own buffer, and what is in it stays where it is unless a chunk
of zeros is squeezed out. Each chunk is compared with the parent's chunk at the same offset first, so an unchanged disk
needs no index; a node that came out the same as the parent's is not written again. Memory: one leaf and the pieces in
flight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from keepstone.disks import BlockSource
from keepstone.env import Env
from keepstone.objects import is_zero, round_up
from keepstone.store import DISK_CHUNK, ZERO_REF, Chunks, Outcome, Scratch, Writer
from keepstone.workloads.images.leaf import LEAF_KIND, LEAF_SPAN, ROOT_KIND, Image, leaf_chunks
from keepstone.workloads.images.parent import Parent
from keepstone.workloads.images.segments import segments
from keepstone.workloads.progress import Progress

__all__ = ["Report", "backup_image"]


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a backup: the point's id, the bytes of the disk, how many of them were read, the warnings."""

    commit: str
    size: int
    read: int
    warnings: int


def backup_image(env: Env, writer: Writer, source: BlockSource, progress: Progress, *, name: bytes) -> Report:
    """Make a recovery point of the whole disk and commit it. `name` says where it comes from.

    Raises what the source and the store raise; nothing is visible then, and the caller aborts the writer.
    """
    warnings = 0

    def warn(message: str) -> None:
        nonlocal warnings
        warnings += 1
        progress.warn(name, message)

    image = Image(source.size)
    progress.expect(image.size)
    parent = Parent(writer, warn)
    pieces = segments(source.extents(), image.size)
    piece = next(pieces, None)
    leaves = []
    read = 0
    for index in range(image.leaves):
        leaf = _Leaf(source, progress, image, index, parent.hints(index, image))
        while piece is not None and piece[0][0] < leaf.end:
            leaf.submit(writer, piece)
            piece = next(pieces, None)
        writer.drain()
        read += leaf.finish()
        place = parent.same_leaf(leaf.refs)
        leaves.append(writer.put_node(LEAF_KIND, leaf.refs, [], b"") if place is None else place)
    body = msgspec.msgpack.encode(image)
    root = parent.same_root(leaves, body)
    if root is None:
        root = writer.put_node(ROOT_KIND, [], leaves, body)
    outcome = Outcome(root=[root], detail=b"", source=name, logical=image.size, read=read, files=1, warnings=warnings)
    return Report(writer.commit(outcome), image.size, read, warnings)


class _Piece(NamedTuple):
    """What was read of one segment: how many bytes, and which chunks of the leaf they are without those of zeros."""

    read: int
    places: list[int]
    lengths: list[int]


class _Leaf:
    """One leaf while it is read. `refs`: the places of its chunks, zeros where no piece says otherwise."""

    def __init__(self, source: BlockSource, progress: Progress, image: Image, index: int, hints: list[int]) -> None:
        self._source = source
        self._progress = progress
        self._start = index * LEAF_SPAN
        self.end = min(image.size, self._start + LEAF_SPAN)
        count = leaf_chunks(image, index)
        self.refs = [ZERO_REF] * count
        self._hints = (hints + [-1] * (count - len(hints)))[:count]  # the disk may have another size now
        self._read = 0

    def submit(self, writer: Writer, ranges: list[tuple[int, int]]) -> None:
        """Queue the data of a segment: (offset, length) of each range."""
        writer.submit(lambda scratch: self._chunks(ranges, scratch), self._done)

    def _chunks(self, ranges: list[tuple[int, int]], scratch: Scratch) -> Chunks:
        view = scratch.view
        filled = kept = 0
        places: list[int] = []
        lengths: list[int] = []
        for offset, length in ranges:
            self._source.pread_into(view[filled : filled + round_up(length)], offset)
            end = filled + length
            for place, at in enumerate(range(filled, end, DISK_CHUNK), (offset - self._start) // DISK_CHUNK):
                chunk = view[at : min(at + DISK_CHUNK, end)]
                if is_zero(chunk):
                    continue
                if kept != at:
                    view[kept : kept + len(chunk)] = chunk
                kept += len(chunk)
                places.append(place)
                lengths.append(len(chunk))
            filled = end
        return Chunks(view[:kept], lengths, [self._hints[place] for place in places], _Piece(filled, places, lengths))

    def _done(self, refs: list[int], piece: _Piece) -> None:
        known = piece.read - sum(piece.lengths)
        for place, length, ref in zip(piece.places, piece.lengths, refs, strict=True):
            self.refs[place] = ref
            if ref == self._hints[place]:
                known += length
        self._read += piece.read
        self._progress.advance(piece.read, reused=known)

    def finish(self) -> int:
        """Account for the holes; how many bytes were read."""
        holes = self.end - self._start - self._read
        if holes:
            self._progress.advance(holes, reused=holes)
        return self._read
