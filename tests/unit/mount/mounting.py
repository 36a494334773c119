# SPDX-License-Identifier: Apache-2.0
"""Real mounts of points, and when they are possible at all."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from keepstone.env import Env
from keepstone.errors import KeepstoneError
from keepstone.mount import Mount, mount_point
from keepstone.store import LocalReader

__all__ = ["Mounted", "mounted", "mounts", "needs_fuse"]


def _possible() -> bool:
    """Whether this process may mount: root has /dev/fuse in many containers, and still must not use it."""
    if os.geteuid() or not os.path.exists("/dev/fuse"):
        return False
    from keepstone.mount.device import attach, detach

    with tempfile.TemporaryDirectory() as folder:
        try:
            fd = attach(Path(folder), shared=False)
        except KeepstoneError:
            return False
        detach(Path(folder))
        os.close(fd)
    return True


needs_fuse = pytest.mark.skipif(not _possible(), reason="mounting takes root, /dev/fuse and CAP_SYS_ADMIN")


class Mounted:
    """A mount at `root`. `lost`: what was told, by path."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lost: dict[bytes, KeepstoneError] = {}
        self.mount: Mount

    def lose(self, path: bytes, error: KeepstoneError) -> None:
        assert path not in self.lost  # nobody is told twice
        self.lost[path] = error


@contextmanager
def mounted(env: Env, reader: LocalReader, root: Path, *, shared: bool = False) -> Iterator[Mounted]:
    """The point at this directory, which is made."""
    root.mkdir(exist_ok=True)
    found = Mounted(root)
    with mount_point(env, reader, root, shared=shared, lost=found.lose) as mount:
        found.mount = mount
        try:
            yield found
        finally:
            # Whatever a failed test still has open there does not keep the mount.
            subprocess.run(["umount", "-q", "-l", str(root)], check=False, stderr=subprocess.DEVNULL)


def mounts(root: Path, process: int | str = "self") -> list[list[str]]:
    """What is mounted at this directory, as a process sees it: lines of /proc/mounts."""
    lines = [line.split() for line in Path(f"/proc/{process}/mounts").read_text().splitlines()]
    return [line for line in lines if line[1] == str(root)]
