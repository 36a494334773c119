# SPDX-License-Identifier: Apache-2.0
"""Owner, mode, times and extended attributes of what a restore makes.

Everything is set through a file descriptor of the very inode: for files and directories the one that they were made by,
for all else one of O_PATH, reached as `/proc/self/fd/N` (open(2)); no name is looked up a second time. Order: owner,
mode, attributes, times, because each may undo what comes after it: a change of owner clears setuid bits and
capabilities, a write clears both.

Without privileges owners stay as they are, and no setuid or setgid bit is set that would lend another user's identity.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
from collections.abc import Callable, Iterable

from keepstone.env import Env
from keepstone.workloads.files.names import shown
from keepstone.workloads.files.page import Detail, Entry
from keepstone.workloads.files.restore.beneath import Directory
from keepstone.workloads.files.restore.options import RestoreOptions
from keepstone.workloads.files.restore.place import Place
from keepstone.workloads.files.restore.report import Findings

__all__ = ["REFUSED", "Finisher"]

REFUSED = (OSError, ValueError, OverflowError)
"""What the functions of `os` raise for values that no sound manifest has, such as a NUL in an attribute's name."""

_CAPABILITY = b"security.capability"
_ACLS = (b"system.posix_acl_access", b"system.posix_acl_default")
_NOBODY = 65534
_NO_ID = 0xFFFFFFFF  # chown(2) takes it for "leave it as it is"
_SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID


