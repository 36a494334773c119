# SPDX-License-Identifier: Apache-2.0
"""Everything in a restore that is neither a regular file nor a directory, and the further names of what has several.

A hard link is made only to an inode that this restore made: it is opened by its first name, compared, and linked by its
descriptor (`/proc/self/fd/N`, linkat(2)), so that nobody can put another inode in its place meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from keepstone.env import Env
from keepstone.workloads.files.page import Entry
from keepstone.workloads.files.restore.apply import REFUSED, Finisher
from keepstone.workloads.files.restore.beneath import Beneath
from keepstone.workloads.files.restore.place import Place
from keepstone.workloads.files.restore.report import Findings

__all__ = ["Nodes"]

_KINDS = {stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK}
_HANDLE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True)
class _Inode:
    """One that this restore made and that is to have more names: where and which it is, and how many are to come."""

    path: bytes
    identity: tuple[int, int]
    left: int


class Nodes:
    """Gathers entries until `make`. Several threads may call `remember`."""

    def __init__(self, env: Env, beneath: Beneath, finisher: Finisher, findings: Findings) -> None:
        self._fs = env.fs
        self._beneath = beneath
        self._finisher = finisher
        self._findings = findings
        self._nodes: list[Place] = []
        self._links: list[Place] = []
        self._inodes: dict[tuple[int, int], _Inode | None] = {}

    def has_inode(self, entry: Entry) -> bool:
        """Whether this restore makes, or has made, an inode that is this entry under another name."""
        return entry.extra.link is not None and _key(entry) in self._inodes

    def is_link(self, place: Place) -> bool:
        """Take an entry with several names that is a further name of an earlier one; else it is to be made."""
        key = _key(place.entry)
        if key in self._inodes:
            self._links.append(place)
            return True
        self._inodes[key] = None
        return False

    def add(self, place: Place) -> None:
        """Take an entry without content."""
        self._nodes.append(place)

    def remember(self, fd: int, place: Place) -> None:
        """This inode was made, and has further names if its entry says so."""
        if place.entry.extra.link is not None:
            found = self._fs.fstat(fd)
            names = place.entry.extra.link[1]
            self._inodes[_key(place.entry)] = _Inode(place.lasting, (found.st_dev, found.st_ino), names - 1)

    def make(self) -> None:
        """Make what was taken, links last."""
        nodes, self._nodes = self._nodes, []
        links, self._links = self._links, []
        for place in nodes:
            self._make(place, self._node)
        for place in links:
            self._make(place, self._link)
        for key in {_key(place.entry) for place in links}:
            inode = self._inodes[key]
            if inode is not None and inode.left <= 0:
                del self._inodes[key]

    def _make(self, place: Place, make: Callable[[Place], None]) -> None:
        directory = place.directory.fd
        try:
            make(place)
            if place.final is not None:
                self._fs.rename(place.name, place.final, src_dir_fd=directory, dst_dir_fd=directory)
            self._findings.files += 1
            self._findings.progress.advance(0, 1)
        except REFUSED as error:
            if place.done:
                with contextlib.suppress(OSError):  # somebody else removed it
                    self._fs.unlink(place.name, dir_fd=directory)
            device = stat.S_ISBLK(place.entry.mode) or stat.S_ISCHR(place.entry.mode)
            if device and isinstance(error, PermissionError):
                self._findings.often(place.path, "devices are left out: only a privileged user can make them")
            else:
                self._findings.refuse(place.path, error)

    def _node(self, place: Place) -> None:
        entry, directory = place.entry, place.directory.fd
        kind = stat.S_IFMT(entry.mode)
        if kind == stat.S_IFLNK:
            self._fs.symlink(entry.extra.target, place.name, dir_fd=directory)
        elif kind in _KINDS:
            self._fs.mknod(place.name, kind | 0o600, entry.extra.rdev, dir_fd=directory)
        else:
            raise ValueError(f"there is no kind of file {kind:#o}, the point is forged or newer")
        place.done = True
        fd = self._fs.open(place.name, _HANDLE, dir_fd=directory)
        try:
            if stat.S_IFMT(self._fs.fstat(fd).st_mode) != kind:
                raise ValueError("somebody else replaced it meanwhile")
            self._finisher.node(fd, place)
            self.remember(fd, place)
        finally:
            self._fs.close(fd)

    def _link(self, place: Place) -> None:
        inode = self._inodes[_key(place.entry)]
        if inode is None:
            raise ValueError("its other name could not be restored")
        parent, _, name = inode.path.rpartition(b"/")
        directory = self._beneath.open(parent)
        try:
            fd = self._fs.open(name, _HANDLE, dir_fd=directory.fd)
        finally:
            directory.close()
        try:
            found = self._fs.fstat(fd)
            if (found.st_dev, found.st_ino) != inode.identity:
                raise ValueError("somebody else replaced its other name meanwhile")
            self._fs.link(f"/proc/self/fd/{fd}", place.name, dst_dir_fd=place.directory.fd)
            place.done = True
        finally:
            self._fs.close(fd)
        inode.left -= 1


def _key(entry: Entry) -> tuple[int, int]:
    """What entries of one inode have in common."""
    return (entry.extra.link[0] if entry.extra.link is not None else 0), entry.inode
