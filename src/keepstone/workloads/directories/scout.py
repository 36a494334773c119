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
import gc
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from keepstone.workloads.directories.columns import split_names
from keepstone.workloads.directories.scan import OPENED, Seen, first_page

if TYPE_CHECKING:
    from keepstone.env import FileSystem

__all__ = ["HEADER", "Told", "look"]

HEADER = 4
"""Bytes of a length, little-endian, before each message, which is a list of `Told`."""
_DEEPEST = 200  # directories that are open at once
_PIECE = 32 << 10  # bytes that are told of together
_EMPTY = Seen(b"", b"", 0, 0, 0, set(), set(), [], {})


class Told(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One directory. `way`: the names that lead to it from the root, each ended by a NUL byte; so ways are in the order
    in which they are told, byte by byte. `device`, `inode`: as the directory above has them."""

    way: bytes
    device: int
    inode: int
    seen: Seen


class _Left(Exception):
    """Something in a directory is for the backup to see to."""


def look(fs: FileSystem, root: int, tell: Callable[[Told], None], device: int | None = None) -> None:
    """Tell of each directory beneath the open `root`, with a `device` of those that are on it. What `tell` raises."""
    stack = [(root, b"", _below(_seen(fs, root), device))]
    while stack:
        folder, way, below = stack[-1]
        if not below:
            stack.pop()
            if folder != root:
                fs.close(folder)
            continue
        name, its_device, its_inode = below.pop()
        if len(stack) > _DEEPEST:
            continue
        try:
            opened = fs.open(name, OPENED, dir_fd=folder)
        except OSError:
            continue
        seen = _seen(fs, opened)
        if seen is not None:
            way = way + name + b"\0"
            tell(Told(way, its_device, its_inode, seen))
            if seen.directories:
                stack.append((opened, way, _below(seen, device)))
                continue
        fs.close(opened)


def _seen(fs: FileSystem, folder: int) -> Seen | None:
    """What is in an open directory; None where the backup has to see to it."""
    try:
        listing, later = first_page(fs, folder, None, _leave)
    except (OSError, _Left):
        return None
    if later:
        return None
    return _EMPTY if listing is None else listing.seen


def _below(seen: Seen | None, device: int | None) -> list[tuple[bytes, int, int]]:
    """Name, device and inode of the directories to go on with, last first."""
    if seen is None:
        return []
    names = split_names(seen.names)
    return [
        (names[place], its_device, inode)
        for place, its_device, inode in reversed(seen.directories)
        if device is None or its_device == device
    ]


def _leave(_: bytes, error: OSError) -> None:
    raise _Left from error


def _main(root: int, device: int | None = None) -> None:
    gc.disable()  # what is made by the hundred thousand are trees, which go by their counts
    waiting: list[Told] = []
    size = 0
    encode = msgspec.msgpack.Encoder().encode

    def send() -> None:
        nonlocal size
        message = encode(waiting)
        view = memoryview(len(message).to_bytes(HEADER, "little") + message)
        waiting.clear()
        size = 0
        while view:
            view = view[os.write(1, view) :]

    def tell(told: Told) -> None:
        nonlocal size
        waiting.append(told)
        size += len(told.way) + len(told.seen.names) + len(told.seen.table)
        if size >= _PIECE:
            send()

    look(os, root, tell, device)  # type: ignore[arg-type]  # the calls of `FileSystem` are those of `os`
    send()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        _main(*map(int, sys.argv[1:]))
