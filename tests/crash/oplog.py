# SPDX-License-Identifier: Apache-2.0
"""The log of one recorded run: what happened to the files, in the order in which it happened.

`shim.c` writes it, `model.py` replays it. Files and directories are named by inode number; a number may come back after
its file is gone, and then a CREATE or MKDIR says so.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

__all__ = ["Counters", "Kind", "Record", "read", "read_counters"]

_RECORD = struct.Struct("<IIQQQQqIHHc7x")  # struct record of shim.c
_CONTROL = struct.Struct("<IIQQ")  # the head of struct control


class Kind(Enum):
    """What a record says. Removing a directory is an UNLINK too."""

    CREATE = "c"
    MKDIR = "m"
    WRITE = "w"
    SIZE = "t"
    SYNC = "s"
    SYNC_FAILED = "f"
    SYNC_ALL = "g"
    RENAME = "r"
    LINK = "l"
    UNLINK = "u"
    ACK = "a"


@dataclass(frozen=True, slots=True)
class Record:
    """One successful operation, one failed fsync, or one acknowledgement.

    `operation` counts mutating operations over all processes from 1, failed ones too; it is what a fault is aimed at.
    `name` stands in the directory with inode `dir`, `name2` in `dir2`. `offset` is the place of a write, the size
    of a SIZE, the other file's inode of an exchange. `flags`: permission bits of CREATE and MKDIR, 1 for a write that
    is durable at once (O_DSYNC), renameat2's flags.
    """

    kind: Kind
    pid: int
    operation: int
    inode: int
    dir: int
    dir2: int
    offset: int
    flags: int
    name: str
    name2: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Counters:
    """What a run's control file says at its end: mutating operations, faults injected, whether one killed it."""

    operations: int
    hits: int
    killed: bool


def read(path: Path) -> list[Record]:
    """The records of the log at `path`, without one cut off at the end (its process was killed from outside)."""
    return list(_records(path.read_bytes())) if path.exists() else []


def _records(log: bytes) -> Iterator[Record]:
    at = 0
    while at + _RECORD.size <= len(log):
        length, pid, operation, inode, dir1, dir2, offset, flags, len1, len2, kind = _RECORD.unpack_from(log, at)
        if at + length > len(log):
            return
        start = at + _RECORD.size
        name = log[start : start + len1].decode("utf-8", "surrogateescape")
        name2 = log[start + len1 : start + len1 + len2].decode("utf-8", "surrogateescape")
        data = log[start + len1 + len2 : at + length]
        yield Record(Kind(kind.decode()), pid, operation, inode, dir1, dir2, offset, flags, name, name2, data)
        at += length


def read_counters(path: Path) -> Counters:
    """The counters of the control file at `path`."""
    _, dead, operations, hits = _CONTROL.unpack_from(path.read_bytes())
    return Counters(operations, hits, bool(dead))
