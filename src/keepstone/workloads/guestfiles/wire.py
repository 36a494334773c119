# SPDX-License-Identifier: Apache-2.0
"""What the two processes say to each other.

A message is its kind (u8), a length (u32, little-endian), and so many bytes. A request of the parent is answered by
any number of `PART` or `DATA`, and then by `DONE` or `FAILED`; in between the child may ask for blocks of the disk
(`WANT`), and gets `BLOCKS`, or `NO_BLOCKS` where they cannot be read.

The bytes of `BLOCKS` and `DATA` are in memory that both have, of `SHARED` bytes: blocks at its beginning, the pieces of
files behind the first `MOST`, each behind the room of those before it. So none is overwritten until the next request.

What the parent reads was written by a process that hostile data may have taken over: lengths are checked before memory
is taken, and what is decoded is of a declared type, or refused.
"""

from __future__ import annotations

import struct
from typing import Annotated, TypeAlias

import msgspec

__all__ = [
    "BLOCKS",
    "DATA",
    "DONE",
    "FAILED",
    "HEADER",
    "MOST",
    "NO_BLOCKS",
    "PART",
    "PIECE",
    "REQUEST",
    "SHARED",
    "WANT",
    "WANTED",
    "Answers",
    "Item",
    "List",
    "Piece",
    "Read",
    "Request",
    "Volume",
    "Volumes",
    "moment",
]

HEADER = struct.Struct("<BI")
WANTED = struct.Struct("<QI")
"""Of a `WANT`: offset on the disk, length."""
REQUEST, BLOCKS, NO_BLOCKS = 1, 2, 3
WANT, PART, DATA, DONE, FAILED = 4, 5, 6, 7, 8
MOST = 4 << 20
"""Bytes of a message at most."""
SHARED = 2 * MOST
PIECE = 1 << 20
"""Bytes of a file that are read at once."""


_U32: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
_U63: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_I64: TypeAlias = Annotated[int, msgspec.Meta(le=2**63 - 1)]
_STREAM: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**16 - 1)]


def moment(time: int) -> int:
    """A time in ns that has room in an `Item`."""
    return max(-(2**63), min(time, 2**63 - 1))


class Volume(msgspec.Struct, frozen=True, array_like=True):
    """A part of a disk that may hold a file system.

    `name`: the first component of its paths. `number`: of its partition as Linux counts them, 0 where the disk has no
    table or the volume is a logical one. `offset`, `size`: bytes; the offset of a logical volume is that of its first
    extent. `filesystem`: a word, or empty where nothing was found that can be read; `label`: as its owner calls it.
    `note`: for people, why it cannot be read, or what is known of it. `parts`: (offset, length) of its bytes on the
    disk, in the order that they have in it, where they are not all that lies between `offset` and `size` behind that.
    """

    name: str
    number: _U32
    offset: _U63
    size: _U63
    filesystem: str = ""
    label: str = ""
    note: str = ""
    parts: Annotated[list[tuple[_U63, _U63]], msgspec.Meta(max_length=256)] = []

    @property
    def is_readable(self) -> bool:
        """Whether its files can be had."""
        return bool(self.filesystem) and not self.note

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """(offset, length) of its bytes on the disk."""
        return self.parts or [(self.offset, self.size)]


class Item(msgspec.Struct, array_like=True, gc=False):
    """An entry of a directory. `mode`: as st_mode; times in ns since 1970 UTC. `inode`: what names it in its volume,
    with `stream`, one of the streams of an NTFS file, 0 for the only one. `extents`: (offset, length) of the data where
    the rest is a hole. `unreadable`: it is damaged, and nothing but its name is known. `refused`: its content is kept
    in a way that is not read."""

    name: bytes
    mode: _U32
    uid: _U32
    gid: _U32
    size: _U63
    mtime: _I64
    ctime: _I64
    inode: _U63
    stream: _STREAM = 0
    links: _U32 = 1
    target: bytes = b""
    rdev: _U63 = 0
    extents: list[tuple[_U63, _U63]] | None = None
    unreadable: bool = False
    refused: bool = False


class Piece(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Bytes of a file. `packed`: counted in its data alone, without the holes that `Item.extents` tells of."""

    volume: int
    inode: int
    stream: int
    packed: bool
    offset: int
    length: int


class Volumes(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """What is on the disk? Answered by one part, `list[Volume]`."""


class List(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """What is in a directory, `inode` 0 for the root of this volume, by its place in the answer to `Volumes`? Answered
    by parts, `list[Item]`, in order of the names."""

    volume: int
    inode: int


class Read(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Bytes of files, `MOST` at most. Each piece is answered by `DATA`, which is empty where it cannot be read."""

    pieces: list[Piece]


Request = Volumes | List | Read


class Answers:
    """Decoders of what the child says."""

    volumes = msgspec.msgpack.Decoder(list[Volume])
    items = msgspec.msgpack.Decoder(list[Item])
