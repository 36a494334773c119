# SPDX-License-Identifier: Apache-2.0
"""The files of a disk as the tree of a point of files, for all that reads one: browsing, finding, tar, zip, restore.

The root of a disk has the disk itself, as the file `disk.img`, and a directory for each volume that can be read, called
as the volume is; beneath it are its files. Of several disks each is a directory in the root of all. There is no
manifest: a place, which for others is an opaque number, says all that is needed to ask for what is there, so nothing is
kept, however large the tree is.

    directory   disk, volume, inode
    piece       disk, volume, inode, stream, without holes, length of all, which piece of it

The disk is 0 in the root of all; the volume is 0 in the root of a disk, and for the disk itself, else counted from 1.

Nothing is believed that the child says (`worker.py`): names, extents and loops are checked by whoever reads the tree,
as those of a forged manifest are, and sizes here.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import accumulate
from operator import attrgetter
from typing import Protocol, TypeVar, cast, overload, runtime_checkable

import msgspec
from msgspec import structs

from keepstone.disks import BlockSource
from keepstone.env import Env
from keepstone.errors import FormatError, KeepstoneError
from keepstone.objects import aligned, round_up
from keepstone.store import Node, PointRecord
from keepstone.workloads.files.names import check_names
from keepstone.workloads.files.page import (
    COLUMNS,
    NODE_KIND,
    UNREADABLE,
    Detail,
    Extra,
    Page,
    encode_page,
    stored,
)
from keepstone.workloads.guestfiles.wire import PIECE, Item, Piece, Volume
from keepstone.workloads.guestfiles.worker import Worker
from keepstone.workloads.salvage import DAMAGE

__all__ = ["IMAGE", "REFUSED", "GuestReader", "Identified"]

Cookie = TypeVar("Cookie")

IMAGE = b"disk.img"
"""What the disk itself is called."""
REFUSED = 4
"""A flag of `Extra` beside those of points: the content is kept in a way that is not read, and asking for it fails."""
_VOLUME, _INODE, _STREAM, _SIZE, _INDEX = 16, 64, 16, 48, 28  # bits of a place
_MOST = 1 << 47  # bytes of a file or disk
_BATCH = 4 << 20  # bytes of files that are asked for at a time
_PIECES = 1000
_FIELDS = [attrgetter(name) for name in ("mode", "uid", "gid", "size", "mtime", "ctime", "inode")]


class _Page(Node, frozen=True, array_like=True):
    """A directory. `files`: of each file with content the place of its first piece, and how many there are."""

    files: list[tuple[int, int]]
    folders: list[int]


class _Pieces(Sequence[int]):
    """Places of pieces, runs of consecutive ones, of which a terabyte has a million: made when they are wanted."""

    def __init__(self, runs: list[tuple[int, int]]) -> None:
        self._runs = runs
        self._starts = {begin: at for at, begin in enumerate(accumulate((count for _, count in runs), initial=0))}
        self._length = sum(count for _, count in runs)

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[int]: ...
    def __getitem__(self, at: int | slice) -> int | Sequence[int]:
        """What belongs to one file, as it is always asked for."""
        if isinstance(at, int):
            raise IndexError("pieces are asked for file by file")
        if at.start == at.stop:
            return []
        first, count = self._runs[self._starts[at.start]]
        if at.stop - at.start != count:
            raise IndexError("pieces are asked for file by file")
        return range(first, first + count)


@runtime_checkable
class Identified(Protocol):
    """A disk that can name parts of itself without reading them, as `PointDisk` can."""

    def identity(self, ranges: Iterable[tuple[int, int]]) -> bytes:
        """Equal for equal bytes at the same places."""


class GuestReader:
    """A `Reader` over these disks, by their names; a single one has none. `point`: what they come from.

    `damage`: why the volumes of a disk could not be looked at. Raises what `Worker` does.
    """

    def __init__(self, env: Env, disks: Mapping[bytes, BlockSource], point: PointRecord) -> None:
        self._names = sorted(disks)
        self._disks = [disks[name] for name in self._names]
        self._workers = [Worker(env, disk) for disk in self._disks]
        self._volumes: dict[int, list[Volume]] = {}
        self._point = point
        self.damage: dict[bytes, KeepstoneError] = {}
        folder = stat.S_IFDIR | 0o700
        self._root = Item(b".", folder, os.geteuid(), os.getegid(), 0, point.finished, point.finished, 0)
        detail = Detail(_encoded([self._root], [1]), False, {}, {}, [])
        self.point = structs.replace(point, kind="files", detail=msgspec.msgpack.encode(detail), logical=0)

    def close(self) -> None:
        """End the processes; the disks stay their owner's."""
        for worker in self._workers:
            worker.close()

    def __enter__(self) -> GuestReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def disks(self) -> list[bytes]:
        """The names of the disks, which are the paths that they have."""
        return self._names

    def volumes(self, name: bytes = b"") -> list[Volume]:
        """What is on the disk of this name, also what cannot be read."""
        disk = self._names.index(name)
        if disk not in self._volumes:
            found = self._workers[disk].volumes()
            check_names(sorted(os.fsencode(volume.name) for volume in found), b"", name, self.point)
            self._volumes[disk] = found
        return self._volumes[disk]

    def identity(self, ref: int) -> bytes | None:
        """What names all that is in a directory, without a look at it, where that is a disk or a volume of one that is
        `Identified`: equal where nothing of it is different. None for any other."""
        number, at, inode = _parts(ref)
        disk = self._disks[number - 1] if number else None
        if inode or not isinstance(disk, Identified):
            return None
        if not at:
            return disk.identity([(0, disk.size)])
        volume = self.volumes(self._names[number - 1])[at - 1]
        if sum(length for _, length in volume.ranges) > disk.size:
            return None  # no sound one
        return volume.filesystem.encode() + disk.identity(volume.ranges)

    def is_volume(self, ref: int) -> bool:
        """Whether this is the place of the root of a volume."""
        _, volume, inode = _parts(ref)
        return bool(volume) and not inode

    def image(self, path: bytes) -> int | None:
        """The place of the directory of a disk, where this is the path of the disk itself."""
        disk, _, name = path.rpartition(b"/")
        return _folder(self._names.index(disk) + 1, 0, 0) if name == IMAGE and disk in self._names else None

    def root(self) -> list[int]:
        return [_folder(1, 0, 0) if self._names == [b""] else _folder(0, 0, 0)]

    def node(self, ref: int) -> Node:
        disk, volume, inode = _parts(ref)
        if not disk:
            items = [structs.replace(self._root, name=name) for name in self._names]
            places = [_folder(at + 1, 0, 0) for at in range(len(items))]
            return _Page(NODE_KIND, b"", b"", b"", _encoded(items, [1] * len(items)), [], places)
        items = self._workers[disk - 1].items(volume - 1, inode) if volume else self._top(disk - 1)
        counts, files, folders = [], list[tuple[int, int]](), list[int]()
        for item in items:
            count = 0
            if stat.S_ISDIR(item.mode):
                count = 1
                folders.append(_folder(disk, volume, item.inode) if volume else _folder(disk, item.inode, 0))
            elif stat.S_ISREG(item.mode):
                length = item.size if item.extents is None else sum(size for _, size in item.extents)
                if max(item.size, length) > _MOST:
                    item.unreadable = True
                if length and not item.unreadable:
                    count = -(-length // PIECE)
                    place = _folder(disk, volume, item.inode) << _STREAM | item.stream
                    place = (place << 1 | (item.extents is not None)) << _SIZE | length
                    files.append((place << _INDEX, count))
            counts.append(count)
        return _Page(NODE_KIND, b"", b"", b"", _encoded(items, counts, disk << _VOLUME | volume), files, folders)

    def _top(self, disk: int) -> list[Item]:
        """What is in the root of a disk; of a directory the inode is here the number of its volume."""
        image = structs.replace(self._root, name=IMAGE, mode=stat.S_IFREG | 0o400, size=self._disks[disk].size)
        items = [image]
        try:
            for at, volume in enumerate(self.volumes(self._names[disk])):
                if volume.is_readable:
                    items.append(structs.replace(self._root, name=os.fsencode(volume.name), inode=at + 1))
        except FormatError as error:
            self.damage[self._names[disk]] = error
        return sorted(items, key=lambda item: item.name)

    def chunk_refs(self, node: Node) -> list[int]:
        return cast("list[int]", _Pieces(node.files)) if isinstance(node, _Page) else []

    def child_refs(self, node: Node) -> list[int]:
        return node.folders if isinstance(node, _Page) else []

    def chunk_length(self, ref: int) -> int:
        return min(PIECE, (ref >> _INDEX & (1 << _SIZE) - 1) - (ref & (1 << _INDEX) - 1) * PIECE)

    def chunk_id(self, ref: int) -> bytes:
        found = list[bytes]()
        self.fetch([(ref, None)], lambda _, chunk: found.append(self.identify(chunk)))
        return found[0]

    def identify(self, chunk: bytes | memoryview) -> bytes:
        return blake2b(chunk, digest_size=32).digest()

    def fetch(self, requests: Iterable[tuple[int, Cookie]], sink: Callable[[Cookie, memoryview], None]) -> None:
        """See `Reader`; in the order of the requests, on the calling thread."""
        lost: KeepstoneError | None = None
        for disk, batch in self._batches(requests):
            try:
                self._take(disk, batch, sink)
            except DAMAGE as error:
                lost = error
        if lost is not None:
            raise lost

    def _batches(self, requests: Iterable[tuple[int, Cookie]]) -> Iterator[tuple[int, list[tuple[Piece, Cookie]]]]:
        """As many requests at a time as one answer may have, all of one disk; the disk itself, by `~disk`, alone."""
        batch, size, last = list[tuple[Piece, Cookie]](), 0, 0
        for ref, cookie in requests:
            place = ref >> _INDEX + _SIZE + 1
            disk, volume, inode = _parts(place >> _STREAM)
            offset, length = (ref & (1 << _INDEX) - 1) * PIECE, self.chunk_length(ref)
            packed = bool(ref >> _INDEX + _SIZE & 1)
            piece = Piece(volume - 1, inode, place & (1 << _STREAM) - 1, packed, offset, length)
            where = disk - 1 if volume else ~(disk - 1)
            if batch and (where != last or where < 0 or size + length > _BATCH or len(batch) >= _PIECES):
                yield last, batch
                batch, size = [], 0
            batch.append((piece, cookie))
            size, last = size + length, where
        if batch:
            yield last, batch

    def _take(self, disk: int, batch: list[tuple[Piece, Cookie]], sink: Callable[[Cookie, memoryview], None]) -> None:
        if disk >= 0:
            self._workers[disk].read([piece for piece, _ in batch], lambda at, data: sink(batch[at][1], data))
            return
        for piece, cookie in batch:  # of the disk itself, for which nobody has to look into it
            buffer = aligned(round_up(piece.length))
            self._disks[~disk].pread_into(buffer, piece.offset)
            sink(cookie, buffer[: piece.length])


def _folder(disk: int, volume: int, inode: int) -> int:
    return (disk << _VOLUME | volume) << _INODE | inode


def _parts(ref: int) -> tuple[int, int, int]:
    """Disk, volume and inode of a directory."""
    return ref >> _INODE + _VOLUME, ref >> _INODE & (1 << _VOLUME) - 1, ref & (1 << _INODE) - 1


def _encoded(items: list[Item], counts: list[int], device: int = 0) -> bytes:
    """A page of these entries."""
    extras: dict[int, Extra] = {}
    for at, item in enumerate(items):
        link = (device, item.links) if item.links > 1 and not stat.S_ISDIR(item.mode) and not item.unreadable else None
        flags = UNREADABLE if item.unreadable else REFUSED if item.refused else 0
        if link or item.target or item.rdev or flags or item.extents is not None:
            extras[at] = Extra(item.target, {}, item.rdev, link, item.extents, flags)
    names = b"".join(item.name + b"\0" for item in items)
    columns = (list(map(field, items)) for field in _FIELDS)
    modes, uids, gids, sizes, mtimes, ctimes, inodes = (
        stored(code, values) for code, values in zip(COLUMNS, columns, strict=True)
    )
    counted = stored("I", counts)
    return encode_page(Page(names, modes, uids, gids, sizes, mtimes, ctimes, inodes, counted, extras))
