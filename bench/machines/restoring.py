# SPDX-License-Identifier: Apache-2.0
"""An image restored in every format, beside the fastest that this machine could do.

A restore has to read what is compressed and to write what it makes of that. So its floor is the slower of two: the
sequential write speed of the disk, measured before each restore with fsync, and zstd, which expands frames of the same
image on every core. A vmdk is compressed again, and that adds to what zstd takes.

That floor is too low in one way and too high in three, so what it leaves out is measured beside it. Too low: memory of
small pages reaches the disk in many small requests, memory of huge ones, which a restore writes from, in few
(`huge_write`). Too high: a restore also opens seals and computes ids (`checked`); the packs are read from the same
disk while it is written (`shared`: bytes written a second while so many are read); and it has to start.

Each format is restored twice, forwards and backwards through the list: what comes first finds the quieter machine.
"""

from __future__ import annotations

import mmap
import os
import shutil
import statistics
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.data import FULL, Scale, ensure
from bench.machines.shelf import Shelf
from keepstone.crypto import Blake3Hashing, open_frame, seal_frame
from keepstone.disks.writing import FORMATS
from keepstone.objects import aligned
from keepstone.store import DISK_CHUNK
from keepstone.store.frame import DEFAULT_LEVEL, Frame, expand, make_frame

__all__ = ["measure_all"]

_MIB = 1 << 20
_STREAMED = "vmdk"
_LEVEL = 1  # of deflate, as keepstone.disks.writing.streamed has it
_GRAIN = 64 << 10
_SAMPLE = 512  # pieces of 1 MiB


def measure_all(folder: Path, scale: Scale) -> dict[str, float]:
    """Of each format: megabytes of data a second, of two restores together, and that as a part of the floor's."""
    image, _ = ensure("image", scale)
    data = _stored(image)
    shelf = Shelf(folder / "keepstone")
    shelf.run("backup", "--image", image)
    shutil.rmtree(shelf.room.target)
    pieces = _sample(image, _SAMPLE if scale is FULL else 32)
    frames = _frames(pieces)
    packs = [path for path in shelf.room.store.joinpath("packs").rglob("*") if path.is_file()]
    writes, zstd, deflate, seconds = list[float](), 0.0, _deflate(pieces), dict.fromkeys(FORMATS, 0.0)
    huge, shared, checked = list[float](), list[float](), 0.0
    small, large = memoryview(mmap.mmap(-1, 4 * _MIB)), aligned(4 * _MIB)
    small[:] = large[:] = os.urandom(len(small))
    for name in (*FORMATS, *reversed(FORMATS)):
        writes.append(_write(folder / "written", data, small))
        huge.append(_write(folder / "written", data, large))
        shared.append(_write(folder / "written", data, large, packs))
        zstd, checked = max(zstd, _zstd(frames)), max(checked, _checked(frames))
        target = folder / f"disk.{name}"
        seconds[name] += shelf.run("restore", "latest", "--target", target, "--format", name).wall_s
        target.unlink()
    write = statistics.median(writes)
    found = {"restoring_write_mb_s": write / 1e6, "restoring_zstd_mb_s": zstd / 1e6}
    found |= {"restoring_deflate_mb_s": deflate / 1e6, "restoring_checked_mb_s": checked / 1e6}
    found["restoring_huge_write_mb_s"] = statistics.median(huge) / 1e6
    found["restoring_shared_mb_s"] = statistics.median(shared) / 1e6
    for name, spent in seconds.items():
        speed = 2 * data / spent
        floor = min(write, 1 / (1 / zstd + 1 / deflate) if name == _STREAMED else zstd)
        key = name.replace("-", "_")
        found |= {f"restoring_{key}_mb_s": speed / 1e6, f"restoring_{key}_ratio": speed / floor}
    return found


def _stored(image: Path) -> int:
    """Bytes of the image that are no holes."""
    return image.stat().st_blocks * 512


def _sample(image: Path, count: int) -> list[bytes]:
    """Pieces from all over the image, without those of zeros."""
    size = image.stat().st_size // _MIB
    found = []
    with image.open("rb") as disk:
        for number in range(0, size, max(1, size // (2 * count))):
            disk.seek(number * _MIB)
            piece = disk.read(_MIB)
            if piece.strip(b"\0"):
                found.append(piece)
    return found[:count]


def _frames(pieces: Sequence[bytes]) -> list[Frame]:
    hashing = Blake3Hashing()
    return [make_frame(hashing, DEFAULT_LEVEL, piece, [], []) for piece in pieces]


def _zstd(frames: Sequence[Frame]) -> float:
    return _rate(frames, lambda frame: expand(frame.payload, frame.codec, frame.raw_length))


def _checked(frames: Sequence[Frame]) -> float:
    """As `_zstd`, with what else nobody may leave out: the seal of the frame, and the id of each chunk."""
    hashing, key = Blake3Hashing(), os.urandom(32)
    sealed = []
    for frame in frames:
        room = memoryview(bytearray(len(frame.payload) + 16))
        seal_frame(key, frame.payload, b"", room)
        sealed.append((frame, room))
    local = threading.local()

    def work(item: tuple[Frame, memoryview]) -> None:
        frame, text = item
        if not hasattr(local, "text"):
            local.text, local.data = aligned(_MIB), aligned(2 * _MIB)
        payload = local.text[: len(frame.payload)]
        open_frame(key, text, b"", payload)
        data = memoryview(expand(payload, frame.codec, frame.raw_length, into=local.data[: frame.raw_length]))
        for at in range(0, len(data), DISK_CHUNK):
            hashing.keyed(key, data[at : at + DISK_CHUNK])

    return _rate(sealed, work)


def _deflate(pieces: Sequence[bytes]) -> float:
    def work(piece: bytes) -> None:
        for at in range(0, len(piece), _GRAIN):
            zlib.compress(piece[at : at + _GRAIN], _LEVEL)

    return _rate(pieces, work)


def _rate(pieces: Sequence[Any], work: Callable[[Any], object]) -> float:
    """Bytes a second on every core, the best of three."""
    spent = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in range(3):
            begin = time.monotonic()
            list(pool.map(work, pieces))
            spent.append(time.monotonic() - begin)
    return len(pieces) * _MIB / min(spent)


def _write(path: Path, count: int, page: memoryview, packs: Sequence[Path] = ()) -> float:
    """Bytes a second of one long write, durable at its end: past the page cache, as a restore writes. `packs` are read
    meanwhile, and the clock stops when they are."""
    os.sync()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_DIRECT)
    try:
        with ThreadPoolExecutor(1) as pool:
            begin = time.monotonic()
            reading = pool.submit(_read, packs)
            for _ in range(-(-count // len(page))):
                os.write(fd, page)
            os.fsync(fd)
            reading.result()
            spent = time.monotonic() - begin
    finally:
        os.close(fd)
    path.unlink()
    return -(-count // len(page)) * len(page) / spent


def _read(packs: Sequence[Path]) -> None:
    room = aligned(8 * _MIB) if packs else memoryview(b"")
    for path in packs:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
        try:
            while os.readv(fd, [room]) == len(room):
                pass
        finally:
            os.close(fd)
