# SPDX-License-Identifier: Apache-2.0
"""What a machine remembers of the disks that it backs up: which of their chunks are as they were, without their ids.

A disk that does not track its changes is read in full, and most of what was read did not change. A chunk's code costs a
quarter of its id; where it fits, the chunk is the one that the previous point has there. Codes lie in the cache of the
machine that made that point, a file for each disk:

    "KSFP1\\n" · salt 32 · point 32 · code of these 70 bytes · code of chunk 0 · code of chunk 1 · …     16 each

Codes are those of `crypto.blockmac` under a key of the salt, the item and the disk; zeros where nobody noted one.
`point` stands for the point's id. A file that is missing, of another point, or damaged in any way costs time, and
nothing else: without its key nobody can make a code that fits.

Invariants
* Nothing is compared but with the point that the writer takes for its parent.
* Each point has a salt of its own and so a key of its own, under which each chunk of the disk gets one code.
* The file appears after its point is durable, whole, in the place of the one before. What a process that was killed had
  begun has no name, and is gone.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable
from pathlib import Path

from keepstone.crypto import BlockMac
from keepstone.crypto.binding import bind
from keepstone.env import Env
from keepstone.files import have_folders
from keepstone.objects import Buffer

__all__ = ["Column", "DiskMemory", "Fingerprints"]

_MAGIC = b"KSFP1\n"
_HEAD = struct.Struct("<6s32s32s")
_SIZE = BlockMac.SIZE
_CODES = _HEAD.size + _SIZE  # where they begin
_NONE = bytes(_SIZE)
_NO_LIMIT = 1 << 62
_KEPT = 90 * 86_400 * 10**9  # nanoseconds after which a file that nobody made anew goes


class Fingerprints:
    """Those of a disk: of its previous point, and of the one that is being made. Several threads may have columns."""

    def __init__(self, env: Env, path: Path, key: Callable[[bytes], bytes], parent: bytes, most: int) -> None:
        """`key` makes a key of a salt; `parent` stands for the parent's id; `most`: bytes that the file may have.
        `OSError` where there is no room."""
        self._fs, self.path, self._most = env.fs, path, most
        self._salt = env.random(32)
        self._mac = BlockMac(key(self._salt))
        self._before: tuple[BlockMac, int] | None = None
        self._file = env.fs.open(path.parent, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        self._opened = [self._file]
        self._sound = True
        with contextlib.suppress(OSError):
            self._open(key, parent)

    def _open(self, key: Callable[[bytes], bytes], parent: bytes) -> None:
        file = self._fs.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            data = self._fs.pread(file, _CODES, 0)
            if len(data) == _CODES:
                head, code = data[: _HEAD.size], data[_HEAD.size :]
                magic, salt, point = _HEAD.unpack(head)
                mac = BlockMac(key(salt))
                if magic == _MAGIC and point == parent and mac.fits(code, BlockMac.LAST, head):
                    self._before = mac, file
                    self._opened.append(file)
                    file = -1
        finally:
            if file >= 0:
                self._fs.close(file)

    def column(self, first: int, count: int) -> Column:
        """That of `count` chunks from the number `first` on."""
        codes = b""
        if self._before is not None:
            with contextlib.suppress(OSError):
                codes = self._fs.pread(self._before[1], _SIZE * count, _CODES + _SIZE * first)
        return Column(self, first, codes)

    def code(self, number: int, chunk: Buffer) -> bytes:
        """That of the chunk which has this number now."""
        return self._mac.of(number, chunk)

    def fits(self, code: bytes, number: int, chunk: Buffer) -> bool:
        """Whether this is the code of a chunk that the previous point has there."""
        return self._before is not None and self._before[0].fits(code, number, chunk)

    def note(self, first: int, codes: Buffer) -> None:
        """Put the codes of the chunks from this number on into the new file."""
        self._write(codes, _CODES + _SIZE * first)

    def _write(self, data: Buffer, offset: int) -> None:
        rest = memoryview(data)
        self._sound = self._sound and offset + len(rest) <= self._most
        try:
            while rest and self._sound:
                written = self._fs.pwrite(self._file, rest, offset)
                rest, offset = rest[written:], offset + written
        except OSError:  # such as a full disk
            self._sound = False

    def keep(self, point: bytes) -> None:
        """What was noted is what the point has whose id this stands for."""
        head = _HEAD.pack(_MAGIC, self._salt, point)
        self._write(head + self._mac.of(BlockMac.LAST, head), 0)
        beside = f"{self.path}.{self._salt[:4].hex()}"
        if self._sound:
            with contextlib.suppress(OSError):
                # an absolute path needs no folder, but without one `os.link` would not follow the link
                self._fs.link(f"/proc/self/fd/{self._file}", beside, src_dir_fd=self._file, follow_symlinks=True)
                self._fs.rename(beside, self.path)

    def close(self) -> None:
        """What was not kept is gone. Harmless when repeated, also after it was interrupted."""
        while self._opened:
            with contextlib.suppress(OSError):  # a point that is durable does not fail over its cache
                self._fs.close(self._opened.pop())


class Column:
    """Consecutive chunks of a disk, from the number `first` on, and the `codes` that they had. One thread uses it."""

    def __init__(self, fingerprints: Fingerprints, first: int, codes: bytes) -> None:
        self._fingerprints, self._first, self._codes = fingerprints, first, codes
        self._now = bytearray()

    def same(self, index: int, chunk: Buffer) -> bool:
        """Note the chunk that is at this index now, in ascending order; whether the previous point has it there."""
        number, at = self._first + index, _SIZE * index
        self._now += bytes(at - len(self._now)) + self._fingerprints.code(number, chunk)
        code = self._codes[at : at + _SIZE]
        return len(code) == _SIZE and code != _NONE and self._fingerprints.fits(code, number, chunk)

    def close(self) -> None:
        """That was all of it."""
        self._fingerprints.note(self._first, self._now)


class DiskMemory:
    """The fingerprints of all disks of one item, for one writer. `folder` of None remembers nothing."""

    def __init__(
        self,
        env: Env,
        folder: Path | None,
        item: str,
        derive: Callable[[bytes], bytes],
        parent: str,
        *,
        most: int = _NO_LIMIT,
    ) -> None:
        """`derive` makes 32 secret bytes of a text; `item`: what it is called in names of files; `parent`: the id of
        the parent, or empty; `most`: bytes that are kept of a disk, or nothing of it is."""
        self._env, self._folder, self._item, self._derive, self._parent = env, folder, item, derive, parent
        self._most = most
        self._open: list[Fingerprints] = []

    def of(self, disk: str) -> Fingerprints | None:
        """Those of the disk with this name, for one caller; None where nothing can be remembered."""
        if self._folder is None:
            return None
        about = b"fingerprints/v1", self._item.encode(), disk.encode("utf-8", "surrogateescape")
        path = self._folder / f"{self._item}-{self._derive(bind(*about)).hex()[:16]}"
        if any(path == other.path for other in self._open):  # one that is taken for the other would spoil its points
            return None
        try:
            have_folders(self._env.fs, self._folder)
            parent = self._named(self._parent)
            made = Fingerprints(self._env, path, lambda salt: self._derive(bind(*about, salt)), parent, self._most)
        except OSError:
            return None
        self._open.append(made)
        return made

    def _named(self, point: str) -> bytes:
        return self._derive(bind(b"fingerprints/point/v1", point.encode()))

    def keep(self, point: str) -> None:
        """The point with this id is durable."""
        for fingerprints in self._open:
            fingerprints.keep(self._named(point))
        self.close()
        if self._folder is not None:
            self._forget(self._folder)

    def _forget(self, folder: Path) -> None:
        now = self._env.wall_time()
        with contextlib.suppress(OSError):
            for name in self._env.fs.listdir(folder):
                path = folder / name
                if now - self._env.fs.lstat(path).st_mtime_ns > _KEPT:
                    self._env.fs.unlink(path)

    def close(self) -> None:
        """Let go of what was not kept. Harmless when repeated, also after it was interrupted."""
        for fingerprints in self._open:
            fingerprints.close()
        self._open.clear()
