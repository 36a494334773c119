# SPDX-License-Identifier: Apache-2.0
"""The chunk index: which chunks the store already holds, and where.

The authority is the packs' footers; this is a cache of them in sorted segments (`segment.py`) that a machine keeps
outside the store and can lose at any time. An opened store has one index for all that write into it (`lookup.py` is
what each of them sees of it): a footer is read once, however many sessions begin.

Invariants
* After `refresh`, every pack that was in the store as it was called is covered, but for those whose footer cannot be
  read. A refresh that another thread began after that moment is as good, and is waited for instead.
* What a segment says is a guess: whoever uses it asks the footer.
* Private memory grows with the packs, not with the chunks: segments are mapped. Their files may come and go at any
  time.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

from keepstone.errors import CorruptObject, ObjectMissing, StorageError
from keepstone.files import have_folders, names_in, remove_file
from keepstone.objects import failure
from keepstone.store.context import Context
from keepstone.store.footer import DATA
from keepstone.store.packs import Packs
from keepstone.store.refs import PackNumbers
from keepstone.store.segment import Column, Segment, merge_segments, read_segment, write_segment

__all__ = ["ChunkIndex"]

_SUFFIX = ".segment"
_MERGE_AT = 6  # segments; then the smaller half becomes one
_BATCH = 1 << 20  # chunk ids gathered from footers before they are sorted into a segment


class ChunkIndex:
    """Safe for several threads. `folder` holds the cached segments; None keeps them in memory only."""

    def __init__(self, context: Context, folder: Path | None) -> None:
        self._env = context.env
        self._packs = Packs(context, PackNumbers())
        self._folder = folder
        self._segments: list[Segment] = []
        self._mapped: dict[tuple[Path, int, int], Segment | None] = {}  # see `_files`
        self._there: set[bytes] = set()
        self._moments: Iterator[int] = itertools.count()
        self._as_of = -1
        self._lock = threading.Lock()

    def refresh(self) -> tuple[list[Segment], set[bytes]]:
        """Cover every pack that is in the store now: the segments, and the ids of these packs."""
        called = next(self._moments)
        with self._lock:
            if self._as_of < called:
                as_of = next(self._moments)
                self._there = set(self._packs.ids())
                self._segments = self._covering(self._there)
                self._as_of = as_of
            return self._segments, self._there

    def clear(self) -> None:
        """Forget the cached segments; the next `refresh` reads every footer. `AccessDenied`, `StorageError` where one
        cannot be removed."""
        with self._lock:
            self._segments = []
            self._mapped.clear()
            for path, *_ in self._files():
                try:
                    remove_file(self._env.fs, path)
                except OSError as error:
                    raise failure(error, str(path)) from error

    def _covering(self, there: set[bytes]) -> list[Segment]:
        segments = self._load(there)
        segments += self._read_footers(sorted(there.difference(*[segment.packs for segment in segments])))
        if len(segments) > _MERGE_AT and self._folder is not None:
            segments = self._merge(segments, there)
        return segments

    def _files(self) -> list[tuple[Path, int, int]]:
        """Path, inode and size of each segment in the folder: what tells that it is the one that was mapped."""
        if self._folder is None:
            return []
        files = []
        with contextlib.suppress(OSError):  # a cache that cannot be read has nothing
            for name in names_in(self._env.fs, self._folder):
                if name.endswith(_SUFFIX):
                    path = self._folder / name
                    with contextlib.suppress(FileNotFoundError):  # another process merged it
                        status = self._env.fs.stat(path)
                        files.append((path, status.st_ino, status.st_size))
        return files

    def _load(self, there: set[bytes]) -> list[Segment]:
        """The segments that there are: those of the folder, where there is one."""
        if self._folder is None:
            return [segment for segment in self._segments if there.intersection(segment.packs)]
        known = self._mapped
        self._mapped = {
            key: known[key] if key in known else read_segment(self._env, str(key[0])) for key in self._files()
        }
        found = [(path, segment) for (path, *_), segment in self._mapped.items()]
        found.sort(key=lambda pair: len(pair[1].packs) if pair[1] is not None else 0, reverse=True)
        loaded = []
        seen: set[bytes] = set()
        for path, segment in found:  # the larger first: what was merged into one of them is then seen to be
            if segment is None or not there.intersection(segment.packs) or seen.issuperset(segment.packs):
                with contextlib.suppress(OSError):  # damaged, of packs that are gone, or merged
                    self._env.fs.unlink(path)
                continue
            seen.update(segment.packs)
            loaded.append(segment)
        return loaded

    def _read_footers(self, missing: list[bytes]) -> list[Segment]:
        segments: list[Segment] = []
        packs: list[bytes] = []
        ids = bytearray()
        places = array("Q")

        def close() -> None:
            if packs:
                segments.append(self._keep(Segment.build(list(packs), ids, places)))
            packs.clear()
            del places[:]
            ids.clear()

        for pack in missing:
            try:
                footer = self._packs.read_footer(pack)
            except (ObjectMissing, CorruptObject, StorageError):
                continue  # reclaimed since it was listed, or damaged: nobody can refer to it
            if footer.kind == DATA:
                first = len(packs) << 32
                places.extend(range(first, first + footer.chunks))
                ids += footer.ids
            packs.append(pack)
            if len(ids) >= 32 * _BATCH:
                close()
        close()
        return segments

    def _keep(self, segment: Segment) -> Segment:
        return self._store(segment.packs, len(segment), [(segment.prefix, segment.place)]) or segment

    def _store(self, packs: list[bytes], rows: int, parts: Iterable[tuple[Column, Column]]) -> Segment | None:
        if self._folder is None:
            return None
        path = str(self._folder / f"{self._env.random(8).hex()}{_SUFFIX}")
        try:
            have_folders(self._env.fs, self._folder)
            write_segment(self._env, path, packs, rows, parts)
        except OSError:
            return None  # a cache that cannot be written is no reason to fail
        return read_segment(self._env, path)

    def _merge(self, segments: list[Segment], there: set[bytes]) -> list[Segment]:
        segments = sorted(segments, key=len)
        small, large = segments[: len(segments) - 1], segments[-1:]
        if sum(map(len, small)) * 2 > len(large[0]):
            small, large = segments, []
        dead = {pack for segment in small for pack in segment.packs if pack not in there}
        packs, rows, parts = merge_segments(small, dead)
        merged = self._store(packs, rows, parts)
        return segments if merged is None else [*large, merged]
