# SPDX-License-Identifier: Apache-2.0
"""From a block source to a recovery point.

Holes are not read. A segment is read into its worker's own buffer, and what is in it stays where it is unless a chunk
is squeezed out: one of zeros, or one that did not change. Each chunk is compared with the parent's chunk at the same
offset first, by its fingerprint where this machine made the parent, else by its id, so an unchanged disk needs no
index; a node that came out the same as the parent's is not written again. Memory: one leaf and the pieces in flight.

A source that tracks its changes names its states by tokens, and a point remembers that of the state which it is of.
Then the next one reads what the source lists as changed since, and takes over all other chunks. Only the token of the
very parent point counts; where a leaf of the parent cannot be used, or the disk is longer than it was, that part is
read whatever the source lists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from keepstone.decoders import from_msgpack
from keepstone.disks import BlockSource, Extent
from keepstone.env import Env
from keepstone.objects import is_zero, round_up
from keepstone.store import DISK_CHUNK, ZERO_REF, Chunks, Fingerprints, Outcome, Scratch, Writer
from keepstone.workloads.images.changes import Listing, listed
from keepstone.workloads.images.leaf import LEAF_KIND, LEAF_SPAN, ROOT_KIND, Image, leaf_chunks
from keepstone.workloads.images.parent import Parent
from keepstone.workloads.images.segments import segments
from keepstone.workloads.progress import Progress

__all__ = ["Report", "backup_image", "parent_token", "store_image"]


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a backup: the point's id, the bytes of the disk, how many of them were read, the warnings."""

    commit: str
    size: int
    read: int
    warnings: int


class _Detail(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the record of a point says of its disk. `token`: the source's name of this state."""

    token: str | None = None


def parent_token(writer: Writer) -> str | None:
    """Names the state of the disk that the writer's parent is of; None where it remembers none."""
    if writer.parent is None or not writer.parent.detail:
        return None
    try:
        return from_msgpack(_Detail).decode(writer.parent.detail).token
    except msgspec.MsgspecError:
        return None


def backup_image(env: Env, writer: Writer, source: BlockSource, progress: Progress, *, name: bytes) -> Report:
    """Make a recovery point of the whole disk and commit it. `name` says where it comes from.

    Raises what the source and the store raise; nothing is visible then, and the caller aborts the writer.
    """
    warnings = 0

    def warn(message: str) -> None:
        nonlocal warnings
        warnings += 1
        progress.warn(name, message)

    progress.expect(source.size)
    parent = Parent(writer, writer.parent_root, warn)
    root, read = store_image(writer, source, progress, parent, since=parent_token(writer), name="")
    token = source.token()
    detail = msgspec.msgpack.encode(_Detail(token)) if token is not None else b""
    outcome = Outcome(
        root=[root], detail=detail, source=name, logical=source.size, read=read, files=1, warnings=warnings
    )
    return Report(writer.commit(outcome), source.size, read, warnings)


def store_image(
    writer: Writer, source: BlockSource, progress: Progress, parent: Parent, *, since: str | None, name: str
) -> tuple[int, int]:
    """(place of the root, bytes that were read) of one disk. `since`: the token of the state that `parent` is of;
    `name`: tells the disk from the item's others."""
    image = Image(source.size)
    kept = parent.kept(image) if since is not None else 0
    listing = Listing(listed(source, since, kept, image.chunk))
    fingerprints = writer.fingerprints(name) if source.token() is None else None
    leaves = []
    read = 0
    for index in range(image.leaves):
        leaf = _Leaf(source, progress, image, index, parent.hints(index, image), kept, fingerprints)
        extents = leaf.needed(listing.before(leaf.end))
        leaf.clear(extents)
        for piece in segments(extents, image.size):
            leaf.submit(writer, piece)
        writer.drain()
        read += leaf.finish()
        place = parent.same_leaf(leaf.refs)
        leaves.append(writer.put_node(LEAF_KIND, leaf.refs, [], b"") if place is None else place)
    body = msgspec.msgpack.encode(image)
    root = parent.same_root(leaves, body)
    return (writer.put_node(ROOT_KIND, [], leaves, body) if root is None else root), read


class _Piece(NamedTuple):
    """What was read of one segment: how many bytes, which chunks of the leaf are the `same` as before, and which others
    there are without those of zeros."""

    read: int
    same: list[int]
    places: list[int]
    lengths: list[int]


class _Leaf:
    """One leaf while it is read. `refs`: the places of its chunks: in the first `kept` bytes of the disk those of the
    parent, behind them zeros, where no piece says otherwise."""

    def __init__(
        self,
        source: BlockSource,
        progress: Progress,
        image: Image,
        index: int,
        hints: list[int],
        kept: int,
        fingerprints: Fingerprints | None,
    ) -> None:
        self._source = source
        self._progress = progress
        self._fingerprints = fingerprints
        self._start = index * LEAF_SPAN
        self.end = min(image.size, self._start + LEAF_SPAN)
        count = leaf_chunks(image, index)
        taken = max(0, min(count, -(-(kept - self._start) // image.chunk)))
        self._lost = taken > 0 and not hints  # the parent is no help here
        self.refs = hints[:taken] + [ZERO_REF] * (count - len(hints[:taken]))
        self._hints = (hints + [-1] * (count - len(hints)))[:count]  # the disk may have another size now
        self._read = 0

    def needed(self, listed: list[Extent]) -> list[Extent]:
        """What has to be read: what is listed, or everything."""
        return [Extent(self._start, self.end - self._start, zero=False)] if self._lost else listed

    def clear(self, extents: list[Extent]) -> None:
        """Forget what these whole chunks were; they are zeros, unless a piece says otherwise."""
        for extent in extents:
            first, last = (extent.offset - self._start) // DISK_CHUNK, -(-(extent.end - self._start) // DISK_CHUNK)
            self.refs[first:last] = [ZERO_REF] * (last - first)

    def submit(self, writer: Writer, ranges: list[tuple[int, int]]) -> None:
        """Queue the data of a segment: (offset, length) of each range."""
        writer.submit(lambda scratch: self._chunks(ranges, scratch), self._done)

    def _chunks(self, ranges: list[tuple[int, int]], scratch: Scratch) -> Chunks:
        view = scratch.view
        filled = kept = 0
        same: list[int] = []
        places: list[int] = []
        lengths: list[int] = []
        for offset, length in ranges:
            self._source.pread_into(view[filled : filled + round_up(length)], offset)
            end = filled + length
            first, count = offset // DISK_CHUNK, -(-length // DISK_CHUNK)
            column = self._fingerprints.column(first, count) if self._fingerprints is not None else None
            for index, at in enumerate(range(filled, end, DISK_CHUNK)):
                chunk = view[at : min(at + DISK_CHUNK, end)]
                if is_zero(chunk):
                    continue
                place = first + index - self._start // DISK_CHUNK
                if column is not None and column.same(index, chunk) and 0 <= self._hints[place] < ZERO_REF:
                    same.append(place)
                    continue
                if kept != at:
                    view[kept : kept + len(chunk)] = chunk
                kept += len(chunk)
                places.append(place)
                lengths.append(len(chunk))
            filled = end
            if column is not None:
                column.close()
        piece = _Piece(filled, same, places, lengths)
        return Chunks(view[:kept], lengths, [self._hints[place] for place in places], piece)

    def _done(self, refs: list[int], piece: _Piece) -> None:
        known = piece.read - sum(piece.lengths)
        for place in piece.same:
            self.refs[place] = self._hints[place]
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
