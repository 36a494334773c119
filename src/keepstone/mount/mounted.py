# SPDX-License-Identifier: Apache-2.0
"""A point in the tree of the machine: mounted, looked at with any program, unmounted.

The mount is read-only, and nothing of it runs or opens a device. Its life is the life of the process: where that dies,
whoever looks gets ENOTCONN until somebody unmounts.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

from keepstone.env import Env
from keepstone.errors import KeepstoneError
from keepstone.mount.device import attach, check, detach
from keepstone.mount.kernel import MOST_READ
from keepstone.mount.nodes import Disk, Files, Shown
from keepstone.mount.session import Session
from keepstone.store import Reader
from keepstone.workloads.chunks import ChunkCache
from keepstone.workloads.files import Tree
from keepstone.workloads.files.names import shown
from keepstone.workloads.files.tree import Lost

__all__ = ["Mount", "mount_point"]

_FILES = "files"  # the kind of a point; all others are of one disk
_SECONDS = 5  # that those who are being answered may take when the mount is gone

_log = logging.getLogger(__name__)


class Mount:
    """A mounted point, until it is closed or somebody unmounts it."""

    def __init__(self, where: Path, session: Session, chunks: ChunkCache) -> None:
        self.where = where
        self._session = session
        self._chunks = chunks

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is unmounted, by anybody; whether it is."""
        return self._session.wait(seconds)

    def close(self) -> None:
        """Unmount. Harmless when repeated."""
        if not self._session.wait(0):
            detach(self.where)
        if self._session.wait(_SECONDS):  # otherwise somebody still has a file of it open, and is served to the end
            self._chunks.close()

    def __enter__(self) -> Mount:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _note(path: bytes, error: KeepstoneError) -> None:
    _log.error("%s cannot be read: %s", shown(path), error)


def mount_point(env: Env, reader: Reader, where: Path, *, shared: bool = False, lost: Lost = _note) -> Mount:
    """Mount what `reader` reads at the empty directory `where`: the tree of a point, or a disk as the file `disk.img`.

    It can be looked at on return. `reader` is used by several threads, and must stay open until the mount is closed.
    `shared`: for all users, with the permissions and ACLs of the entries; otherwise only for who mounts, who may read
    all. `lost`: told, by any thread, of what cannot be read from the store; logged by default. `UsageError`,
    `AccessDenied`; `CorruptObject` where the point cannot be looked into at all.
    """
    where = where.resolve()
    check(where)
    chunks = ChunkCache(env, reader)
    try:
        content: Shown = Files(Tree(reader, chunks)) if reader.point.kind == _FILES else Disk(reader, chunks)
        session = Session(attach(where, shared=shared), content, reader.point, lost, permissions=shared)
    except BaseException:
        chunks.close()
        raise
    session.start()
    mount = Mount(where, session, chunks)
    try:
        _read_ahead(env, where)
    except BaseException:
        mount.close()
        raise
    return mount


def _read_ahead(env: Env, where: Path) -> None:
    """Let the kernel ask for a megabyte at a time where it is allowed to say so; by default it asks for an eighth."""
    device = env.fs.stat(where).st_dev  # answered by this mount, so it works
    with contextlib.suppress(OSError):
        place = f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb"
        fd = env.fs.open(place, os.O_WRONLY | os.O_CLOEXEC)
        try:
            env.fs.write(fd, b"%d" % (MOST_READ >> 10))
        finally:
            env.fs.close(fd)
