# SPDX-License-Identifier: Apache-2.0
"""A point as a zip stream (PKWARE's APPNOTE.TXT), for those who have no tar: as it is written, in constant memory.

Names are UTF-8, where the point has others with marks in place of what is not; modes and links are as Info-ZIP keeps
them. Of a file with several names each gets the content. What a zip has no form for is left out and said: devices,
sockets, streams of NTFS beside a file. What is damaged is left out as long as it fits into a window; a larger file has
been begun when its damage is met, and the stream breaks off there.
"""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import BinaryIO, cast

from keepstone.errors import CorruptObject, KeepstoneError
from keepstone.store import Reader
from keepstone.workloads.files.names import shown
from keepstone.workloads.files.page import UNREADABLE, Entry
from keepstone.workloads.files.restore.layout import Layout
from keepstone.workloads.files.restore.report import Findings, RestoreReport
from keepstone.workloads.files.tree import select, traverse
from keepstone.workloads.progress import Progress
from keepstone.workloads.salvage import DAMAGE, fetch

__all__ = ["write_zip"]

_WINDOW_SIZE = 16 << 20
_WINDOW_ENTRIES = 2000
_KINDS = {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK}
_ZEROS = bytes(1 << 20)
_FIRST, _LAST = 315_532_800, 4_354_819_198  # 1980 to 2107: what the field has room for
_UNIX = 3


def write_zip(reader: Reader, paths: Iterable[bytes], stream: BinaryIO, progress: Progress) -> RestoreReport:
    """Write the point, or what these paths name of it, to `stream`, which needs only `write` and `flush`.

    `NotFound` for a path that the point does not have, before anything is written; `CorruptObject` where the stream had
    to break off; `OSError` of the stream itself.
    """
    findings = Findings(progress)
    selection = select(reader, paths)
    with zipfile.ZipFile(cast(BinaryIO, _Out(stream)), "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        window = _Window(reader, archive, findings)
        for step in traverse(reader, selection, window.lose):
            if step.whole and not step.leaving:
                window.add(step.path, step.entry, step.refs)
        window.flush()
    return findings.report()


class _Out:
    """What `zipfile` needs of a stream in which nobody can go back."""

    def __init__(self, stream: BinaryIO) -> None:
        self.write = stream.write
        self.flush = stream.flush


@dataclass(slots=True)
class _Member:
    path: bytes
    entry: Entry
    layout: Layout
    refs: list[int]
    chunks: dict[int, bytes] = field(default_factory=dict)
    lost: bool = False


class _Window:
    def __init__(self, reader: Reader, archive: zipfile.ZipFile, findings: Findings) -> None:
        self._reader = reader
        self._archive = archive
        self._findings = findings
        self._members: list[_Member] = []
        self._size = 0
        self._last: tuple[bytes, int] = b"", -1

    def lose(self, path: bytes, error: KeepstoneError) -> None:
        """A page of this directory cannot be read."""
        self._findings.fail(path or b".", f"a part of this directory is left out: {error}")

    def add(self, path: bytes, entry: Entry, refs: list[int]) -> None:
        """Take an entry; it is written with its window."""
        kind = stat.S_IFMT(entry.mode)
        if kind not in _KINDS:
            self._findings.warn(path, "left out: a zip has no such kind of file")
            return
        if kind == stat.S_IFREG:
            before, inode = self._last
            if inode == entry.inode and path.startswith(before + b":"):
                self._findings.often(path, "left out: a zip has no streams beside a file")
                return
            self._last = path, entry.inode
            if entry.extra.flags & UNREADABLE:
                self._findings.fail(path, "left out: it could not be read when the point was made, or cannot be read")
                return
        try:
            layout = Layout(entry)
            if kind == stat.S_IFREG and layout.length and not refs:
                raise CorruptObject("the point does not have its content")
        except DAMAGE as error:
            self._findings.fail(path, f"left out: {error}")
            return
        member = _Member(path, entry, layout, refs if kind == stat.S_IFREG else [])
        if layout.length > _WINDOW_SIZE and member.refs:
            self.flush()
            self._write(member)
            return
        self._members.append(member)
        self._size += layout.length
        if self._size >= _WINDOW_SIZE or len(self._members) >= _WINDOW_ENTRIES:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        members, self._members, self._size = self._members, [], 0
        self._fetch(members, [(ref, (member, at)) for member in members for at, ref in enumerate(member.refs)])
        for member in members:
            if not member.lost:
                self._write(member)

    def _fetch(self, members: list[_Member], requests: list[tuple[int, tuple[_Member, int]]]) -> None:
        def sink(cookie: tuple[_Member, int], chunk: memoryview) -> None:
            cookie[0].chunks[cookie[1]] = bytes(chunk)

        def lose(cookie: tuple[_Member, int], error: KeepstoneError) -> None:
            if not cookie[0].lost:
                cookie[0].lost = True
                self._findings.fail(cookie[0].path, f"left out: {error}")

        if requests:
            fetch(self._reader, requests, sink, lambda cookie: cookie[1] not in cookie[0].chunks, lose)

    def _write(self, member: _Member) -> None:
        entry = member.entry
        is_folder, is_link = stat.S_ISDIR(entry.mode), stat.S_ISLNK(entry.mode)
        time = datetime.fromtimestamp(max(_FIRST, min(entry.mtime // 10**9, _LAST)), UTC)
        name = member.path.decode("utf-8", "replace") + ("/" if is_folder else "")
        about = zipfile.ZipInfo(name, time.timetuple()[:6])
        about.create_system = _UNIX
        about.external_attr = (entry.mode & 0xFFFF) << 16 | (0x10 if is_folder else 0)
        about.compress_type = zipfile.ZIP_STORED if is_folder else zipfile.ZIP_DEFLATED
        with self._archive.open(about, "w", force_zip64=not is_folder and entry.size > 1 << 30) as file:
            if is_link:
                file.write(entry.extra.target)
            elif not is_folder:
                self._pour(member, cast(BinaryIO, file))
        if is_folder:
            self._findings.directories += 1
        else:
            self._findings.files += 1
        size = 0 if is_folder or is_link else entry.size
        self._findings.size += size
        self._findings.progress.advance(size, 1)

    def _pour(self, member: _Member, file: BinaryIO) -> None:
        """Write the content of a file, holes as zeros."""
        position = at = 0
        for index, _ref in enumerate(member.refs):
            if index not in member.chunks:
                ahead = member.refs[index : index + 8]
                try:
                    self._reader.fetch(
                        [(one, number) for number, one in enumerate(ahead, index)],
                        lambda number, chunk: member.chunks.__setitem__(number, bytes(chunk)),
                    )
                except DAMAGE as error:
                    raise CorruptObject(
                        f"{shown(member.path)}: {error}. The zip breaks off in the middle of it"
                    ) from error
            chunk = member.chunks.pop(index)
            if position + len(chunk) > member.layout.length:
                raise CorruptObject(f"{shown(member.path)}: its chunks are longer than it is")
            for begin, end, offset in member.layout.pieces(position, len(chunk)):
                _pad(file, offset - at)
                file.write(chunk[begin:end])
                at = offset + end - begin
            position += len(chunk)
        _pad(file, member.entry.size - at)


def _pad(file: BinaryIO, count: int) -> None:
    while count > 0:
        file.write(_ZEROS[:count])
        count -= len(_ZEROS)
