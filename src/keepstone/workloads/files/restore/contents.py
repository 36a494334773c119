# SPDX-License-Identifier: Apache-2.0
"""The regular files that a restore is writing: chunks come in pack order and go to where they belong.

A file of one chunk is made, written, finished and closed at once when its chunk comes. Any other is made first with its
full size and gets its chunks at their offsets from several threads; it is finished after the last one. What cannot be
read from the store is narrowed down to single chunks, and only the files that need these are left out; nothing partial
stays behind.

Small files are made by one thread at a time, a frame of them at once, while others decompress: each of their four calls
gives Python's lock away and wants it back, and threads that do so hand it over at each (ADR 19).
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeAlias

from keepstone.env import Env
from keepstone.errors import CorruptObject
from keepstone.store import Reader
from keepstone.workloads.files.restore.apply import REFUSED, Finisher
from keepstone.workloads.files.restore.layout import Layout
from keepstone.workloads.files.restore.place import Place
from keepstone.workloads.files.restore.report import Findings
from keepstone.workloads.files.restore.uncached import UncachedWriter
from keepstone.workloads.salvage import DAMAGE, fetch

__all__ = ["Contents"]

_SMALL = 32 << 10
"""Mean length of a frame's chunks below which they are written in a turn; 16 KiB made no difference (by hand, once)."""
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True)
class _Large:
    """A file of several chunks, made with the permissions `mode`. `complete`: all of them were asked for."""

    place: Place
    layout: Layout
    mode: int
    fd: int
    complete: bool = False
    failed: bool = False


@dataclass(slots=True)
class _Part:
    """A chunk of a large file, by its position in the file's stream."""

    large: _Large
    position: int


class _Stop(Exception):
    """Ends a fetch; the reason is what a sink raised first. No damage of the store, whatever it is."""


_Request: TypeAlias = tuple[int, Place | _Part]


