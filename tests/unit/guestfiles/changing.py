# SPDX-License-Identifier: Apache-2.0
"""Disks that change, and their points."""

from __future__ import annotations

from pathlib import Path

from keepstone.disks import RawSource
from keepstone.env import Env
from keepstone.store import Point, Store
from keepstone.workloads import Silent
from keepstone.workloads.images import backup_image
from tests.unit.guestfiles.filesystems import need, run

__all__ = ["disk_point", "edited", "overwritten"]


def disk_point(store: Store, disk: Path, item: str = "disk") -> Point:
    """A point of a disk."""
    env = Env(threads=2)
    with RawSource(env, disk) as source, store.writer(item, "images") as writer:
        report = backup_image(env, writer, source, Silent(), name=b"/dev/disk")
    return store.points.find(report.commit)


def edited(image: Path, *commands: str) -> Path:
    """Change an ext4 by the commands of debugfs(8)."""
    need("debugfs")
    run("debugfs", "-w", "-f", "-", image, text="\n".join([*commands, ""]))
    return image


def overwritten(image: Path, before: bytes, after: bytes) -> Path:
    """Put other bytes where these are on the disk, of which its file system knows nothing."""
    content = image.read_bytes()
    assert content.count(before) == 1
    assert len(before) == len(after)
    with image.open("r+b") as file:
        file.seek(content.index(before))
        file.write(after)
    return image
