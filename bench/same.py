# SPDX-License-Identifier: Apache-2.0
"""Whether what was restored is what was backed up: contents byte by byte, and what a file is besides.

`python -m bench.same SOURCE RESTORED` ends with 1 and the first differences where there are any. It is a program of its
own because its lists of a large tree would count as memory of whatever the benchmark starts later.
"""

from __future__ import annotations

import itertools
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["differences", "main"]

PIECE = 1 << 20  # bytes


def differences(source: Path, restored: Path) -> Iterator[str]:
    """Every difference between two files or two trees, in words; nothing where they are the same.

    A tree's files are compared by type, permissions, size, nanosecond time, link text, extended attributes, the set of
    names that share an inode, and content; folders by type and permissions. An image, by its content alone.
    """
    if source.is_file():
        if not _same_bytes(source, restored):
            yield f"{source.name}: other content"
        return
    before, after = _listed(source), _listed(restored)
    yield from (f"{name}: missing" for name in sorted(before.keys() - after.keys()))
    yield from (f"{name}: not in the source" for name in sorted(after.keys() - before.keys()))
    if _links(before) != _links(after):
        yield "hard links: other names share inodes"
    for name in sorted(before.keys() & after.keys()):
        yield from _entry(name, source / name, restored / name, before[name], after[name])


def _entry(name: str, old: Path, new: Path, was: os.stat_result, now: os.stat_result) -> Iterator[str]:
    if stat.S_IFMT(was.st_mode) != stat.S_IFMT(now.st_mode):
        yield f"{name}: of another type"
        return
    if was.st_mode != now.st_mode:
        yield f"{name}: other permissions"
    if stat.S_ISLNK(was.st_mode):
        if os.readlink(old) != os.readlink(new):
            yield f"{name}: links elsewhere"
    elif stat.S_ISREG(was.st_mode):
        if was.st_mtime_ns != now.st_mtime_ns:
            yield f"{name}: other time"
        if _attributes(old) != _attributes(new):
            yield f"{name}: other extended attributes"
        if was.st_size != now.st_size or not _same_bytes(old, new):
            yield f"{name}: other content"


def _listed(root: Path) -> dict[str, os.stat_result]:
    found: dict[str, os.stat_result] = {}
    for folder, below, names in os.walk(root):
        for name in [*below, *names]:
            path = f"{folder}/{name}"
            found[os.path.relpath(path, root)] = os.lstat(path)
    return found


def _links(listed: dict[str, os.stat_result]) -> set[frozenset[str]]:
    shared: dict[int, set[str]] = {}
    for name, status in listed.items():
        if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
            shared.setdefault(status.st_ino, set()).add(name)
    return {frozenset(names) for names in shared.values() if len(names) > 1}


def _attributes(path: Path) -> dict[str, bytes]:
    return {name: os.getxattr(path, name) for name in os.listxattr(path)}


def _same_bytes(one: Path, other: Path) -> bool:
    with one.open("rb") as left, other.open("rb") as right:
        while True:
            piece = left.read(PIECE)
            if piece != right.read(PIECE):
                return False
            if not piece:
                return True


def main() -> int:
    """Print up to twenty differences; 0 where there is none."""
    found = list(itertools.islice(differences(Path(sys.argv[1]), Path(sys.argv[2])), 20))
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
