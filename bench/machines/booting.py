# SPDX-License-Identifier: Apache-2.0
"""Guests whose disk is still in the store, beside the same guests on a local disk: seconds until their agent answers.

Both kinds of the tests' guests: the tiny one, whose kernel comes from outside, so that of its disk it only mounts a
file system; and a whole Debian, which boots from it. The disk is an overlay over the point, which is served from this
process, or over the same disk as a local file. They take turns, and the lesser of the times counts.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from bench.data import FULL, Scale
from bench.machines.shelf import need
from keepstone.crypto import Argon2Cost, PassphraseProvider
from keepstone.disks import RawSource
from keepstone.disks.nbd import NbdServer
from keepstone.env import Env
from keepstone.objects import FolderStorage
from keepstone.store import Point, Store
from keepstone.workloads import Silent
from keepstone.workloads.images import PointDisk, backup_image
from keepstone.workloads.running.disks import Counted
from tests.machines.full import FullGuest, full_disk
from tests.machines.guest import Guest, agent_until, make_disk

__all__ = ["measure_all"]

_TINY = 2048  # MiB
_PATIENCE = 300.0

Starting = Callable[[Path, Path], Guest]
"""A guest that works in a folder on this disk."""


def measure_all(folder: Path, scale: Scale) -> dict[str, float]:
    """Of each guest: the two times, their ratio, and what was read of the disk until the agent answered."""
    need("qemu-system-x86_64", "qemu-img")
    disk = make_disk(folder / "tiny.raw", _TINY if scale is FULL else 64, "raw")
    found = _measured("tiny", folder / "tiny", disk, 3, lambda place, overlay: Guest(place, [("d0", overlay)]))
    disk.unlink()
    if scale is FULL:
        disk = folder / "debian.raw"
        subprocess.run(["qemu-img", "convert", "-O", "raw", full_disk(), disk], check=True)
        found |= _measured("debian", folder / "debian", disk, 2, FullGuest)
    return found


def _measured(name: str, folder: Path, disk: Path, rounds: int, start: Starting) -> dict[str, float]:
    env = Env()
    folder.mkdir()
    provider = PassphraseProvider(b"bench", cost=Argon2Cost(iterations=1, memory_kib=64, lanes=1), weak=True)
    store = Store.init(env, FolderStorage(env, folder / "store", create=True), [provider])
    with RawSource(env, disk) as source, store.writer("disk", "image") as writer:
        point = store.points.find(backup_image(env, writer, source, Silent(), name=b"disk").commit)
    served, local, read = [], [], []
    for turn in range(rounds):
        seconds, count = _served(env, store, point, folder / f"served{turn}", start)
        served.append(seconds)
        read.append(count)
        local.append(_booted(folder / f"local{turn}", str(disk), start))
    return {
        f"booting_{name}_served_s": min(served),
        f"booting_{name}_local_s": min(local),
        f"booting_{name}_ratio": min(served) / min(local),
        f"booting_{name}_read_bytes": max(read),
        f"booting_{name}_read_share": max(read) / disk.stat().st_size,
    }


def _served(env: Env, store: Store, point: Point, folder: Path, start: Starting) -> tuple[float, int]:
    folder.mkdir()
    with store.reader(point) as reader, PointDisk(env, reader) as disk:
        counted = Counted(disk)
        with NbdServer(env, {"": counted}, folder / "socket") as server:
            seconds = _booted(folder / "guest", server.address.uri, start)
        return seconds, counted.read


def _booted(folder: Path, below: str, start: Starting) -> float:
    """Seconds from the start of QEMU until the agent answers."""
    folder.mkdir()
    overlay = folder / "overlay.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", below, overlay], check=True)
    begin = time.monotonic()
    with start(folder, overlay) as guest:
        agent_until(guest.qga, "thawed", _PATIENCE)
        return time.monotonic() - begin
