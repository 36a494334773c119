# SPDX-License-Identifier: Apache-2.0
"""A page of a directory: the manifest node of the files workload.

A directory is pages of at most `PAGE_ENTRIES` entries, in order of the bytes of their names; an empty one has none.
Where a longer directory is cut depends on the names beside the cut only, so that a new file costs one page. A page's
body is columns, so that a directory that did not change is recognised by comparing a few byte strings, without looking
at one entry.

Columns (little-endian, one value an entry): `modes` u32 the whole st_mode; `uids`, `gids` u32; `sizes` i64; `mtimes`,
`ctimes` i64, ns; `inodes` u64; `counts` u32: for a regular file the number of data chunks, for a directory the number
of its pages, else 0. `names`: the names, each ended by a NUL byte (no name contains one, and none contains a slash).
The node's chunks are those of the files one after the other, its children the pages of the directories one after the
other.

`extras`: what few entries have, by the entry's index: see `Extra`. ctime and inode are only for recognising unchanged
files; access times are not kept, because the backup itself would change them.
"""

from __future__ import annotations

import stat
import sys
from array import array
from collections.abc import Iterator, Sequence
from operator import attrgetter

import msgspec

from keepstone.errors import CorruptObject
from keepstone.workloads.directories.columns import COLUMNS, DIRECTORY, PAGE_ENTRIES, REGULAR, SYMLINK, split_names

__all__ = [
    "CHANGED",
    "COLUMNS",
    "DIRECTORY",
    "NODE_KIND",
    "NO_EXTRA",
    "PAGE_ENTRIES",
    "REGULAR",
    "SYMLINK",
    "UNREADABLE",
    "Detail",
    "Entry",
    "Extra",
    "Page",
    "column",
    "decode_page",
    "encode_page",
    "entries",
    "split_names",
    "stored",
]

NODE_KIND = "files/page"
CHANGED, UNREADABLE = 1, 2
"""Flags of `Extra`."""


class Extra(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """Rare properties of an entry.

    `target`: of a symbolic link. `xattrs`: names and values, among them `system.posix_acl_*` and `security.capability`.
    `rdev`: device number of a device node. `link`: (st_dev, st_nlink) of a regular file or special file with several
    names: entries of one point with equal device and inode are one file. `extents`: (offset, length) of the data of a
    sparse file: its chunks fill these one after the other, all else is a hole. `flags`: 1 = the file changed while it
    was read: its content may mix old and new; 2 = the file or directory could not be read: it has no chunks or pages,
    whatever its size.
    """

    target: bytes = b""
    xattrs: dict[bytes, bytes] = {}
    rdev: int = 0
    link: tuple[int, int] | None = None
    extents: list[tuple[int, int]] | None = None
    flags: int = 0


class Page(msgspec.Struct, frozen=True, array_like=True):
    """The body of a page; see the module for the columns."""

    names: bytes
    modes: bytes
    uids: bytes
    gids: bytes
    sizes: bytes
    mtimes: bytes
    ctimes: bytes
    inodes: bytes
    counts: bytes
    extras: dict[int, Extra] = {}


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One entry, out of its columns."""

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    ctime: int
    inode: int
    count: int
    extra: Extra

    @property
    def kind(self) -> str:
        """What it is, in a word."""
        return _KINDS.get(stat.S_IFMT(self.mode), "other")


class Detail(msgspec.Struct, frozen=True):
    """What the point's record says beside its root. `root`: the entry of the root directory itself, a page with this
    one entry named `.`; empty where `single`: the source was one file, which is the only entry of the root page.
    `users`, `groups`: names of the ids that occur. `patterns`: what was excluded; behind `include:` what alone was
    taken, behind `always:` and `never:` what was left out whatever the others say; see `selection.Rules.patterns`.
    """

    root: bytes
    single: bool
    users: dict[int, str]
    groups: dict[int, str]
    patterns: list[str]


_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
_CODES = COLUMNS + "I"
_WIDTHS = {code: array(code).itemsize for code in _CODES}
_columns = attrgetter("modes", "uids", "gids", "sizes", "mtimes", "ctimes", "inodes", "counts")
NO_EXTRA = Extra()
_decoder = msgspec.msgpack.Decoder(Page)
_encoder = msgspec.msgpack.Encoder()


def stored(typecode: str, values: Sequence[int]) -> bytes:
    """A column's stored form."""
    column = array(typecode, values)
    if sys.byteorder == "big":
        column.byteswap()
    return column.tobytes()


def column(typecode: str, data: bytes, count: int) -> array[int]:
    """The values of a stored column; `CorruptObject` where there are not `count`."""
    if len(data) != count * _WIDTHS[typecode]:
        raise CorruptObject("a page of a directory has columns of different lengths; run `keepstone store verify`")
    values = array(typecode, data)
    if sys.byteorder == "big":
        values.byteswap()
    return values


def encode_page(page: Page) -> bytes:
    """The stored form of a page."""
    return _encoder.encode(page)


def decode_page(body: bytes) -> Page:
    """Read a page; `CorruptObject` where it is none."""
    try:
        return _decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise CorruptObject(f"a page of a directory cannot be read ({error}); run `keepstone store verify`") from error


def entries(page: Page) -> Iterator[Entry]:
    """The entries of a page, in order of their names."""
    names, extras = split_names(page.names), page.extras
    count = len(names)
    columns = [column(code, data, count) for code, data in zip(_CODES, _columns(page), strict=True)]
    all_extras = [extras.get(at, NO_EXTRA) for at in range(count)] if extras else [NO_EXTRA] * count
    return map(Entry, names, *columns, all_extras)
