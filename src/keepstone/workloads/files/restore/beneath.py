# SPDX-License-Identifier: Apache-2.0
"""Directories beneath a restore's target, and no others.

A directory is opened by `openat2` with RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS and RESOLVE_NO_MAGICLINKS (openat2(2)), and
where the kernel has no such call by a walk that opens one component after the other with O_NOFOLLOW. Whatever somebody
does to the tree meanwhile, a name that has become a symbolic link is refused. What is restored is then made by its last
component only, relative to such an open directory.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from keepstone.env import Env

__all__ = ["Beneath", "Directory"]

_OPENAT2 = 437  # the same on every architecture but alpha
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x01, 0x02, 0x04, 0x08
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 4000  # below PATH_MAX; a tree may be deeper than one path can say
_ACL_DEFAULT = "system.posix_acl_default"

_process = ctypes.CDLL(None, use_errno=True)


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class Directory:
    """An open directory. `path`: beneath the root, empty for the root itself. `stat`: as it was when it was opened.

    `gives_group`: what is made in it may get another group than the process has. `gives_acl`: what is made in it gets
    the directory's default ACL.
    """

    __slots__ = ("_env", "fd", "gives_acl", "gives_group", "path", "stat")

    def __init__(self, env: Env, fd: int, path: bytes, gives_acl: bool | None) -> None:
        self._env = env
        self.fd = fd
        self.path = path
        self.stat = env.fs.fstat(fd)
        self.gives_group = self.stat.st_gid != os.getegid()
        self.gives_acl = self._has_default_acl() if gives_acl is None else gives_acl

    def _has_default_acl(self) -> bool:
        try:
            self._env.fs.getxattr(self.fd, _ACL_DEFAULT)
        except OSError:
            return False
        return True

    def child(self, name: bytes) -> bytes:
        """The path of an entry."""
        return self.path + b"/" + name if self.path else name

    def names(self) -> list[bytes]:
        """What is in it."""
        return [os.fsencode(name) for name in self._env.fs.listdir(self.fd)]  # type: ignore[arg-type] # a descriptor will do

    def close(self) -> None:
        """Let go of it."""
        self._env.fs.close(self.fd)


class Beneath:
    """The target of a restore, an existing directory; raises `OSError`."""

    def __init__(self, env: Env, target: Path) -> None:
        self._env = env
        self._fd = env.fs.open(os.fspath(target), os.O_RDONLY | os.O_DIRECTORY)
        self._devices: dict[int, int] = {}
        try:
            self._kernel = self._probe()
        except BaseException:
            self.close()
            raise

    def _probe(self) -> bool:
        try:
            self._env.fs.close(_openat2(self._fd, b".", 0))
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.EPERM, errno.EINVAL):  # EPERM: a seccomp filter older than the call
                return False
            raise
        return True

    def open(self, path: bytes, *, same_device: bool = False) -> Directory:
        """Open the directory at `path`, empty for the target itself.

        `OSError` where it is none, or where the way to it leads through a symbolic link; with `same_device` also
        through a mount point.
        """
        fd = self._env.fs.open(b".", _FLAGS, dir_fd=self._fd)
        rest = path
        try:
            while rest:
                piece, rest = self._piece(rest)
                fd, parent = self._step(fd, piece, same_device), fd
                self._env.fs.close(parent)
            return self._opened(fd, path, None)
        except BaseException:
            self._env.fs.close(fd)
            raise

    def enter(self, parent: Directory, name: bytes, *, fresh: bool) -> Directory:
        """Open the directory with this name in an open one; `fresh`: it was just made."""
        fd = self._step(parent.fd, name, False)
        try:
            return self._opened(fd, parent.child(name), parent.gives_acl if fresh else None)
        except BaseException:
            self._env.fs.close(fd)
            raise

    def _opened(self, fd: int, path: bytes, gives_acl: bool | None) -> Directory:
        directory = Directory(self._env, fd, path, gives_acl)
        device = directory.stat.st_dev
        if device not in self._devices:
            self._devices[device] = self._env.fs.open(b".", _FLAGS, dir_fd=fd)
        return directory

    def _piece(self, path: bytes) -> tuple[bytes, bytes]:
        """As much of the path as one call takes, and the rest."""
        if not self._kernel:
            piece, _, rest = path.partition(b"/")
            return piece, rest
        if len(path) <= _PIECE:
            return path, b""
        cut = path.rindex(b"/", 0, _PIECE)
        return path[:cut], path[cut + 1 :]

    def _step(self, fd: int, piece: bytes, same_device: bool) -> int:
        if self._kernel:
            return _openat2(fd, piece, _NO_XDEV if same_device else 0)
        if piece in (b"", b".", b"..") or b"/" in piece:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), piece)
        child = self._env.fs.open(piece, _FLAGS, dir_fd=fd)
        if same_device and self._env.fs.fstat(child).st_dev != self._env.fs.fstat(fd).st_dev:
            self._env.fs.close(child)
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), piece)
        return child

    def remove(self, path: bytes, spared: Callable[[bytes, bool], bool], stays_empty: Callable[[bytes], bool]) -> int:
        """Remove what is at `path` with everything in it, without leaving its file system; how many entries these were.

        Of what is `spared`, asked with path and whether that is a directory, nothing is removed, nor what holds it; a
        directory of which `stays_empty` is true stays without what was in it.
        `OSError`, with what could not be removed still there.
        """
        fs = self._env.fs
        pending, emptied, count = [path], [], 0
        while pending:
            at = pending.pop()
            with self._parent(at) as (parent, name):
                is_directory = stat.S_ISDIR(fs.stat(name, dir_fd=parent.fd, follow_symlinks=False).st_mode)
                if spared(at, is_directory):
                    continue
                if not is_directory:
                    fs.unlink(name, dir_fd=parent.fd)
                    count += 1
                    continue
            directory = self.open(at, same_device=True)
            pending += map(directory.child, directory.names())
            directory.close()
            emptied.append(at)
        for at in reversed(emptied):
            if stays_empty(at):
                continue
            with self._parent(at) as (parent, name):
                try:
                    fs.rmdir(name, dir_fd=parent.fd)
                    count += 1
                except OSError as error:
                    if error.errno != errno.ENOTEMPTY:
                        raise
        return count

    @contextmanager
    def _parent(self, path: bytes) -> Iterator[tuple[Directory, bytes]]:
        """The directory that an entry is in, and its name there."""
        parent, _, name = path.rpartition(b"/")
        directory = self.open(parent)
        try:
            yield directory, name
        finally:
            directory.close()

    def sync(self) -> None:
        """Make everything durable on every file system that was entered (syncfs(2))."""
        for fd in self._devices.values():
            if _process.syncfs(fd):
                raise _failed()

    def close(self) -> None:
        """Let go of the target."""
        for fd in (self._fd, *self._devices.values()):
            self._env.fs.close(fd)


def _openat2(fd: int, path: bytes, resolve: int) -> int:
    how = _How(_FLAGS, 0, _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS | resolve)
    while True:
        found: int = _process.syscall(
            ctypes.c_long(_OPENAT2), ctypes.c_int(fd), ctypes.c_char_p(path), ctypes.byref(how), ctypes.c_size_t(24)
        )
        if found >= 0:
            return found
        error = _failed(path)
        if error.errno not in (errno.EINTR, errno.EAGAIN):  # EAGAIN: a rename came between
            raise error


def _failed(*names: bytes) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code), *names)