class Finisher:
    """What a restore with these options gives to entries. Safe for several threads."""

    def __init__(self, env: Env, options: RestoreOptions, detail: Detail, findings: Findings) -> None:
        self._fs = env.fs
        self._options = options
        self._findings = findings
        self.owns = os.geteuid() == 0
        self._made = os.geteuid(), os.getegid()
        self._umask = _umask(env)
        by_number = options.numeric_ids
        self._uid = _Ids({} if by_number else detail.users, lambda name: pwd.getpwnam(name).pw_uid)
        self._gid = _Ids({} if by_number else detail.groups, lambda name: grp.getgrnam(name).gr_gid)

    def owner(self, entry: Entry) -> tuple[int, int]:
        """The owner that an entry gets."""
        return (self._uid[entry.uid], self._gid[entry.gid]) if self.owns else self._made

    def mode(self, entry: Entry) -> int:
        """The permissions that an entry gets."""
        mode = entry.mode & 0o7777
        if mode & _SPECIAL_BITS:
            if not self._options.setuid and not stat.S_ISDIR(entry.mode):
                mode &= ~_SPECIAL_BITS
            uid, gid = (entry.uid, entry.gid) if self.owns else self._made
            if uid != entry.uid or uid == _NO_ID:
                mode &= ~stat.S_ISUID
            if gid != entry.gid or gid == _NO_ID:
                mode &= ~stat.S_ISGID
        return mode

    def xattrs(self, entry: Entry) -> dict[bytes, bytes]:
        """The extended attributes that an entry gets."""
        xattrs = entry.extra.xattrs
        if not xattrs or not self._options.xattrs:
            return {}
        if _CAPABILITY in xattrs and not self._options.capabilities:
            return {name: value for name, value in xattrs.items() if name != _CAPABILITY}
        return xattrs

    def file(self, fd: int, place: Place, mode: int) -> None:
        """Finish a regular file that was made with its permissions, `mode`."""
        entry, directory, path = place.entry, place.directory, place.path
        if not self.owns or self.owner(entry) != self._made or directory.gives_group:
            mode = self._own(fd, entry, mode, path)
        if mode & self._umask or mode > 0o777 or entry.extra.xattrs or directory.gives_acl:
            if directory.gives_acl:
                self._remove(fd, _ACLS)
            self._permit(fd, mode, path)
            self._attach(fd, entry, path)
        self._date(fd, entry, path)

    def node(self, fd: int, place: Place) -> None:
        """Finish anything else that is no directory, by an O_PATH descriptor of it."""
        entry, path = place.entry, place.path
        inode = f"/proc/self/fd/{fd}"
        mode = self._own(inode, entry, self.mode(entry), path)
        if not stat.S_ISLNK(entry.mode):
            if place.directory.gives_acl:
                self._remove(inode, _ACLS)
            self._permit(inode, mode, path)
        self._attach(inode, entry, path)
        self._date(inode, entry, path)

    def directory(self, directory: Directory, entry: Entry, path: bytes, *, fresh: bool) -> None:
        """Finish a directory, after everything in it. `fresh`: this restore made it."""
        fd, found = directory.fd, directory.stat
        mode = self.mode(entry)
        if not self.owns or self.owner(entry) != (found.st_uid, found.st_gid):
            mode = self._own(fd, entry, mode, path)
        if not fresh and self._options.xattrs:
            self._remove(fd, [name for name in self._found(fd) if name not in entry.extra.xattrs])
        elif fresh and directory.gives_acl:
            self._remove(fd, _ACLS)
        self._permit(fd, mode, path)
        self._attach(fd, entry, path)
        self._date(fd, entry, path)

    def xattrs_differ(self, place: str, entry: Entry) -> bool:
        """Whether what exists at this path has other extended attributes than it should have."""
        if not self._options.xattrs:
            return False
        wanted = self.xattrs(entry)
        try:
            names = {*self._found(place), *wanted}
            return any(self._fs.getxattr(place, name) != wanted.get(name) for name in names)
        except OSError:
            return True

    def _own(self, where: int | str, entry: Entry, mode: int, path: bytes) -> int:
        """Give it its owner; the mode that it may have then."""
        if not self.owns:
            if (entry.uid, entry.gid) != self._made:
                self._findings.often(path, "without privileges what is restored belongs to who restores it")
            return mode
        try:
            if isinstance(where, int):
                self._fs.fchown(where, *self.owner(entry))
            else:
                self._fs.chown(where, *self.owner(entry))
        except OSError as error:
            self._findings.often(path, f"the owner cannot be set: {error.strerror}")
            return mode & ~_SPECIAL_BITS
        return mode

    def _permit(self, where: int | str, mode: int, path: bytes) -> None:
        try:
            self._fs.chmod(where, mode)
        except OSError as error:
            self._findings.often(path, f"the permissions cannot be set: {error.strerror}")

    def _date(self, where: int | str, entry: Entry, path: bytes) -> None:
        try:
            self._fs.utime(where, ns=(entry.mtime, entry.mtime))
        except REFUSED:
            self._findings.often(path, "the time cannot be set")

    def _attach(self, where: int | str, entry: Entry, path: bytes) -> None:
        for name, value in self.xattrs(entry).items():
            try:
                self._fs.setxattr(where, name, value)
            except REFUSED as error:
                kind = shown(name.partition(b".")[0])
                reason = error.strerror if isinstance(error, OSError) else str(error)
                self._findings.often(path, f"extended attributes {kind}.* cannot be set: {reason}")

    def _found(self, where: int | str) -> list[bytes]:
        """The extended attributes that are the user's own, not those of the machine's security modules."""
        try:
            names = map(os.fsencode, self._fs.listxattr(where))
        except OSError:
            return []  # this file system has none
        return [name for name in names if name.startswith(b"user.") or name in _ACLS]

    def _remove(self, where: int | str, names: Iterable[bytes]) -> None:
        for name in names:
            with contextlib.suppress(OSError):  # it was not there
                self._fs.removexattr(where, name)


class _Ids(dict[int, int]):
    """From the ids of a point to those of this machine, by name where it has that name."""

    def __init__(self, names: dict[int, str], known: Callable[[str], int]) -> None:
        self._names = names
        self._known = known

    def __missing__(self, number: int) -> int:
        found = _NOBODY if number == _NO_ID else number
        if number in self._names:
            with contextlib.suppress(KeyError, ValueError):  # nobody has that name here
                found = self._known(self._names[number])
        self[number] = found
        return found


def _umask(env: Env) -> int:
    """The bits that the system takes away from new files; all where it does not tell (umask(2) could only be read by
    setting it).
    """
    try:
        fd = env.fs.open("/proc/self/status", os.O_RDONLY)
    except OSError:
        return 0o777
    try:
        for line in env.fs.read(fd, 4096).splitlines():
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    finally:
        env.fs.close(fd)
    return 0o777
