# SPDX-License-Identifier: Apache-2.0
"""The process that looks at a tree before the backup comes there: `python -m keepstone.workloads.directories.scout`
and the number of an open directory; with a device behind it, it stays on that.

It goes through what is beneath the directory depth first, in order of names, as the backup does, and writes to its
standard output what it sees of each one. It reads no file and follows no symbolic link. What it cannot look at, or is
longer than a page, or lies too deep, it leaves to the backup, with all that is beneath.

It ends when nobody reads any more.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from keepstone.workloads.directories.scan import OPENED, Seen, first_page

if TYPE_CHECKING:
    from keepstone.env import FileSystem

__all__ = ["HEADER", "Told", "look"]

HEADER = 4
"""Bytes of a length, little-endian, before each `Told`."""
_DEEPEST = 200  # directories that are open at once
_PIECE = 64 << 10  # bytes that are written together
_EMPTY = Seen(b"", b"", 0, 0, 0, set(), set(), [], {})


class Told(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One directory. `way`: the names that lead to it from the root, each ended by a NUL byte; so ways are in the order
    in which they are told, byte by byte."""

    way: bytes
    device: int
    inode: int
    seen: Seen


class _Left(Exception):
    """Something in a directory is for the backup to see to."""


def look(fs: FileSystem, root: int, tell: Callable[[Told], None], device: int | None = None) -> None:
    """Tell of each directory beneath the open `root`, with a `device` of those that are on it. What `tell` raises."""
    stack = [(root, b"", _look(fs, root, b"", lambda _: None, device))]
    while stack:
        folder, way, below = stack[-1]
        if not below:
            stack.pop()
            if folder != root:
                fs.close(folder)
            continue
        name = below.pop()
        if len(stack) > _DEEPEST:
            continue
        try:
            opened = fs.open(name, OPENED, dir_fd=folder)
        except OSError:
            continue
        stack.append((opened, way + name + b"\0", []))
        stack[-1][2].extend(_look(fs, opened, stack[-1][1], tell, device))


def _look(fs: FileSystem, folder: int, way: bytes, tell: Callable[[Told], None], device: int | None) -> list[bytes]:
    """Tell of an open directory; the names of the directories in it to go on with, last first."""
    try:
        status = fs.fstat(folder)
        listing, later = first_page(fs, folder, None, _leave)
    except (OSError, _Left):
        return []
    if later:
        return []
    seen = _EMPTY if listing is None else listing.seen
    tell(Told(way, status.st_dev, status.st_ino, seen))
    if not seen.directories:
        return []
    names = seen.names.split(b"\0")
    return [names[place] for place, where, _ in reversed(seen.directories) if device is None or where == device]


def _leave(_: bytes, error: OSError) -> None:
    raise _Left from error


def _main(root: int, device: int | None = None) -> None:
    waiting = bytearray()
    encode = msgspec.msgpack.Encoder().encode

    def send() -> None:
        while waiting:
            del waiting[: os.write(1, waiting)]

    def tell(told: Told) -> None:
        message = encode(told)
        waiting.extend(len(message).to_bytes(HEADER, "little"))
        waiting.extend(message)
        if len(waiting) >= _PIECE:
            send()

    look(os, root, tell, device)  # type: ignore[arg-type]  # the calls of `FileSystem` are those of `os`
    send()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        _main(*map(int, sys.argv[1:]))
