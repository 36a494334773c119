# SPDX-License-Identifier: Apache-2.0
"""From a recovery point to a new image of some format: by its sink, or read in order where the format wants that.

Either way, what cannot be read from the store is left out and said, chunk by chunk, and the rest is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from keepstone.disks import Extent
from keepstone.disks.writing import Format, open_sink
from keepstone.env import Env
from keepstone.store import Reader
from keepstone.workloads.images.browse import DiskMap
from keepstone.workloads.images.leaf import LEAF_SPAN
from keepstone.workloads.images.point import PointDisk
from keepstone.workloads.images.restore import Lost, image_size, reported, restore_image
from keepstone.workloads.progress import Progress
from keepstone.workloads.salvage import DAMAGE
from keepstone.workloads.undisturbed import undisturbed

__all__ = ["restore_into"]


def restore_into(env: Env, reader: Reader, target: Path, wanted: Format, progress: Progress) -> list[Lost]:
    """Write the whole disk into a new file `target`; on failure there is none. What `restore_image` returns and
    raises, `TargetExists`, and `UsageError` where the format has no room for it."""
    if wanted.stream is None:
        return restore_image(env, reader, open_sink(env, target, image_size(reader), wanted.name), progress)
    return undisturbed(env, progress, lambda told: _streamed(env, reader, target, wanted, told))


def _streamed(env: Env, reader: Reader, target: Path, wanted: Format, progress: Progress) -> list[Lost]:
    assert wanted.stream is not None
    with _Salvaged(env, reader) as source:
        wanted.check(target, source.size)
        progress.expect(source.size)
        wanted.stream(env, target, source, lambda count, zeros: progress.advance(count, reused=zeros))
        return reported(source.lost, progress)


class _Salvaged:
    """The disk of a point, with zeros in place of what is damaged. `lost`: that, in no order."""

    def __init__(self, env: Env, reader: Reader) -> None:
        self._disk = PointDisk(env, reader)
        self._map = DiskMap(reader)
        self.size = self._disk.size
        self.block_size = self._disk.block_size
        self.lost: list[Lost] = []

    def __enter__(self) -> _Salvaged:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._disk.close()

    def token(self) -> str | None:
        return None

    def extents(self, since: str | None = None) -> Iterator[Extent]:
        for start in range(0, self.size, LEAF_SPAN):
            length = min(LEAF_SPAN, self.size - start)
            try:
                spans = list(self._map.spans(start, length))
            except DAMAGE as error:
                self.lost.append(Lost(start, length, str(error)))
                yield Extent(start, length, zero=True)
                continue
            for zero, run in groupby(spans, lambda span: span.ref is None):
                length = sum(span.length for span in run)
                yield Extent(start, length, zero)
                start += length

    def pread_into(self, buffer: memoryview, offset: int) -> int:
        try:
            return self._disk.pread_into(buffer, offset)
        except DAMAGE:
            return self._piecemeal(buffer, offset)

    def _piecemeal(self, buffer: memoryview, offset: int) -> int:
        end, step = min(offset + len(buffer), self.size), self.block_size
        at = offset
        while at < end:
            stop = min(end, (at // step + 1) * step)
            try:
                self._disk.pread_into(buffer[at - offset : stop - offset], at)
            except DAMAGE as error:
                buffer[at - offset : stop - offset] = bytes(stop - at)
                self.lost.append(Lost(at, stop - at, str(error)))
            at = stop
        return end - offset
