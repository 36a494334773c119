# SPDX-License-Identifier: Apache-2.0
"""Sparse images of every format, read whole: how fast, and how much of them.

The images are made by qemu-img and lie in memory (tmpfs), for what is read past the page cache would measure the disk.
They are read as a backup reads them: the extents with data, by as many threads as there are cores. Every byte is
compared with the raw disk, outside of the measured time.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.data import FULL, Scale
from bench.machines.shelf import need
from bench.measure import Failed
from keepstone.disks import BlockSource, open_disk
from keepstone.env import Env
from keepstone.objects import aligned

__all__ = ["measure_all"]

_MEMORY = Path("/dev/shm")
_PIECE = 1 << 20
_RUN = 8  # pieces of data in a row
_ROUNDS = 5
_FORMATS = {  # as they are restored: what we call them when we read, and what qemu-img is told
    "vhdx": ("vhdx", "vhdx", "subformat=dynamic"),
    "vhd_dynamic": ("vhd", "vpc", "subformat=dynamic,force_size=on"),
    "vmdk_sparse": ("vmdk", "vmdk", "subformat=monolithicSparse"),
    "qcow2": ("qcow2", "qcow2", "compat=1.1"),
}


def measure_all(folder: Path, scale: Scale) -> dict[str, float]:
    """Of each format: bytes of data a second, and what was read as a part of what the image's file occupies."""
    need("qemu-img", "qemu-nbd")
    size, data = (2 << 30, 512 << 20) if scale is FULL else (256 << 20, 64 << 20)
    if shutil.disk_usage(_MEMORY).free < 3 * data:
        raise Failed(f"{_MEMORY} has less than {3 * data >> 20} MiB free, where images are read from")
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=_MEMORY) as memory:
        raw = Path(memory) / "disk.raw"
        _make(raw, size, data)
        for name, (form, theirs, options) in _FORMATS.items():
            image = Path(memory) / f"disk.{form}"
            command = ["qemu-img", "convert", "-f", "raw", "-O", theirs, "-o", options, str(raw), str(image)]
            subprocess.run(command, check=True)
            speed, share = _measured(form, image, raw)
            found |= {f"reading_{name}_gb_s": speed, f"reading_{name}_share": share}
            image.unlink()
    return found


def _make(path: Path, size: int, data: int) -> None:
    """A disk with runs of random bytes at places by chance."""
    chance = random.Random(3)
    slots = sorted(chance.sample(range(size // (_RUN * _PIECE)), data // (_RUN * _PIECE)))
    with path.open("wb") as file:
        file.truncate(size)
        for slot in slots:
            file.seek(slot * _RUN * _PIECE)
            file.write(chance.randbytes(_RUN * _PIECE))


def _measured(form: str, image: Path, raw: Path) -> tuple[float, float]:
    """Gigabytes a second, the best of some rounds, and the part of the file that they are."""
    env = Env()
    occupied = image.stat().st_blocks * 512
    with open_disk(env, image, form) as disk, raw.open("rb") as truth:
        spent = []
        count = 0
        for _ in range(_ROUNDS):
            begin = time.monotonic()
            count = _read(disk, env.threads, lambda at, view: None)
            spent.append(time.monotonic() - begin)

        def compare(at: int, view: memoryview) -> None:
            truth.seek(at)
            if truth.read(len(view)) != view:
                raise Failed(f"the {form} image reads differently from the disk at byte {at}")

        _read(disk, 1, compare)
        zeros = sum(extent.length for extent in disk.extents() if extent.zero)
        if zeros + count != disk.size:
            raise Failed(f"the {form} image has {disk.size} bytes, and tells of {zeros + count}")
    return count / min(spent) / 1e9, count / occupied


def _read(disk: BlockSource, threads: int, check: Callable[[int, memoryview], None]) -> int:
    """Read all that is no zero; how many bytes."""

    def pieces() -> Iterator[tuple[int, int]]:
        for extent in disk.extents():
            if not extent.zero:
                for at in range(extent.offset, extent.end, _PIECE):
                    yield at, min(_PIECE, extent.end - at)

    def work(mine: list[tuple[int, int]]) -> int:
        room = aligned(_PIECE)
        total = 0
        for at, length in mine:
            total += disk.pread_into(room[:length], at)
            check(at, room[:length])
        return total

    every = list(pieces())
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(work, [every[number::threads] for number in range(threads)]))
