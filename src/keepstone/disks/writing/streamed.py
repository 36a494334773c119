# SPDX-License-Identifier: Apache-2.0
"""VMDK streamOptimized, as OVF and vSphere's import want it. Source: VMware, Virtual Disk Format 5.0, section
"Stream-Optimized Compressed Sparse Extents".

Header, descriptor, then grains in ascending order, each compressed by itself; behind the grains of a table the table,
at the end the directory, a copy of the header that says where it is, and a marker of the end. It can only be written
from its beginning to its end, so the disk is read in order. Grains of zeros are left out.
"""

from __future__ import annotations

import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Protocol

from keepstone.disks.port import BlockSource
from keepstone.disks.writing.file import NewFile
from keepstone.disks.writing.sink import whole
from keepstone.disks.writing.vmdk import GRAIN, SECTOR, TABLE, descriptor, header, table
from keepstone.env import Env
from keepstone.errors import SourceFailed
from keepstone.objects import Buffer, BufferPool, aligned, is_zero

__all__ = ["Advance", "Writable", "write_stream_optimized", "write_vmdk"]

_PIECE = 1 << 20  # what one worker reads and compresses at once
_LEVEL = 1  # several times as fast as 6, and a few per cent longer
_AT_END = 0xFFFFFFFFFFFFFFFF
_OVERHEAD = 128
_GRAIN_TABLE, _DIRECTORY, _FOOTER, _END = 1, 2, 3, 0
_FLAGS = 0x30001  # line ends can be checked; grains are compressed; there are markers
_VERSION, _DEFLATE = 3, 1

Grain = tuple[int, bytes]
"""Which one, and its marker and content in whole sectors."""
Advance = Callable[[int, int], None]
"""Told so many bytes of the disk that are done, and how many of them nobody had to read."""


class Writable(Protocol):
    """What takes bytes one after the other."""

    def write(self, data: Buffer, /) -> object:
        """All of `data`, behind what came before."""


def write_vmdk(env: Env, path: Path, source: BlockSource, advance: Advance) -> None:
    """Write a disk into a new file, durable on return; on failure there is none. `TargetExists`."""
    file = NewFile(env, path)
    try:
        appender = _Appender(file)
        write_stream_optimized(env, source, appender, advance)
        appender.flush()
        file.seal(appender.length, (), ())
    finally:
        file.abort()


class _Appender:
    """Gathers what comes into long aligned writes."""

    def __init__(self, file: NewFile) -> None:
        self._file = file
        self._view = aligned(_PIECE)
        self._fill = self._start = 0

    @property
    def length(self) -> int:
        return self._start + self._fill

    def write(self, data: Buffer) -> None:
        view = memoryview(data).cast("B")
        while len(view):
            count = min(len(view), len(self._view) - self._fill)
            self._view[self._fill : self._fill + count] = view[:count]
            self._fill += count
            view = view[count:]
            if self._fill == len(self._view):
                self.flush()

    def flush(self) -> None:
        self._file.write(self._start, self._view[: self._fill])
        self._start, self._fill = self.length, 0


def write_stream_optimized(
    env: Env, source: BlockSource, out: Writable, advance: Advance = lambda count, zeros: None
) -> None:
    """Write a disk to `out`; the threads of `env` read and compress. What the source raises."""
    stream = _Stream(env, source.size, out)
    done = 0
    for start, end, grains in _compressed(env, source):
        for number, packed in grains:
            stream.grain(number, packed)
        advance(end - done, start - done)
        done = end
    stream.finish()
    if done < source.size:
        advance(source.size - done, source.size - done)


def _compressed(env: Env, source: BlockSource) -> Iterator[tuple[int, int, list[Grain]]]:
    """The disk in order: begin and end of what was read, and its grains. A few pieces are under way at a time."""
    buffers = BufferPool(_PIECE, keep=2 * env.threads + 2)
    pool = env.pool()
    waiting: deque[tuple[int, int, Future[list[Grain]]]] = deque()
    try:
        for start, end in _pieces(source):
            waiting.append((start, min(end, source.size), pool.submit(_compress, source, buffers, start, end)))
            if len(waiting) > 2 * env.threads:
                begin, stop, future = waiting.popleft()
                yield begin, stop, future.result()
        for begin, stop, future in waiting:
            yield begin, stop, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _pieces(source: BlockSource) -> Iterator[tuple[int, int]]:
    """Begin and end of what has to be read: the data, widened to grains, none of them twice."""
    done = 0
    for extent in source.extents():
        start = max(done, extent.offset // GRAIN * GRAIN)
        end = -(-extent.end // GRAIN) * GRAIN
        if extent.zero:
            continue
        while start < end:
            stop = min(end, (start // _PIECE + 1) * _PIECE)
            yield start, stop
            done = start = stop


def _compress(source: BlockSource, buffers: BufferPool, start: int, end: int) -> list[Grain]:
    buffer = buffers.take()
    try:
        wanted = min(end, source.size) - start
        if source.pread_into(buffer[:wanted], start) != wanted:
            raise SourceFailed(f"the disk ends before byte {start + wanted} of {source.size}; try again")
        buffer[wanted : end - start] = bytes(end - start - wanted)
        grains = []
        for at in range(0, end - start, GRAIN):
            grain = buffer[at : at + GRAIN]
            if not is_zero(grain):
                grains.append(((start + at) // GRAIN, _packed((start + at) // SECTOR, grain)))
        return grains
    finally:
        buffers.give(buffer)


def _packed(sector: int, grain: memoryview) -> bytes:
    """Section "Grain Marker"."""
    data = zlib.compress(grain, _LEVEL if _shrinks(grain) else 0)
    packed = struct.pack("<QI", sector, len(data)) + data
    return packed.ljust(-(-len(packed) // SECTOR) * SECTOR, b"\0")


def _shrinks(grain: memoryview) -> bool:
    """Whether a sample of it does: compressing what is compressed or encrypted already costs most, and for nothing."""
    sample = b"".join(grain[at : at + 1024] for at in range(0, GRAIN, GRAIN // 4))
    return len(zlib.compress(sample, _LEVEL)) < len(sample)


class _Stream:
    """Counts sectors, so that the tables know where everything is."""

    def __init__(self, env: Env, size: int, out: Writable) -> None:
        self._size = whole(size, GRAIN)
        self._out = out
        self._sectors = 0
        self._directory = [0] * -(-self._size // (GRAIN * TABLE))
        self._table: list[int] | None = None
        self._index = 0
        self._write(self._header(_AT_END))
        self._write(descriptor(env, "streamOptimized", self._size).ljust((_OVERHEAD - 1) * SECTOR, b"\0"))

    def _header(self, directory: int) -> bytes:
        return header(_FLAGS, _VERSION, self._size, (0, directory), _OVERHEAD, _DEFLATE)

    def grain(self, number: int, packed: bytes) -> None:
        index, at = divmod(number, TABLE)
        if index != self._index:
            self._close()
            self._index = index
        self._table = self._table or [0] * TABLE
        self._table[at] = self._sectors
        self._write(packed)

    def _close(self) -> None:
        """The table of the grains until here, where there are any."""
        if self._table is not None:
            self._directory[self._index] = self._marked(_GRAIN_TABLE, table(self._table))
            self._table = None

    def finish(self) -> None:
        self._close()
        place = self._marked(_DIRECTORY, table(self._directory))
        self._marked(_FOOTER, self._header(place))
        self._marked(_END, b"")

    def _marked(self, kind: int, content: bytes) -> int:
        """Section "Metadata Marker"; and what it announces; where that is."""
        self._write(struct.pack("<QII496x", len(content) // SECTOR, 0, kind))
        place = self._sectors
        self._write(content)
        return place

    def _write(self, data: bytes) -> None:
        self._out.write(data)
        self._sectors += len(data) // SECTOR
