# SPDX-License-Identifier: Apache-2.0
"""Disks to be written, ways to write them, and QEMU as the one who reads them."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keepstone.disks import BlockSink, Extent
from keepstone.disks.writing import FORMATS, open_sink
from keepstone.env import Env

__all__ = ["KIB", "MIB", "QEMU", "SINKS", "Memory", "needs_qemu", "pieces", "qemu", "scattered", "write", "written_by"]

KIB, MIB = 1 << 10, 1 << 20
QEMU = {"vhd": "vpc", "vhd-dynamic": "vpc", "vmdk-sparse": "vmdk"}
"""What QEMU calls a format, where it has another name."""
SINKS = [name for name, format in FORMATS.items() if format.sink is not None]

needs_qemu = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed (qemu-utils)")


class Memory:
    """A `BlockSource` over bytes; its extents are `step` bytes long."""

    def __init__(self, content: bytes, step: int = 4096) -> None:
        self.content = content
        self.size = len(content)
        self.block_size = step

    def token(self) -> str | None:
        return None

    def extents(self, since: str | None = None) -> Iterator[Extent]:
        for at in range(0, self.size, self.block_size):
            piece = self.content[at : at + self.block_size]
            yield Extent(at, len(piece), zero=not any(piece))

    def pread_into(self, buffer: memoryview, offset: int) -> int:
        piece = self.content[offset : offset + len(buffer)]
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        pass


def scattered(size: int, seed: int, *, count: int = 12) -> bytes:
    """A disk of zeros with some data in it, also in its last byte."""
    chance = random.Random(seed)
    content = bytearray(size)
    for _ in range(count):
        at = chance.randrange(size)
        piece = chance.randbytes(min(size - at, chance.randrange(1, 300 * KIB)))
        content[at : at + len(piece)] = piece
    content[-1] = 7
    return bytes(content)


def pieces(size: int, seed: int, longest: int = 3 * MIB) -> list[tuple[int, int]]:
    """(offset, length) of ranges that cover a disk once, in any order."""
    chance = random.Random(seed)
    found, at = [], 0
    while at < size:
        length = min(size - at, chance.choice([512, 4 * KIB, 64 * KIB, 256 * KIB, chance.randrange(1, longest)]))
        found.append((at, length))
        at += length
    chance.shuffle(found)
    return found


def write(sink: BlockSink, content: bytes, ranges: list[tuple[int, int]], threads: int = 4) -> None:
    """Write the ranges from several threads at once; those of zeros by `zero`, every other one."""

    def put(numbered: tuple[int, tuple[int, int]]) -> None:
        number, (offset, length) = numbered
        data = content[offset : offset + length]
        if number % 2 and not any(data):
            sink.zero(offset, length)
        else:
            sink.write(offset, data)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(put, enumerate(ranges)))


def written_by(env: Env, path: Path, content: bytes, name: str, seed: int = 0) -> None:
    """A disk in this format, by whichever way the format has."""
    format = FORMATS[name]
    if format.stream is not None:
        format.stream(env, path, Memory(content), lambda count, zeros: None)
        return
    sink = open_sink(env, path, len(content), name)
    write(sink, content, pieces(len(content), seed))
    sink.finish()


def qemu(*arguments: str | Path) -> str:
    """`qemu-img` with these; what it says. Fails where it does."""
    done = subprocess.run(["qemu-img", *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout
