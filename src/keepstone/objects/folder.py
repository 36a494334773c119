# SPDX-License-Identifier: Apache-2.0
"""Object storage in a folder of this machine: one file per object, at its name.

Invariants, each of which loses data in a power failure when it is broken
* A file gets its name only after its content is durable (fsync), and by an operation that never replaces one.
* A folder is durable in its parent before a file gets a name in it, whoever made the folder.
* After an error of fsync the file is given up; fsync is never tried again on it.

Files under construction lie in `tmp/`, named after the process that writes them, so that `clean` knows whose they are.
Opening, reading, listing and deleting need no room: they work on a full disk.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from keepstone.env import Env, Process
from keepstone.errors import NotFound, ObjectExists, ObjectMissing, StorageError, StoreMissing, UsageError
from keepstone.files import make_folders, sync_folder
from keepstone.objects.buffers import PAGE, BufferPool, is_aligned
from keepstone.objects.direct import ROOM, WINDOW, DirectFile, DirectWriter
from keepstone.objects.failure import failure
from keepstone.objects.names import TEMPORARY, check_name, check_prefix, folder_of, is_name
from keepstone.objects.port import Buffer, ObjectInfo
from keepstone.objects.syscalls import rename_noreplace

__all__ = ["FolderStorage", "FolderUpload"]

_DIRECT_READ = 1 << 20
_IDLE = 3600 * 10**9  # nanoseconds that a file of a process out of our sight must lie untouched to be litter
_CANNOT_RENAME = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}
_RESERVE = "reserve"
_OURS = {TEMPORARY, "lost+found"}  # the latter lies in the root of an empty file system
_RESERVE_SIZE = 1 << 20  # markers, heads and tombstones are a few KiB each


class FolderStorage:
    """Objects under `root`, files of mode 0600 in folders of mode 0700. Safe for several threads and processes.

    `StoreMissing` where there is no such folder, unless it is to be created.
    """

    def __init__(self, env: Env, root: Path, *, create: bool = False) -> None:
        self.root = root.absolute()
        self._env = env
        self._fs = env.fs
        self._buffers = BufferPool(WINDOW + ROOM)
        self._settled = {""}
        try:
            if create:
                make_folders(self._fs, self.root)
        except OSError as error:
            raise failure(error, f"store {self.root}", missing=NotFound) from error
        self._check_root()

    def __repr__(self) -> str:
        return f"FolderStorage({str(self.root)!r})"

    def _check_root(self) -> None:
        try:
            if not stat.S_ISDIR(self._fs.stat(str(self.root)).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        except OSError as error:
            raise failure(error, f"store {self.root}", missing=StoreMissing) from error

    # Writing

    def put(self, name: str, data: Buffer) -> None:
        check_name(name)
        self._env.step(f"put {name}")
        with self._failures(name):
            temporary = self._temporary()
            with self._discarding(temporary):
                self._write(temporary, data)
                self._publish(temporary, name)
            self._sync_folder(folder_of(name))

    def create(self, name: str) -> FolderUpload:
        check_name(name)
        self._env.step(f"create {name}")
        with self._failures(name):
            temporary = self._temporary()
            with self._discarding(temporary):
                return FolderUpload(self, name, temporary, DirectWriter(self._fs, temporary, self._buffers))

    def sync(self, names: Iterable[str]) -> None:
        names = [check_name(name) for name in names]
        self._env.step(f"sync {' '.join(names)}")
        self._sync_folders(names)

    def _write(self, path: str, data: Buffer) -> None:
        fd = self._fs.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            view = memoryview(data).cast("B")
            while len(view):
                view = view[self._fs.write(fd, view) :]
            self._fs.fsync(fd)
        finally:
            self._fs.close(fd)

    def _publish(self, temporary: str, name: str) -> None:
        """Give a finished file its name, or `ObjectExists`, and then the other one is durable."""
        self._settle(folder_of(name))
        try:
            self._rename(temporary, self._path(name))
        except FileExistsError as error:
            self._sync_folder(folder_of(name))  # its writer may not have come so far yet
            raise failure(error, self._what(name), exists=ObjectExists) from error

    def _rename(self, old: str, new: str) -> None:
        try:
            rename_noreplace(old, new)
        except OSError as error:
            if error.errno not in _CANNOT_RENAME:
                raise
            self._link(old, new)

    def _link(self, old: str, new: str) -> None:
        try:
            self._fs.link(old, new)
        except FileExistsError:
            if self._fs.stat(old).st_nlink != 2:  # else it was ours: the server repeated a request whose reply was lost
                raise
        with contextlib.suppress(OSError):  # the object stands; what is left here is litter
            self._fs.unlink(old)

    # Reading

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if length is not None and length < 0:
            raise UsageError(f"cannot read {length} bytes of object {name}; ask for none or more")
        with self._reading("read", name) as fd:
            size = self._fs.fstat(fd).st_size
            start = offset if offset >= 0 else max(0, size + offset)
            end = size if length is None else min(size, start + length)
            pieces = []
            while start < end:
                piece = self._fs.pread(fd, end - start, start)
                if not piece:
                    break
                pieces.append(piece)
                start += len(piece)
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_into(self, name: str, offset: int, buffer: memoryview) -> int:
        if offset < 0:
            raise UsageError(f"cannot fill a buffer from offset {offset} of object {name}; count from its start")
        if len(buffer) >= _DIRECT_READ and offset % PAGE == 0 and is_aligned(buffer):
            self._env.step(f"read_into {check_name(name)}")
            with self._failures(name, reading=True), DirectFile(self._fs, self._path(name)) as file:
                return file.pread_into(offset, buffer)
        with self._reading("read_into", name) as fd:
            done = 0
            while done < len(buffer):
                count = self._fs.preadv(fd, [buffer[done:]], offset + done)
                if not count:
                    break
                done += count
            return done

    def size(self, name: str) -> int:
        check_name(name)
        self._env.step(f"size {name}")
        with self._failures(name, reading=True):
            found = self._fs.stat(self._path(name))
            if stat.S_ISDIR(found.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            return found.st_size

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        folder, start = check_prefix(prefix)
        self._env.step(f"list {prefix}")
        return self._listing(folder, start)

    def names(self, prefix: str = "") -> Iterator[str]:
        folder, start = check_prefix(prefix)
        self._env.step(f"list {prefix}")
        return (name for name, _ in self._entries(folder, start))

    def anything(self) -> str | None:
        self._env.step("list ")
        with self._failures("."):
            entries = self._fs.listdir(self._path(""))
            return next((name for name in entries if name not in _OURS and not self._is_empty_folder(name)), None)

    def _is_empty_folder(self, name: str) -> bool:
        """Deleting an object leaves its folder: that is nothing."""
        try:
            return not self._fs.listdir(self._path(name))
        except NotADirectoryError:
            return False

    def _listing(self, folder: str, start: str) -> Iterator[ObjectInfo]:
        with self._failures(folder or "."):
            for name, entry in self._entries(folder, start):
                try:
                    size = entry.stat().st_size
                except FileNotFoundError:
                    continue  # deleted meanwhile
                yield ObjectInfo(name, size)

    def _entries(self, folder: str, start: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        with self._failures(folder or "."):
            try:
                # Of the overloads of `scandir` mypy sees the first one here, which takes no path.
                with self._fs.scandir(self._path(folder)) as scanned:  # type: ignore[arg-type]
                    entries = list(scanned)
            except (FileNotFoundError, NotADirectoryError):
                self._check_root()  # a store that went away is not an empty one
                return
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if not entry.name.startswith(start) or not is_name(name):
                    continue  # also `tmp`, `lost+found` and other things that are no objects
                if entry.is_dir():
                    yield from self._entries(name, "")
                elif entry.is_file():
                    yield name, entry

    @contextlib.contextmanager
    def _reading(self, operation: str, name: str) -> Iterator[int]:
        check_name(name)
        self._env.step(f"{operation} {name}")
        with self._failures(name, reading=True):
            fd = self._fs.open(self._path(name), os.O_RDONLY)
            try:
                yield fd
            finally:
                self._fs.close(fd)

    # Deleting

    def delete(self, name: str) -> None:
        self._delete("delete", [check_name(name)])

    def delete_many(self, names: Iterable[str]) -> None:
        self._delete("delete_many", [check_name(name) for name in names])

    def _delete(self, operation: str, names: Sequence[str]) -> None:
        try:
            for name in names:
                self._env.step(f"{operation} {name}")
                with (
                    self._failures(name),
                    contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError),
                ):
                    self._fs.unlink(self._path(name))
        finally:
            # Also where nothing was there: who removed it may have died before this barrier.
            self._sync_folders(names)

    def clean(self) -> int:
        """Remove what uploads of dead processes left behind; how many files. Running uploads are not touched.

        Whether a process of another host lives cannot be seen from here: its files go when nobody has written to them
        for an hour.
        """
        self._env.step("clean")
        removed = 0
        with self._failures(TEMPORARY):
            folder = self._path(TEMPORARY)
            try:
                leftovers = self._fs.listdir(folder)
            except FileNotFoundError:
                return 0
            for leftover in leftovers:
                with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                    if self._is_litter(leftover):
                        self._fs.unlink(f"{folder}/{leftover}")
                        removed += 1
        return removed

    def keep_reserve(self) -> None:
        self._env.step("keep_reserve")
        with contextlib.suppress(OSError):
            self._settle(TEMPORARY)
            fd = self._fs.open(self._path(f"{TEMPORARY}/{_RESERVE}"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                self._fs.posix_fallocate(fd, 0, _RESERVE_SIZE)
            finally:
                self._fs.close(fd)

    def spend_reserve(self) -> bool:
        self._env.step("spend_reserve")
        try:
            self._fs.unlink(self._path(f"{TEMPORARY}/{_RESERVE}"))
        except OSError:
            return False
        return True

    def _is_litter(self, leftover: str) -> bool:
        if leftover == _RESERVE:
            return False
        try:
            _, boot, pid, started, host = leftover.split(",", 4)
            owner = Process(host, boot, int(pid), int(started))
        except ValueError:
            running = None
        else:
            # Containers share a boot but do not see each other's processes, so the host has to be the same too.
            running = self._env.is_running(owner) if host == self._env.process().host else None
        if running is None:
            return self._env.wall_time() - self._fs.stat(self._path(f"{TEMPORARY}/{leftover}")).st_mtime_ns > _IDLE
        return not running

    # Folders and names

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _temporary(self) -> str:
        """A path in `tmp/` that nobody has."""
        self._settle(TEMPORARY)
        me = self._env.process()
        return self._path(
            f"{TEMPORARY}/{self._env.random(8).hex()},{me.boot},{me.pid},{me.started},{me.host.replace('/', '_')}"
        )

    def _settle(self, folder: str) -> None:
        """The folder exists and is durable in its parent.

        That it exists does not say so: who made it may not have synced it yet, or died before.
        """
        if folder in self._settled:
            return
        parent = folder_of(folder)
        self._settle(parent)
        settled = {folder}
        try:
            self._fs.mkdir(self._path(folder), 0o700)
        except FileExistsError:
            entries = self._fs.listdir(self._path(parent))  # one barrier for all that are there
            settled |= {f"{parent}/{entry}" if parent else entry for entry in entries}
        self._sync_folder(parent)
        self._settled |= settled

    def _sync_folders(self, names: Iterable[str]) -> None:
        for folder in sorted({folder_of(name) for name in names}):
            with self._failures(folder or "."), contextlib.suppress(FileNotFoundError, NotADirectoryError):
                self._sync_folder(folder)

    def _sync_folder(self, folder: str) -> None:
        sync_folder(self._fs, self._path(folder))

    @contextlib.contextmanager
    def _discarding(self, temporary: str) -> Iterator[None]:
        """What fails here leaves no file."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):
                self._fs.unlink(temporary)
            raise

    @contextlib.contextmanager
    def _failures(self, name: str, *, reading: bool = False) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            missing = ObjectMissing if reading else StorageError
            raise failure(error, self._what(name), missing=missing) from error

    def _what(self, name: str) -> str:
        return f"{name} in {self.root}"


class FolderUpload:
    """An upload into a `FolderStorage`: a file in `tmp/` until it finishes."""

    def __init__(self, storage: FolderStorage, name: str, temporary: str, writer: DirectWriter) -> None:
        self._storage = storage
        self._name = name
        self._temporary = temporary
        self._writer = writer
        self._live = True

    def write(self, data: Buffer) -> None:
        with self._ending_on_failure():
            self._writer.write(data)

    def room(self, count: int) -> memoryview:
        return self._writer.room(count)

    def advance(self, count: int) -> None:
        with self._ending_on_failure():
            self._writer.advance(count)

    def finish(self) -> None:
        with self._ending_on_failure():
            self._storage._env.step(f"finish {self._name}")
            self._writer.finish()
            self._storage._publish(self._temporary, self._name)
            self._live = False

    def abort(self) -> None:
        self._writer.close()
        if self._live:
            self._live = False
            with contextlib.suppress(OSError):
                self._storage._fs.unlink(self._temporary)

    @contextlib.contextmanager
    def _ending_on_failure(self) -> Iterator[None]:
        try:
            with self._storage._failures(self._name):
                yield
        except BaseException:
            self.abort()
            raise
