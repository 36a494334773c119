# SPDX-License-Identifier: Apache-2.0
"""Real directories backed up into a store in memory, and what the points then say, read node by node."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

import msgspec

from keepstone.crypto import Argon2Cost, PassphraseProvider
from keepstone.env import Env, FileSystem
from keepstone.objects import MemoryStorage
from keepstone.store import LocalReader, LocalWriter, Point, Store
from keepstone.workloads import Silent
from keepstone.workloads.files import Report, Selection, backup_files
from keepstone.workloads.files.page import NODE_KIND, Detail, Entry, decode_page, entries

__all__ = ["Backups", "Seen", "World", "assert_like"]

SECOND = 10**9
_VAST = 1 << 30


class World(Env):
    """The real world, with a clock that can be put forward."""

    def __init__(self, *, threads: int = 2, fs: FileSystem | None = None) -> None:
        super().__init__(threads=threads, fs=fs)
        self.ahead = 0

    def wall_time(self) -> int:
        return super().wall_time() + self.ahead


@dataclass(frozen=True)
class Seen:
    """An entry of a point. `content`: of a regular file, of a vast one only its data; `refs`: places of its chunks
    or pages, with their `lengths` and `ids`.
    """

    entry: Entry
    content: bytes
    refs: list[int]
    lengths: list[int]
    ids: list[bytes]


class Backups:
    """A store and what is backed up into it, one hour after the other, so that each backup trusts the one before."""

    def __init__(self, env: World | None = None) -> None:
        self.env = env or World()
        provider = PassphraseProvider(b"x", cost=Argon2Cost(iterations=1, memory_kib=64, lanes=1), weak=True)
        self.storage = MemoryStorage(self.env)
        self.store = Store.init(self.env, self.storage, [provider])
        self.heard = Silent()
        self.new_bytes = 0

    def writer(self) -> LocalWriter:
        """A writer for the next point."""
        self.env.ahead += 3600 * SECOND
        return self.store.writer("tree", "files")

    def run(self, source: Path | bytes, selection: Selection | None = None, *, warnings: int = 0) -> Report:
        """Back up; the number of warnings must be as expected."""
        self.heard = Silent()
        with self.writer() as writer:
            report = backup_files(self.env, writer, source, selection or Selection(), self.heard)
            self.new_bytes = writer.new_bytes
        assert (len(self.heard.warnings), report.warnings) == (warnings, warnings), self.heard.warnings
        return report

    def point(self) -> Point:
        """The newest point."""
        return self.store.points.find("latest")

    def detail(self) -> Detail:
        """What the newest point says of its source."""
        return msgspec.msgpack.decode(self.point().record.detail, type=Detail)

    def packs(self) -> set[str]:
        """The packs of the store."""
        return {info.name for info in self.storage.list("packs/")}

    def seen(self) -> dict[bytes, Seen]:
        """Everything in the newest point, by its path beneath the source."""
        reader = self.store.reader(self.point())
        found: dict[bytes, Seen] = {}
        todo = [(b"", reader.root())]
        while todo:
            prefix, pages = todo.pop()
            last = b""
            for ref in pages:
                node = reader.node(ref)
                assert node.kind == NODE_KIND
                chunks, children = reader.chunk_refs(node), reader.child_refs(node)
                for entry in entries(decode_page(node.body)):
                    assert entry.name > last
                    last = entry.name
                    path = prefix + entry.name
                    refs: list[int] = []
                    content = b""
                    if stat.S_ISREG(entry.mode):
                        refs, chunks = chunks[: entry.count], chunks[entry.count :]
                        content = _content(reader, entry, refs)
                    elif stat.S_ISDIR(entry.mode):
                        refs, children = children[: entry.count], children[entry.count :]
                        todo.append((path + b"/", refs))
                    else:
                        assert entry.count == 0
                    lengths = [reader.chunk_length(ref) for ref in refs]
                    ids = [reader.chunk_id(ref) for ref in refs]
                    found[path] = Seen(entry, content, refs, lengths, ids)
                assert not chunks
                assert not children
        return found


def _content(reader: LocalReader, entry: Entry, refs: list[int]) -> bytes:
    """The bytes that a restore would write."""
    if entry.extra.flags & 2:
        assert not refs
        return b""
    chunks: dict[int, bytes] = {}

    def keep(index: int, chunk: memoryview) -> None:
        chunks[index] = bytes(chunk)

    reader.fetch([(ref, index) for index, ref in enumerate(refs)], keep)
    data = b"".join(chunks[index] for index in range(len(refs)))
    extents = entry.extra.extents
    if extents is None:
        assert len(data) == entry.size
        return data
    if entry.size > _VAST:
        assert len(data) == sum(length for _, length in extents)
        return data
    content = bytearray(entry.size)
    for offset, length in extents:
        content[offset : offset + length], data = data[:length], data[length:]
    assert not data
    assert len(content) == entry.size
    return bytes(content)


def assert_like(seen: dict[bytes, Seen], source: Path) -> None:
    """Everything beneath the source is in the point as it is there, and nothing else."""
    expected: dict[bytes, os.stat_result] = {}
    todo = [b""]
    root = os.fsencode(source)
    while todo:
        prefix = todo.pop()
        for name in os.listdir(os.path.join(root, prefix)):
            path = prefix + name
            status = os.lstat(os.path.join(root, path))
            expected[path] = status
            if stat.S_ISDIR(status.st_mode):
                todo.append(path + b"/")
    assert sorted(expected) == sorted(seen)
    for path, status in expected.items():
        place = os.path.join(root, path)
        _assert_entry(seen[path], status, place)


def _assert_entry(seen: Seen, status: os.stat_result, place: bytes) -> None:
    entry = seen.entry
    found = (entry.mode, entry.uid, entry.gid, entry.size, entry.mtime, entry.ctime, entry.inode)
    assert found == (
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino,
    )
    names = os.listxattr(place, follow_symlinks=False)
    xattrs = {os.fsencode(name): os.getxattr(place, name, follow_symlinks=False) for name in names}
    assert entry.extra.xattrs == xattrs
    assert entry.extra.flags == 0
    several = status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode)
    assert entry.extra.link == ((status.st_dev, status.st_nlink) if several else None)
    if stat.S_ISREG(status.st_mode):
        assert seen.content == Path(os.fsdecode(place)).read_bytes()
    elif stat.S_ISLNK(status.st_mode):
        assert entry.extra.target == os.readlink(place)
    elif not stat.S_ISDIR(status.st_mode):
        assert entry.extra.rdev == status.st_rdev
