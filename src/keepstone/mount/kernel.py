# SPDX-License-Identifier: Apache-2.0
"""The words of the kernel's FUSE protocol that a read-only file system needs (linux/fuse.h, version 7).

The protocol is a promise of the kernel to every program, so it is spoken here without a library between: that needs no
package on the machine, answers a listing with all attributes at once, and tells where the holes of a file are.
Numbers are in the machine's own byte order.
"""

from __future__ import annotations

import os
import stat
from struct import Struct

from keepstone.workloads.files.page import Entry

__all__ = [
    "BATCH_FORGET",
    "DATA",
    "DESTROY",
    "ENTRY_SIZE",
    "FORGET",
    "FORGET_ONE",
    "GETATTR",
    "GETXATTR",
    "HOLE",
    "INIT",
    "INTERRUPT",
    "LISTXATTR",
    "LOOKUP",
    "LSEEK",
    "MOST_READ",
    "NUMBER",
    "POSITION",
    "READ",
    "READDIR",
    "READDIRPLUS",
    "READLINK",
    "REQUEST",
    "SEEK",
    "SIZE",
    "STATFS",
    "XATTR",
    "answer",
    "attributes",
    "directory_entry",
    "entry",
    "greeting",
    "no_entry",
    "statistics",
]

LOOKUP, FORGET, GETATTR, READLINK = 1, 2, 3, 5
READ, STATFS, GETXATTR, LISTXATTR = 15, 17, 22, 23
INIT, READDIR, INTERRUPT, DESTROY, BATCH_FORGET, READDIRPLUS, LSEEK = 26, 28, 36, 38, 42, 44, 46

DATA, HOLE = 3, 4
"""What LSEEK looks for, as lseek(2) calls it."""
MOST_READ = 1 << 20
"""Bytes of one READ at most."""

REQUEST = Struct("=IIQQIIIHH")
"""length, operation, unique, node, uid, gid, pid, length of extensions, padding: what every request begins with."""
POSITION = Struct("=QQI")
"""handle, offset, size: of READ, READDIR, READDIRPLUS."""
SEEK = Struct("=QQI")
"""handle, offset, whence: of LSEEK."""
XATTR = Struct("=II")
"""size, padding: of GETXATTR and LISTXATTR."""
SIZE = Struct("=II")
"""How long an attribute is, or how many things are forgotten; padding."""
FORGET_ONE = Struct("=QQ")
"""node, lookups: one of BATCH_FORGET."""
NUMBER = Struct("=Q")
"""How often the kernel forgets something, or where LSEEK leads to."""

_ANSWER = Struct("=IiQ")
_VERSIONS = Struct("=IIII")
_GREETING = Struct("=IIIIHHIIHHIIH22x")
_ATTRIBUTES = Struct("=QQQqqqIIIIIIIIII")
_ATTRIBUTES_FOR = Struct("=QII")
_ENTRY = Struct("=QQQQII")
_DIRECTORY_ENTRY = Struct("=QQII")
_STATISTICS = Struct("=QQQQQIIII24x")

ENTRY_SIZE = _ENTRY.size + _ATTRIBUTES.size
"""Bytes that READDIRPLUS has more for an entry than READDIR."""

_VERSION, _OLDEST = (7, 31), 23
_ASYNC_READ, _READDIRPLUS, _READDIRPLUS_AUTO = 1 << 0, 1 << 13, 1 << 14
_NO_OPEN, _PARALLEL_LOOKUPS, _ACLS, _MAX_PAGES, _KEEP_LINKS, _NO_OPENDIR = (
    1 << bit for bit in (17, 18, 20, 22, 23, 24)
)
_BACKGROUND = 16  # requests at a time that nobody waits for yet: the kernel's read-ahead
_FOR_EVER = 1 << 30  # seconds that the kernel may believe what it was told: a point never changes
_BLOCK = 512


def answer(unique: int, length: int, error: int = 0) -> bytes:
    """What stands before the `length` bytes of an answer; `error`: an errno."""
    return _ANSWER.pack(_ANSWER.size + length, -error, unique)


def greeting(request: memoryview, *, permissions: bool) -> bytes:
    """The answer to INIT; with `permissions` the kernel looks at ACLs. `OSError` for a kernel that is too old."""
    major, minor, ahead, offered = _VERSIONS.unpack_from(request)
    if major < _VERSION[0] or (major == _VERSION[0] and minor < _OLDEST):
        raise OSError(f"its FUSE protocol is {major}.{minor}; it should be 7.{_OLDEST} or newer")
    wanted = _ASYNC_READ | _READDIRPLUS | _READDIRPLUS_AUTO | _NO_OPEN | _PARALLEL_LOOKUPS
    wanted |= _MAX_PAGES | _KEEP_LINKS | _NO_OPENDIR | (_ACLS if permissions else 0)
    version = min(minor, _VERSION[1]) if major == _VERSION[0] else _VERSION[1]
    pages = MOST_READ // os.sysconf("SC_PAGE_SIZE")
    ahead = max(ahead, MOST_READ)
    return _GREETING.pack(
        7, version, ahead, wanted & offered, _BACKGROUND, _BACKGROUND * 3 // 4, 4096, 1, pages, 0, 0, 0, 0
    )


def attributes(inode: int, entry: Entry) -> bytes:
    """The answer to GETATTR."""
    return _ATTRIBUTES_FOR.pack(_FOR_EVER, 0, 0) + _attributes(inode, entry)


def _attributes(inode: int, entry: Entry) -> bytes:
    extra = entry.extra
    stored = entry.size if extra.extents is None else sum(length for _, length in extra.extents)
    blocks = -(-stored // _BLOCK) if stat.S_ISREG(entry.mode) else 0
    # Directories have one name: who counts subdirectories by their links is told that he cannot.
    links = 1 if extra.link is None or stat.S_ISDIR(entry.mode) else extra.link[1] & 0xFFFFFFFF
    modified, modified_ns = divmod(entry.mtime, 10**9)
    changed, changed_ns = divmod(entry.ctime, 10**9)
    return _ATTRIBUTES.pack(
        inode,
        entry.size,
        blocks,
        modified,
        modified,
        changed,
        modified_ns,
        modified_ns,
        changed_ns,
        entry.mode,
        links,
        entry.uid,
        entry.gid,
        _device(extra.rdev),
        4096,
        0,
    )


def _device(number: int) -> int:
    """A device number as the kernel writes it (new_encode_dev)."""
    major, minor = os.major(number) & 0xFFF, os.minor(number) & 0xFFFFF
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)


def entry(node: int, inode: int, entry: Entry) -> bytes:
    """The answer to LOOKUP, and what stands before an entry of READDIRPLUS."""
    return _ENTRY.pack(node, 0, _FOR_EVER, _FOR_EVER, 0, 0) + _attributes(inode, entry)


def no_entry() -> bytes:
    """The answer to LOOKUP for a name that there is not."""
    return _ENTRY.pack(0, 0, _FOR_EVER, 0, 0, 0) + bytes(_ATTRIBUTES.size)


def directory_entry(inode: int, following: int, mode: int, name: bytes) -> bytes:
    """An entry of READDIR; `following`: where the listing goes on behind it."""
    head = _DIRECTORY_ENTRY.pack(inode, following, len(name), mode >> 12 & 0xF)
    return head + name + bytes(-len(name) % 8)


def statistics(size: int, files: int) -> bytes:
    """The answer to STATFS: all of it in use."""
    return _STATISTICS.pack(-(-size // 4096), 0, 0, files, 0, 4096, 255, 4096, 0)
