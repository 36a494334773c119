# SPDX-License-Identifier: Apache-2.0
"""Small disks, and a store to put them in and get them back."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from keepstone.disks import BlockSource, RawSink, RawSource
from keepstone.env import Env
from keepstone.objects import Buffer
from keepstone.remote.writer import RemoteWriter
from keepstone.store import DISK_CHUNK, LocalWriter, Point, Reader, Store
from keepstone.workloads import Silent
from keepstone.workloads.images import Lost, Report, backup_image, image_size, restore_image

__all__ = ["CHUNK", "Count", "Shelf", "naming", "noise", "patch", "sparse"]

CHUNK = DISK_CHUNK


def noise(chunks: float, seed: int = 0) -> bytes:
    """So many chunks of bytes that are found nowhere else."""
    return random.Random(seed).randbytes(int(chunks * CHUNK))


def sparse(path: Path, size: int, data: dict[int, bytes]) -> Path:
    """A sparse file of this size with this data at these offsets."""
    with path.open("wb") as file:
        file.truncate(size)
    return patch(path, data)


def patch(path: Path, data: dict[int, bytes]) -> Path:
    """Write this data at these offsets."""
    fd = os.open(path, os.O_WRONLY)
    try:
        for offset, piece in data.items():
            os.pwrite(fd, piece, offset)
    finally:
        os.close(fd)
    return path


@dataclass
class Count:
    """Progress, added up; and what was written to a sink."""

    expected: int = 0
    done: int = 0
    reused: int = 0
    warnings: list[str] = field(default_factory=list)

    def expect(self, size: int) -> None:
        self.expected = size

    def advance(self, size: int, files: int = 0, reused: int = 0) -> None:
        self.done += size
        self.reused += reused

    def warn(self, path: bytes, message: str) -> None:
        self.warnings.append(message)


class Watched(RawSink):
    """Notes what is written."""

    def __init__(self, env: Env, path: Path, size: int) -> None:
        super().__init__(env, path, size, overwrite=True)
        self.written: set[int] = set()
        self.zeroed: set[int] = set()

    def write(self, offset: int, data: Buffer) -> None:
        self.written.update(range(offset // CHUNK, -(-(offset + memoryview(data).nbytes) // CHUNK)))
        super().write(offset, data)

    def zero(self, offset: int, length: int) -> None:
        self.zeroed.update(range(offset // CHUNK, -(-(offset + length) // CHUNK)))
        super().zero(offset, length)


def naming(monkeypatch: pytest.MonkeyPatch, writer: type[LocalWriter] | type[RemoteWriter]) -> list[int]:
    """Lengths of what writers of this kind name by its id from now on."""
    lengths: list[int] = []
    identify = writer.identify

    def count(self: Any, chunk: bytes | memoryview) -> bytes:
        lengths.append(len(chunk))
        return identify(self, chunk)

    monkeypatch.setattr(writer, "identify", count)
    return lengths


class Shelf:
    """A store with one disk in it."""

    def __init__(self, env: Env, store: Store) -> None:
        self.env, self.store = env, store

    def backup(self, disk: Path | BlockSource, progress: Count | None = None) -> Report:
        """A recovery point of the disk."""
        source = RawSource(self.env, disk) if isinstance(disk, Path) else disk
        try:
            with self.store.writer("disk", "images") as writer:
                return backup_image(self.env, writer, source, progress or Silent(), name=b"/dev/disk")
        finally:
            source.close()

    def point(self, report: Report) -> Point:
        return self.store.points.find(report.commit)

    def reader(self, report: Report) -> Reader:
        return self.store.reader(self.point(report))

    def restore(self, report: Report, target: Path, progress: Count | None = None) -> Path:
        """The point as a new file."""
        assert self.salvage(report, target, progress) == []
        return target

    def salvage(self, report: Report, target: Path, progress: Count | None = None) -> list[Lost]:
        """The same of a damaged store; what is missing."""
        with self.store.reader(self.point(report)) as reader:
            sink = RawSink(self.env, target, image_size(reader))
            return restore_image(self.env, reader, sink, progress or Silent())

    def restore_over(self, report: Report, target: Path, progress: Count | None = None) -> Watched:
        """The point onto what is there; what was written."""
        with self.store.reader(self.point(report)) as reader:
            sink = Watched(self.env, target, image_size(reader))
            with RawSource(self.env, target) as existing:
                restore_image(self.env, reader, sink, progress or Silent(), existing=existing)
        return sink

    def objects(self) -> set[str]:
        """The packs that the store has."""
        return {info.name for info in self.store.context.storage.list("packs/")}
