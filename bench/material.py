# SPDX-License-Identifier: Apache-2.0
"""What the benchmark's data is made of: the real files of this machine, in a stable order, and small changes to them.

Sizes, kinds and compressibility are those of a real system. Two machines give different bytes but the same shape; one
machine gives the same bytes every time, for nothing here is drawn by chance.
"""

from __future__ import annotations

import os
import random
import stat
import sysconfig
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Found", "altered", "by_chance", "read", "real_files", "real_links", "roots"]

SYSTEM = ("/usr/bin", "/usr/include", "/usr/lib", "/usr/libexec", "/usr/local", "/usr/sbin", "/usr/share")
EDIT_EVERY = 65536  # bytes; a longer file is changed in as many places more


@dataclass(frozen=True, slots=True)
class Found:
    """A readable regular file: absolute path, size in bytes."""

    path: str
    size: int


def roots() -> list[str]:
    """The folders that are walked: the system's, and this interpreter's libraries where they lie elsewhere."""
    paths = sysconfig.get_paths()
    extra = [os.path.realpath(paths[name]) for name in ("stdlib", "purelib")]
    chosen: list[str] = []
    for folder in [*SYSTEM, *extra]:
        real = os.path.realpath(folder)
        if os.path.isdir(real) and not any(real == had or real.startswith(had + "/") for had in chosen):
            chosen.append(real)
    return chosen


def real_files(folders: Iterable[str] | None = None) -> Iterator[Found]:
    """Every regular file beneath the roots that may be read, each inode once, in order of path."""
    seen: set[tuple[int, int]] = set()
    for path, status in _entries(folders):
        if stat.S_ISREG(status.st_mode) and os.access(path, os.R_OK):
            if status.st_nlink > 1:
                if (status.st_dev, status.st_ino) in seen:
                    continue
                seen.add((status.st_dev, status.st_ino))
            yield Found(path, status.st_size)


def real_links() -> Iterator[tuple[str, str]]:
    """Every symbolic link beneath the roots: its path and what it says."""
    for path, status in _entries(None):
        if stat.S_ISLNK(status.st_mode):
            yield path, os.readlink(path)


def by_chance(files: Iterable[Found]) -> list[Found]:
    """The files in an order that has nothing to do with their place, so that any beginning of it is a fair sample."""
    return sorted(files, key=lambda file: (zlib.crc32(file.path.encode(errors="surrogateescape")), file.path))


def altered(data: bytes, seed: int) -> bytes:
    """The data after a small edit: some bytes inserted and some overwritten, one of each per 64 KiB."""
    chance = random.Random(f"{seed}:{len(data)}")
    edited = bytearray(data)
    for _ in range(1 + len(data) // EDIT_EVERY):
        mark = b"%016x" % chance.getrandbits(64)
        at = chance.randrange(len(edited) + 1)
        edited[at:at] = mark
        at = chance.randrange(len(edited) - len(mark) + 1)
        edited[at : at + len(mark)] = mark[::-1]
    return bytes(edited)


def read(file: Found) -> bytes:
    """The bytes of a file of this machine."""
    return Path(file.path).read_bytes()


def _entries(folders: Iterable[str] | None) -> Iterator[tuple[str, os.stat_result]]:
    for root in roots() if folders is None else folders:
        device = os.stat(root).st_dev
        for folder, below, names in os.walk(root):
            below[:] = sorted(n for n in below if n != "lost+found" and os.lstat(f"{folder}/{n}").st_dev == device)
            links = [n for n in below if os.path.islink(f"{folder}/{n}")]
            for name in sorted([*names, *links]):
                path = f"{folder}/{name}"
                try:
                    yield path, os.lstat(path)
                except FileNotFoundError:
                    continue
