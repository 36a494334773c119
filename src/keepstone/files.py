# SPDX-License-Identifier: Apache-2.0
"""What is done to small files and folders again and again, by the file calls of an `Env`.

Everything raises `OSError`. Folders that are made here are their owner's alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from keepstone.env import FileSystem

__all__ = [
    "exists",
    "have_folders",
    "is_folder",
    "make_folder",
    "make_folders",
    "names_in",
    "read_file",
    "remove_file",
    "sync_folder",
    "write_all",
    "write_new",
]

_READ = 1 << 20  # bytes


def exists(fs: FileSystem, path: Path, *, follow: bool = True) -> bool:
    """Whether there is anything; with `follow` a link is what it leads to."""
    return _mode(fs, path, follow=follow) is not None


def is_folder(fs: FileSystem, path: Path) -> bool:
    """Whether there is a folder, or a link to one."""
    mode = _mode(fs, path)
    return mode is not None and stat.S_ISDIR(mode)


def names_in(fs: FileSystem, folder: Path, prefix: str = "") -> list[str]:
    """The names in a folder that begin like this, in their order; none where it is not there."""
    try:
        return sorted(name for name in fs.listdir(folder) if name.startswith(prefix))
    except (FileNotFoundError, NotADirectoryError):
        return []


def read_file(fs: FileSystem, path: Path) -> bytes:
    """The whole of a file. A fifo is read as if nobody wrote to it: it hangs nobody."""
    descriptor = fs.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        pieces = []
        while piece := fs.read(descriptor, _READ):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        fs.close(descriptor)


def write_new(fs: FileSystem, path: Path, data: bytes) -> None:
    """A new file that only its owner may read, durable on return, as its folders are that were missing. Nothing of it
    is left behind on failure. `FileExistsError` where something is there."""
    make_folders(fs, path.parent)
    descriptor = fs.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            write_all(fs, descriptor, data)
            fs.fsync(descriptor)
        finally:
            fs.close(descriptor)
        sync_folder(fs, path.parent)
    except BaseException:
        fs.unlink(path)
        raise


def write_all(fs: FileSystem, descriptor: int, data: bytes) -> None:
    """Every byte, from where the file is."""
    view = memoryview(data)
    while view:
        view = view[fs.write(descriptor, view) :]


def remove_file(fs: FileSystem, path: Path) -> None:
    """Remove a file that may be gone already."""
    with contextlib.suppress(FileNotFoundError):
        fs.unlink(path)


def make_folder(fs: FileSystem, folder: Path) -> None:
    """A folder, durable on return, also where one is there that its maker did not live to make so.
    `NotADirectoryError` where something else is there."""
    try:
        fs.mkdir(folder, 0o700)
    except FileExistsError:
        if not is_folder(fs, folder):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fspath(folder)) from None
        with contextlib.suppress(PermissionError):  # not ours, so it was made by somebody else and long ago
            sync_folder(fs, folder.parent)
    else:
        sync_folder(fs, folder.parent)


def make_folders(fs: FileSystem, folder: Path) -> None:
    """As `make_folder`, and those above it that are missing."""
    try:
        make_folder(fs, folder)
    except FileNotFoundError:
        if folder.parent == folder:
            raise
        make_folders(fs, folder.parent)
        make_folder(fs, folder)


def have_folders(fs: FileSystem, folder: Path) -> None:
    """As `make_folders`, for what may be lost: one that is there costs a look, and may not be durable yet."""
    if not is_folder(fs, folder):
        make_folders(fs, folder)


def sync_folder(fs: FileSystem, folder: str | Path) -> None:
    """Make durable which names a folder has."""
    descriptor = fs.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fs.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system whose folders need no barrier says so
            raise
    finally:
        fs.close(descriptor)


def _mode(fs: FileSystem, path: Path, *, follow: bool = True) -> int | None:
    try:
        return (fs.stat if follow else fs.lstat)(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link that leads to itself
            return None
        raise
