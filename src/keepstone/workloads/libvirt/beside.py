# SPDX-License-Identifier: Apache-2.0
"""What firmware and TPM of a domain keep, put back to the byte into the files that there are: their owners stay.

The domain has to be off: its QEMU and its swtpm have it in memory, and look at the files no more.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from keepstone.disks import RawSink, RawSource
from keepstone.env import Env
from keepstone.objects import Buffer
from keepstone.workloads.images import restore_image
from keepstone.workloads.machines import Disk, OneDisk, Put, Role
from keepstone.workloads.progress import Progress, Together

__all__ = ["put_beside"]


def put_beside(
    env: Env, path: Path | None, disk: Disk, reader: OneDisk, progress: Progress, touch: Callable[[], None]
) -> Put | None:
    """Put it into the file of this path; None, and a warning, where there is none, or where NVRAM is of another
    firmware, whose size is another one. `touch` is called before something is written. What `restore_image` raises."""
    size = None if path is None else _size(env, path)
    if path is None or size is None or (disk.role is Role.NVRAM and size != disk.size):
        why = "the machine has no file for it" if size is None else f"its file has {size} bytes now"
        progress.warn(disk.name.encode(), f"is not put back: {why}")
        return None
    if size != disk.size:
        touch()
    with _Counting(env, path, disk.size, touch) as sink, RawSource(env, path) as existing:
        lost = restore_image(env, reader, sink, Together(progress), existing=existing)
        return Put(disk, sink.changed, lost)


class _Counting(RawSink):
    """A file that is there. `changed`: how many bytes were to be written or made zeros."""

    def __init__(self, env: Env, path: Path, size: int, touch: Callable[[], None]) -> None:
        self.changed = 0
        self._touch = touch
        super().__init__(env, path, size, overwrite=True)

    def __enter__(self) -> _Counting:
        return self

    def write(self, offset: int, data: Buffer) -> None:
        self._touch()
        self.changed += memoryview(data).nbytes
        super().write(offset, data)

    def zero(self, offset: int, length: int) -> None:
        self._touch()
        self.changed += length
        super().zero(offset, length)


def _size(env: Env, path: Path) -> int | None:
    try:
        return env.fs.stat(path).st_size
    except OSError:
        return None
