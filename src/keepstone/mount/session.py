# SPDX-License-Identifier: Apache-2.0
"""Answering the kernel: requests come out of a descriptor of /dev/fuse, on several threads, until the mount is gone.

An entry that cannot be read from the store fails with EIO, it alone, and whoever made the mount is told its path and
the reason, once.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import threading
from collections.abc import Callable, Sequence

from keepstone.errors import KeepstoneError
from keepstone.mount import kernel
from keepstone.mount.nodes import Node, Shown
from keepstone.objects import Buffer
from keepstone.store import PointRecord
from keepstone.workloads.files.tree import Lost

__all__ = ["Session"]

_THREADS = 8  # a slow answer does not keep others waiting
_ROOM = 64 << 10  # bytes of a request; none is longer, because nothing can be written
_PARTS = 512  # of an answer that the system takes at once (IOV_MAX is 1,024)
_LONGEST_NAME = 255
_TOLD = 1000  # paths that are remembered as told
_NO_REPLY = {kernel.FORGET, kernel.BATCH_FORGET, kernel.INTERRUPT}
_OVER = (errno.ENODEV, errno.EBADF)
_AGAIN = (errno.ENOENT, errno.EINTR, errno.EAGAIN)

_log = logging.getLogger(__name__)

Answer = Sequence[Buffer]


class Session:
    """One mount's conversation over `fd`, which it closes at its end. `lost`: told of a path that cannot be read, from
    several threads. `permissions`: the kernel looks at ACLs."""

    def __init__(self, fd: int, shown: Shown, point: PointRecord, lost: Lost, *, permissions: bool) -> None:
        self._fd = fd
        self._shown = shown
        self._point = point
        self._lost = lost
        self._permissions = permissions
        self._told: set[bytes] = set()
        self._lock = threading.Lock()
        self._left = _THREADS
        self._over = threading.Event()
        self._answers: dict[int, Callable[[int, memoryview], Answer]] = {
            kernel.INIT: self._init,
            kernel.LOOKUP: self._lookup,
            kernel.GETATTR: self._attributes,
            kernel.READLINK: self._target,
            kernel.READ: self._read,
            kernel.READDIR: self._listing,
            kernel.READDIRPLUS: self._full_listing,
            kernel.LSEEK: self._seek,
            kernel.STATFS: self._statistics,
            kernel.GETXATTR: self._xattr,
            kernel.LISTXATTR: self._xattrs,
            kernel.FORGET: self._forget,
            kernel.BATCH_FORGET: self._forget_many,
            kernel.DESTROY: lambda node, body: (),
        }

    def start(self) -> None:
        """Begin to answer. The threads do not keep the process alive: it ends, and with it the mount's life."""
        for number in range(_THREADS):
            threading.Thread(target=self._serve, name=f"mount-{number}", daemon=True).start()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until nobody asks any more, because the mount is gone; whether that is so."""
        return self._over.wait(seconds)

    # ------------------------------------------------------------------ the conversation

    def _serve(self) -> None:
        room = memoryview(bytearray(_ROOM))
        try:
            while True:
                try:
                    length = os.readv(self._fd, [room])
                except OSError as error:
                    if error.errno in _AGAIN:
                        continue
                    if error.errno not in _OVER:
                        _log.exception("the mount cannot be answered for any more")
                    return
                self._answer(room[:length])
        finally:
            with self._lock:
                self._left -= 1
                last = not self._left
            if last:
                os.close(self._fd)
                self._over.set()

    def _answer(self, request: memoryview) -> None:
        _, operation, unique, node, *_ = kernel.REQUEST.unpack_from(request)
        parts: Answer = ()
        code = errno.ENOSYS
        handler = self._answers.get(operation)
        if handler is not None:
            code = 0
            try:
                parts = handler(node, request[kernel.REQUEST.size :])
            except OSError as error:
                code = error.errno or errno.EIO
            except KeepstoneError as error:
                code = errno.EIO
                self._tell(node, error)
            except Exception:
                code = errno.EIO
                _log.exception("a request of the mount failed: operation %d on %d", operation, node)
        if operation not in _NO_REPLY:
            self._reply(unique, () if code else parts, code)

    def _reply(self, unique: int, parts: Answer, code: int) -> None:
        if len(parts) > _PARTS:
            parts = [b"".join(parts)]
        head = kernel.answer(unique, sum(map(len, parts)), code)
        try:
            os.writev(self._fd, [head, *parts])
        except OSError as error:  # ENOENT: nobody waits any more; otherwise somebody still does
            if error.errno not in (*_AGAIN, *_OVER):
                _log.warning("the kernel does not take an answer: %s", error)
                if not code:
                    self._reply(unique, (), errno.EIO)

    def _tell(self, node: int, error: KeepstoneError) -> None:
        try:
            path = self._shown.path(node)
        except (KeepstoneError, OSError):
            path = b"?"
        self._tell_of(path, error)

    def _tell_of(self, path: bytes, error: KeepstoneError) -> None:
        with self._lock:
            if path in self._told:
                return
            if len(self._told) < _TOLD:
                self._told.add(path)
        try:
            self._lost(path or b".", error)
        except Exception:
            _log.exception("%s", error)  # the kernel gets its answer all the same

    # ------------------------------------------------------------------ requests

    def _init(self, node: int, body: memoryview) -> Answer:
        return [kernel.greeting(body, permissions=self._permissions)]

    def _lookup(self, node: int, body: memoryview) -> Answer:
        name = bytes(body).partition(b"\0")[0]
        child = self._shown.child(node, name)
        if child is None:
            return [kernel.no_entry()]
        self._shown.remember(child)
        return [kernel.entry(child.number, child.inode, child.entry)]

    def _forget(self, node: int, body: memoryview) -> Answer:
        self._shown.forget(node, kernel.NUMBER.unpack_from(body)[0])
        return ()

    def _forget_many(self, node: int, body: memoryview) -> Answer:
        count = kernel.SIZE.unpack_from(body)[0]
        for number, lookups in kernel.FORGET_ONE.iter_unpack(
            body[kernel.SIZE.size :][: count * kernel.FORGET_ONE.size]
        ):
            self._shown.forget(number, lookups)
        return ()

    def _attributes(self, node: int, body: memoryview) -> Answer:
        found = self._shown.node(node)
        return [kernel.attributes(found.inode, found.entry)]

    def _target(self, node: int, body: memoryview) -> Answer:
        return [self._shown.node(node).entry.extra.target]

    def _read(self, node: int, body: memoryview) -> Answer:
        _, offset, size = kernel.POSITION.unpack_from(body)
        return self._shown.content(node).read(offset, size)

    def _seek(self, node: int, body: memoryview) -> Answer:
        _, offset, whence = kernel.SEEK.unpack_from(body)
        layout = self._shown.content(node).map
        if whence not in (kernel.DATA, kernel.HOLE):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        found = None
        if offset < layout.size:
            found = layout.data(offset) if whence == kernel.DATA else layout.hole(offset)
        if found is None:
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
        return [kernel.NUMBER.pack(found)]

    def _statistics(self, node: int, body: memoryview) -> Answer:
        return [kernel.statistics(self._point.logical, self._point.files)]

    # ------------------------------------------------------------------ directories

    def _listing(self, node: int, body: memoryview) -> Answer:
        return self._list(node, body, full=False)

    def _full_listing(self, node: int, body: memoryview) -> Answer:
        return self._list(node, body, full=True)

    def _list(self, node: int, body: memoryview, *, full: bool) -> Answer:
        """Entries from an offset on: 0 and 1 are the directory itself and the one above, then come its own.

        Where damage is met, what was found before it goes first; the kernel asks again from there on.
        """
        _, offset, room = kernel.POSITION.unpack_from(body)
        parts: list[bytes] = []
        here = self._shown.node(node)
        for at, name, inode in ((0, b".", here.inode), (1, b"..", here.parent)):
            if offset <= at:
                # Without a node: the kernel knows these two.
                dots = kernel.directory_entry(inode, at + 1, stat.S_IFDIR, name)
                parts.append((kernel.no_entry() if full else b"") + dots)
        room -= sum(map(len, parts))
        try:
            for following, child in self._shown.children(node, max(0, offset - 2)):
                name = child.entry.name
                if len(name) > _LONGEST_NAME:
                    path = self._shown.path(node)
                    self._tell_of(path, KeepstoneError("a name in this directory is too long to be shown"))
                    continue
                part = kernel.directory_entry(child.inode, following + 2, child.entry.mode, name)
                if len(part) + full * kernel.ENTRY_SIZE > room:
                    break
                if full:
                    part = self._described(child) + part
                parts.append(part)
                room -= len(part)
        except KeepstoneError:
            if not parts:
                raise
        return [b"".join(parts)]

    def _described(self, child: Node) -> bytes:
        """What stands before an entry in a full listing; of a directory that nobody may enter only that it is there."""
        try:
            self._shown.remember(child)
        except KeepstoneError as error:
            self._tell(child.number, error)
            return kernel.no_entry()
        return kernel.entry(child.number, child.inode, child.entry)

    # ------------------------------------------------------------------ extended attributes

    def _xattr(self, node: int, body: memoryview) -> Answer:
        size, _ = kernel.XATTR.unpack_from(body)
        name = bytes(body[kernel.XATTR.size :]).partition(b"\0")[0]
        value = self._shown.node(node).entry.extra.xattrs.get(name)
        if value is None:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        return self._sized(value, size)

    def _xattrs(self, node: int, body: memoryview) -> Answer:
        size, _ = kernel.XATTR.unpack_from(body)
        names = self._shown.node(node).entry.extra.xattrs
        return self._sized(b"".join(name + b"\0" for name in names), size)

    @staticmethod
    def _sized(value: bytes, size: int) -> Answer:
        """The value, or how long it is where somebody asks for that."""
        if not size:
            return [kernel.SIZE.pack(len(value), 0)]
        if len(value) > size:
            raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
        return [value]
