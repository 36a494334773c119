# SPDX-License-Identifier: Apache-2.0
"""Looking into a point without restoring it: what is in a directory, where a name is, bytes of a file, a folder as tar.

Each request opens the point for itself and closes it again: nothing is kept between two of them, and each takes memory
that is bounded. Only points that the service can read: what is sealed says so (`WrongKey`).
"""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import BinaryIO

from msgspec import structs

from keepstone.control import points
from keepstone.control.pipe import poured
from keepstone.control.plane import Plane
from keepstone.errors import KeepstoneError, RestoreIncomplete, ServiceUnavailable, Unsupported, UsageError
from keepstone.mount import DISK, disk_entry, is_disk
from keepstone.store import LocalReader
from keepstone.vault import RecoveryPoint, Vault
from keepstone.workloads import Silent
from keepstone.workloads.chunks import ChunkCache
from keepstone.workloads.content import Content
from keepstone.workloads.files import Entry, Tree, write_tar
from keepstone.workloads.files.find import matching
from keepstone.workloads.files.names import shown
from keepstone.workloads.images import DiskMap

__all__ = ["Listing", "Look", "Matches", "Named", "looking", "streaming"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CACHE = 32 << 20  # bytes of chunks that one download keeps and reads ahead
_PIECE = 1 << 20
_STREAMS = threading.BoundedSemaphore(4)  # downloads of one process at a time: each takes up to 100 MB
_LOOK = 256  # entries between two looks at the clock
_SECONDS = 4.0  # that one search may take before it says how far it came


@dataclass(frozen=True, slots=True)
class Named:
    """An entry and its path from the source on."""

    path: bytes
    entry: Entry

    @property
    def name(self) -> bytes:
        """The last part of its path."""
        return self.path.rpartition(b"/")[2]

    @property
    def modified(self) -> datetime:
        """When its content was changed last."""
        return _EPOCH + timedelta(microseconds=self.entry.mtime // 1000)


@dataclass(frozen=True, slots=True)
class Listing:
    """`of`: what was asked for; `entries`: what is in it, where it is a directory. `damage`: why some are missing."""

    of: Named
    entries: list[Named]
    damage: str


@dataclass(frozen=True, slots=True)
class Matches:
    """`after`: how far the search came where there is more to look at; empty at its end. `damage`: as in `Listing`."""

    found: list[Named]
    after: bytes
    damage: str


@contextmanager
def looking(plane: Plane, vault: Vault, point: RecoveryPoint) -> Iterator[Look]:
    """Look into a point. `NotFound` where it is gone, `WrongKey` where it is sealed; `CorruptObject`."""
    store = plane.stores.open(vault.id)
    with points.opened(store, point) as reader, ChunkCache(plane.env, reader, _CACHE) as chunks:
        yield Look(plane, reader, chunks)


@contextmanager
def streaming() -> Iterator[None]:
    """While bytes are sent. `ServiceUnavailable` where that is so of too many."""
    if not _STREAMS.acquire(blocking=False):
        raise ServiceUnavailable("too many files are being downloaded at the moment; try again in a few seconds")
    try:
        yield
    finally:
        _STREAMS.release()


class Look:
    """One look. Everything raises `CorruptObject` and `ObjectMissing` for what is damaged or gone, `NotFound` for a
    path that the point does not have, `UsageError` for one that cannot be meant so."""

    def __init__(self, plane: Plane, reader: LocalReader, chunks: ChunkCache) -> None:
        self._plane = plane
        self._reader = reader
        self._chunks = chunks
        self._tree = Tree(reader, chunks) if reader.point.kind == "files" else None

    @property
    def kind(self) -> str:
        """`files`, or `disk`."""
        return "disk" if self._tree is None else "files"

    def listing(self, path: bytes, *, after: bytes = b"", limit: int) -> Listing:
        """What is at `path`, and at most `limit` entries of it behind the name `after`. A disk is the only entry of a
        directory, as a mount shows it."""
        told = _Damage()
        if self._tree is None:
            disk = Named(DISK, disk_entry(self._reader))
            if is_disk(path):
                return Listing(disk, [], "")
            above = structs.replace(disk.entry, name=b".", mode=stat.S_IFDIR | 0o500, size=0)
            return Listing(Named(b"", above), [] if after >= DISK else [disk], "")
        found = self._tree.find(path)
        of = Named(b"", self._tree.entry) if found is None else Named(found.path, found.entry)
        if not stat.S_ISDIR(of.entry.mode):
            return Listing(of, [], "")
        entries = self._tree.listing(path, after=after, limit=limit, lost=told)
        prefix = of.path + b"/" if of.path else b""
        return Listing(of, [Named(prefix + entry.name, entry) for entry in entries], told.said)

    def search(self, pattern: bytes, path: bytes, *, after: bytes = b"", limit: int) -> Matches:
        """At most `limit` entries beneath `path`, behind the path `after`, that the pattern matches (as `find` has it).
        Ends sooner where it takes long."""
        if self._tree is None:
            raise Unsupported(
                f"a disk has no names in it that could be looked for; mount it, and {DISK.decode()} there"
            )
        until = self._plane.env.boot_time() + int(_SECONDS * 1e9)
        is_wanted, told = matching([pattern]), _Damage()
        matches: list[Named] = []
        for seen, found in enumerate(self._tree.walk(path, after=after, lost=told)):
            if is_wanted(found.path, found.entry):
                matches.append(Named(found.path, found.entry))
            if len(matches) >= limit or (seen % _LOOK == _LOOK - 1 and self._plane.env.boot_time() > until):
                return Matches(matches, found.path, told.said)
        return Matches(matches, b"", told.said)

    def size(self, path: bytes) -> int:
        """The bytes of a file, or of the disk."""
        return self._content(path).map.size

    def content(self, path: bytes, begin: int, end: int) -> Iterator[bytes]:
        """These bytes of a file or of the disk, in pieces."""
        content = self._content(path)
        for at in range(begin, end, _PIECE):
            yield b"".join(content.read(at, min(_PIECE, end - at)))

    def tar(self, path: bytes) -> Iterator[bytes]:
        """What is at `path` as a tar stream, as it is made. Where something of it is damaged, the rest comes, and
        `RestoreIncomplete` in place of the end."""
        if self._tree is None:
            raise Unsupported(f"a disk is no folder; take {DISK.decode()} as it is")
        found = self._tree.find(path)
        paths = [] if found is None else [found.path]

        def write(stream: BinaryIO) -> None:
            report = write_tar(self._reader, paths, stream, Silent())
            if report.failed:
                raise RestoreIncomplete(
                    "a part of it is damaged in the store; `keepstone restore` leaves out only that"
                )

        yield from poured(write)

    def _content(self, path: bytes) -> Content:
        if self._tree is None:
            if not is_disk(path):
                raise UsageError(f"a disk is no file until it is named: ask for {DISK.decode()}")
            return Content(DiskMap(self._reader), self._chunks)
        found = self._tree.find(path)
        if found is None or not stat.S_ISREG(found.entry.mode):
            raise UsageError("only a file has bytes; take a folder as a tar")
        return self._tree.content(found)


class _Damage:
    """Told of what cannot be read; remembers that there is some."""

    said = ""

    def __call__(self, path: bytes, error: KeepstoneError) -> None:
        self.said = self.said or f"a part of {shown(path or b'.')!r} cannot be read: {error}"