class Contents:
    """See the module. One thread calls it; to its reader it is a sink (`store.TakingTurns`).

    `written(fd, place)` is told, by any thread, of every complete file that has further names. `limit`: bytes of chunks
    to fetch at a time.
    """

    def __init__(
        self,
        env: Env,
        reader: Reader,
        finisher: Finisher,
        findings: Findings,
        written: Callable[[int, Place], None],
        limit: int,
    ) -> None:
        self._fs = env.fs
        self._writer = UncachedWriter(env.fs)
        self._reader = reader
        self._finisher = finisher
        self._findings = findings
        self._written = written
        self._limit = limit
        self._requests: list[_Request] = []
        self._large: list[_Large] = []
        self._turn = threading.Lock()
        self._fatal: BaseException | None = None
        self.size = 0
        """Bytes of chunks that wait for `fetch`."""

    @property
    def open_files(self) -> int:
        """How many descriptors are in use."""
        return len(self._large)

    def add(self, place: Place, refs: list[int]) -> None:
        """Restore a regular file with its chunks at `refs`; it is complete after the next `fetch`."""
        entry = place.entry
        if len(refs) == 1 and entry.extra.extents is None:
            self._requests.append((refs[0], place))
            self.size += entry.size
        elif not refs and not entry.size:
            self._write(place, memoryview(b""))
            self._count([place])
        else:
            self._add_large(place, refs)

    def _add_large(self, place: Place, refs: list[int]) -> None:
        entry = place.entry
        try:
            layout = Layout(entry)
            if layout.length and not refs:
                raise CorruptObject("the point does not have its content")
            mode = self._finisher.mode(entry)
            fd = self._fs.open(place.name, _NEW, mode & 0o777, dir_fd=place.directory.fd)
        except (CorruptObject, *REFUSED) as error:
            self._findings.refuse(place.path, error)
            return
        large = _Large(place, layout, mode, fd)
        self._large.append(large)
        try:
            self._fs.ftruncate(fd, entry.size)
            self._ask(large, refs)
        except (*DAMAGE, *REFUSED) as error:
            self._give_up(large, error)
        large.complete = True

    def _ask(self, large: _Large, refs: list[int]) -> None:
        position = 0
        for ref in refs:
            length = self._reader.chunk_length(ref)
            if position + length > large.layout.length:
                raise CorruptObject("its chunks are longer than it is")
            self._requests.append((ref, _Part(large, position)))
            self.size += length
            position += length
            if self.size >= self._limit:
                self.fetch()
                if large.failed:
                    return
        if position != large.layout.length:
            raise CorruptObject("its chunks are shorter than it is")

    def fetch(self) -> None:
        """Write everything that was added."""
        requests, self._requests, self.size = self._requests, [], 0
        if requests:
            with contextlib.suppress(_Stop):
                fetch(self._reader, requests, self, self._waits, self._lose)
            if self._fatal is not None:
                raise self._fatal
        self._count(cookie for _, cookie in requests if type(cookie) is Place)
        for large in self._large[:]:
            if large.complete or large.failed:
                self._large.remove(large)
                self._finish(large)

    def abort(self) -> None:
        """Remove what is not complete. Harmless when repeated."""
        while self._large:
            large = self._large.pop()
            large.failed = True
            self._finish(large)

    @staticmethod
    def _waits(cookie: Place | _Part) -> bool:
        return not cookie.large.failed if isinstance(cookie, _Part) else cookie.done is None

    def _lose(self, cookie: Place | _Part, error: Exception) -> None:
        if isinstance(cookie, _Part):
            self._give_up(cookie.large, error)
        else:
            cookie.done = False
            self._findings.refuse(cookie.path, error)

    def _give_up(self, large: _Large, error: Exception) -> None:
        if not large.failed:
            large.failed = True
            self._findings.refuse(large.place.path, error)

    def turn(self, count: int, size: int) -> AbstractContextManager[object]:
        """Held while a frame of so many chunks with so many bytes is written."""
        return self._turn if size < count * _SMALL else contextlib.nullcontext()

    def __call__(self, cookie: Place | _Part, chunk: memoryview) -> None:
        """Write a chunk."""
        if self._fatal is not None:
            raise _Stop
        try:
            if type(cookie) is _Part:
                self._fill(cookie.large, cookie.position, chunk)
            elif type(cookie) is Place and cookie.done is None:
                self._write(cookie, chunk)
        except BaseException as error:
            self._fatal = error
            raise _Stop from error

    def _fill(self, large: _Large, position: int, chunk: memoryview) -> None:
        if large.failed:
            return
        try:
            for begin, end, offset in large.layout.pieces(position, len(chunk)):
                self._writer.write(large.fd, chunk[begin:end], offset, large.layout.size)
        except OSError as error:
            self._give_up(large, error)
        self._findings.progress.advance(len(chunk))

    def _write(self, place: Place, chunk: memoryview) -> None:
        """Make a whole file out of its only chunk."""
        fs, entry = self._fs, place.entry
        place.done = False
        fd = -1
        try:
            if len(chunk) != entry.size:
                raise CorruptObject("its chunk has another length than it")
            mode = self._finisher.mode(entry)
            fd = fs.open(place.name, _NEW, mode & 0o777, dir_fd=place.directory.fd)
            self._writer.write(fd, chunk, 0, entry.size)
            self._complete(fd, place, mode)
            place.done = True
        except (CorruptObject, *REFUSED) as error:
            self._findings.refuse(place.path, error)
        finally:
            if fd >= 0:
                fs.close(fd)
                if not place.done:
                    self._remove(place)
        self._findings.progress.advance(len(chunk), 1)

    def _complete(self, fd: int, place: Place, mode: int) -> None:
        self._finisher.file(fd, place, mode)
        if place.entry.extra.link is not None:
            self._written(fd, place)
        if place.final is not None:
            directory = place.directory.fd
            self._fs.rename(place.name, place.final, src_dir_fd=directory, dst_dir_fd=directory)

    def _finish(self, large: _Large) -> None:
        place = large.place
        try:
            if not large.failed:
                self._complete(large.fd, place, large.mode)
                self._findings.files += 1
                self._findings.size += large.layout.length
                self._findings.progress.advance(0, 1)
        except REFUSED as error:
            self._give_up(large, error)
        finally:
            self._fs.close(large.fd)
            if large.failed:
                self._remove(place)

    def _remove(self, place: Place) -> None:
        with contextlib.suppress(OSError):  # somebody else removed it
            self._fs.unlink(place.name, dir_fd=place.directory.fd)

    def _count(self, places: Iterable[Place]) -> None:
        sizes = [place.entry.size for place in places if place.done]
        self._findings.files += len(sizes)
        self._findings.size += sum(sizes)
