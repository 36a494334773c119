# SPDX-License-Identifier: Apache-2.0
"""What is in a directory now, page by page, in order of the bytes of the names.

Of a directory that is longer than a page only the names are kept until its pages are looked at one after the other, so
memory does not grow with it but by them.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from operator import attrgetter
from typing import TYPE_CHECKING

import msgspec

from keepstone.workloads.directories.columns import DIRECTORY, PAGE_ENTRIES, REGULAR, layout, split_names

if TYPE_CHECKING:
    from keepstone.env import FileSystem

__all__ = ["OPENED", "Listing", "Seen", "first_page", "later_page"]

OPENED = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""How a directory beneath another one is opened: never through a symbolic link."""

_CUT_FROM = PAGE_ENTRIES // 4
_CUT_BITS = PAGE_ENTRIES // 4 - 1
_name = attrgetter("name")

Lost = Callable[[bytes, OSError], None]


class Seen(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a page of a directory is compared and counted by. `names`, `table`: as in `columns`.

    `newest`: the latest mtime or ctime among its entries. `files`: all that are no directories; `size`: bytes of the
    regular ones. `users`, `groups`: the ids that occur. `directories`: (place in the page, device, inode). `links`: of
    what has several names and is no directory, by its place: device and number of names.
    """

    names: bytes
    table: bytes
    newest: int
    files: int
    size: int
    users: set[int]
    groups: set[int]
    directories: list[tuple[int, int, int]]
    links: dict[int, tuple[int, int]]


class Listing:
    """Entries of a directory, at least one. `stats` and `kinds` have one value an entry."""

    __slots__ = ("kinds", "seen", "stats")

    def __init__(self, names: bytes, stats: list[os.stat_result]) -> None:
        self.stats = stats
        # A stat_result is a sequence of its ten oldest fields; the times among them are whole seconds.
        modes, inodes, devices, names_of_each, uids, gids, sizes, _, _, _ = zip(*stats, strict=False)
        mtimes = [status.st_mtime_ns for status in stats]
        ctimes = [status.st_ctime_ns for status in stats]
        newest, newest_change = max(mtimes), max(ctimes)
        self.kinds = kinds = [mode >> 12 for mode in modes]
        count = len(kinds)
        below = kinds.count(DIRECTORY)
        if kinds.count(REGULAR) == count:
            size = sum(sizes)
        else:
            size = sum([size for size, kind in zip(sizes, kinds, strict=True) if kind == REGULAR])
        links = {}
        if below < count and max(names_of_each) > 1:
            links = {
                at: (devices[at], names_of_each[at])
                for at in range(count)
                if names_of_each[at] > 1 and kinds[at] != DIRECTORY
            }
        self.seen = Seen(
            names,
            layout(count).pack(*modes, *uids, *gids, *sizes, *mtimes, *ctimes, *inodes),
            newest if newest > newest_change else newest_change,
            count - below,
            size,
            set(uids),
            set(gids),
            [(at, devices[at], inodes[at]) for at in range(count) if kinds[at] == DIRECTORY] if below else [],
            links,
        )


def first_page(
    fs: FileSystem, folder: int, takes: Callable[[str, bool], bool] | None, lost: Lost
) -> tuple[Listing | None, list[bytes]]:
    """The first page of an open directory, None where it is empty; and the names of the later ones, last page first.

    `takes(name, is directory)`: what is wanted of it; None: everything. Told to `lost`: entries that cannot be looked
    at, or are gone.
    """
    with fs.scandir(folder) as found:  # type: ignore[arg-type]  # of its overloads mypy sees the first one here
        entries: Iterator[os.DirEntry[str]] = found
        if takes is not None:
            entries = (entry for entry in found if takes(entry.name, entry.is_dir(follow_symlinks=False)))
        few = list(islice(entries, PAGE_ENTRIES + 1))
        if len(few) > PAGE_ENTRIES:
            names = [os.fsencode(entry.name) for entry in chain(few, entries)]
            del few
            names.sort()
            pages = list(_cut(names))
            del names
            pages.reverse()
            return later_page(fs, folder, pages.pop(), lost), pages
    if not few:
        return None, []
    few.sort(key=_name)
    joined = "\0".join(map(_name, few))
    if joined.isascii():
        encoded = joined.encode("ascii")
    else:  # only then is the order of characters not the order of bytes
        few.sort(key=lambda entry: os.fsencode(entry.name))
        encoded = os.fsencode("\0".join(map(_name, few)))
    try:
        stats = [entry.stat(follow_symlinks=False) for entry in few]
    except OSError:
        return _one_by_one(fs, folder, [os.fsencode(entry.name) for entry in few], lost), []
    return Listing(encoded + b"\0", stats), []


def later_page(fs: FileSystem, folder: int, names: bytes, lost: Lost) -> Listing | None:
    """The entries with these names."""
    return _one_by_one(fs, folder, split_names(names), lost)


def _one_by_one(fs: FileSystem, folder: int, names: Iterable[bytes], lost: Lost) -> Listing | None:
    there, stats = [], []
    for name in names:
        try:
            status = fs.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            lost(name, error)
        else:
            there.append(name)
            stats.append(status)
    return Listing(b"\0".join(there) + b"\0", stats) if there else None


def _cut(names: list[bytes]) -> Iterator[bytes]:
    """Names of a long directory by page. A cut depends on the name before it, so that it stays where it is when others
    come and go.
    """
    begin = 0
    while begin < len(names):
        end = min(begin + _CUT_FROM, len(names))
        limit = min(begin + PAGE_ENTRIES, len(names))
        while end < limit and zlib.crc32(names[end - 1]) & _CUT_BITS:
            end += 1
        yield b"\0".join(names[begin:end]) + b"\0"
        begin = end
