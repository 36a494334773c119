# SPDX-License-Identifier: Apache-2.0
"""Where two trees or files differ: contents byte by byte, and everything else that a restore is to bring back.

Type, mode, owner and group, nanosecond time of change, target of a link, number of a device, extended attributes with
ACLs among them, which names are one file; for folders as for files. Not compared is what no restore can set: inode
numbers, times of access and of the inode's change.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

__all__ = ["differences", "same_bytes"]

_PIECE = 1 << 20


def differences(before: str, after: str) -> Iterator[str]:
    """Each difference of two trees in words; nothing where they are the same. `OSError` where one cannot be read."""
    here, there = _listed(before), _listed(after)
    yield from (f"{name!r} is missing" for name in sorted(here.keys() - there.keys()))
    yield from (f"{name!r} is too much" for name in sorted(there.keys() - here.keys()))
    if _shared(here) != _shared(there):
        yield "other names are one file"
    for name in sorted(here.keys() & there.keys()):
        yield from _entry(repr(name), os.path.join(before, name), os.path.join(after, name))


def same_bytes(one: str, other: str) -> bool:
    """Whether two files have the same content."""
    with open(one, "rb") as left, open(other, "rb") as right:
        while piece := left.read(_PIECE):
            if piece != right.read(_PIECE):
                return False
        return not right.read(1)


def _entry(name: str, before: str, after: str) -> Iterator[str]:
    was, now = os.lstat(before), os.lstat(after)
    if stat.S_IFMT(was.st_mode) != stat.S_IFMT(now.st_mode):
        yield f"{name} is of another type"
        return
    if was.st_mode != now.st_mode:
        yield f"{name} has mode {stat.filemode(now.st_mode)}, not {stat.filemode(was.st_mode)}"
    if (was.st_uid, was.st_gid) != (now.st_uid, now.st_gid):
        yield f"{name} has another owner"
    if was.st_mtime_ns != now.st_mtime_ns:
        yield f"{name} has another time"
    if was.st_rdev != now.st_rdev:
        yield f"{name} is another device"
    if _attributes(before) != _attributes(after):
        yield f"{name} has other extended attributes"
    if stat.S_ISLNK(was.st_mode) and os.readlink(before) != os.readlink(after):
        yield f"{name} points elsewhere"
    if stat.S_ISREG(was.st_mode) and (was.st_size != now.st_size or not same_bytes(before, after)):
        yield f"{name} has other content"


def _listed(root: str) -> dict[str, os.stat_result]:
    """Everything in a tree and its root, by path from there."""
    found = {"": os.lstat(root)}
    for folder, below, names in os.walk(root):
        for name in [*below, *names]:
            path = os.path.join(folder, name)
            found[os.path.relpath(path, root)] = os.lstat(path)
    return found


def _shared(listed: dict[str, os.stat_result]) -> set[frozenset[str]]:
    """The sets of names that are one file."""
    names: dict[int, set[str]] = {}
    for name, status in listed.items():
        if not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1:
            names.setdefault(status.st_ino, set()).add(name)
    return {frozenset(group) for group in names.values()}


def _attributes(path: str) -> dict[str, bytes]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:  # a file system without them
        return {}
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
