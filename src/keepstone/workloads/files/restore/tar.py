# SPDX-License-Identifier: Apache-2.0
"""A point as a tar stream.

The stream is written window by window in constant memory. A file that cannot be read from the store is left out as long
as it fits into a window; a larger one has been announced already when its damage is met, so the stream breaks off
there, and no tar takes it for whole. Sockets have no form in a tar and are left out. The first member of a whole point
is `./`, the source itself.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import BinaryIO, TypeAlias

from keepstone.errors import CorruptObject, KeepstoneError
from keepstone.store import Reader
from keepstone.workloads.files.names import shown
from keepstone.workloads.files.page import UNREADABLE, Detail, Entry
from keepstone.workloads.files.restore.layout import Layout
from keepstone.workloads.files.restore.report import Findings, RestoreReport
from keepstone.workloads.files.restore.tarheader import BLOCK, KINDS, header
from keepstone.workloads.files.tree import detail, root_entry, select, traverse
from keepstone.workloads.progress import Progress
from keepstone.workloads.salvage import DAMAGE, fetch

__all__ = ["write_tar"]

_WINDOW_SIZE = 32 << 20
_WINDOW_ENTRIES = 4096


def write_tar(reader: Reader, paths: Iterable[bytes], stream: BinaryIO, progress: Progress) -> RestoreReport:
    """Write the point, or what these paths name of it, to `stream`.

    `NotFound` for a path that the point does not have, before anything is written; `CorruptObject` where the stream had
    to break off; `OSError` of the stream itself.
    """
    described = detail(reader)
    findings = Findings(progress)
    tar = _Tar(reader, stream, described, findings)
    selection, root = select(reader, paths), root_entry(described)
    if selection is None and root is not None:
        tar.add(b".", root, [])
    for step in traverse(reader, selection, tar.lose):
        if step.whole and not step.leaving:
            tar.add(step.path, step.entry, step.refs)
    tar.end()
    return findings.report()


@dataclass(slots=True)
class _Member:
    """What waits for its content. `chunks`: as far as they have come."""

    path: bytes
    entry: Entry
    layout: Layout | None = None
    chunks: list[bytes] = field(default_factory=list)
    lost: bool = False


_Cookie: TypeAlias = tuple[_Member, int]


class _Tar:
    def __init__(self, reader: Reader, stream: BinaryIO, described: Detail, findings: Findings) -> None:
        self._reader = reader
        self._stream = stream
        self._described = described
        self._findings = findings
        self._members: list[_Member] = []
        self._requests: list[tuple[int, _Cookie]] = []
        self._size = 0
        self._links: dict[tuple[int, int], bytes] = {}

    def lose(self, path: bytes, error: KeepstoneError) -> None:
        """A page of this directory cannot be read."""
        self._findings.fail(path or b".", f"a part of this directory is left out: {error}")

    def add(self, path: bytes, entry: Entry, refs: list[int]) -> None:
        """Write an entry, now or with its window."""
        kind = stat.S_IFMT(entry.mode)
        unreadable = entry.extra.flags & UNREADABLE
        if unreadable:
            self._findings.warn(path, "it could not be read when the point was made, and is left out or empty")
        if kind not in KINDS:
            self._findings.warn(path, "left out: a tar has no such kind of file")
        elif kind != stat.S_IFREG:
            self._members.append(_Member(path, entry))
        elif not unreadable:
            self._add_file(path, entry, refs)
        if self._size >= _WINDOW_SIZE or len(self._members) >= _WINDOW_ENTRIES:
            self._flush()

    def _add_file(self, path: bytes, entry: Entry, refs: list[int]) -> None:
        try:
            layout = Layout(entry)
            if sum(map(self._reader.chunk_length, refs)) != layout.length:
                raise CorruptObject("its chunks are not as long as it is")
        except DAMAGE as error:
            self._findings.fail(path, f"left out: {error}")
            return
        member = _Member(path, entry, layout, [b""] * len(refs))
        if layout.length > _WINDOW_SIZE:
            self._flush()
            if self._begin(member):
                self._stream_content(member, refs)
        else:
            self._requests += [(ref, (member, index)) for index, ref in enumerate(refs)]
            self._size += layout.length
            self._members.append(member)

    def end(self) -> None:
        """Write what waits, and the end of the archive."""
        self._flush()
        self._stream.write(bytes(2 * BLOCK))

    def _flush(self) -> None:
        members, self._members = self._members, []
        requests, self._requests, self._size = self._requests, [], 0
        if requests:
            fetch(self._reader, requests, self._sink, self._waits, self._lost)
        for member in members:
            if not member.lost and self._begin(member):
                for chunk in member.chunks:
                    self._stream.write(chunk)
                self._end(member)

    @staticmethod
    def _sink(cookie: _Cookie, chunk: memoryview) -> None:
        member, index = cookie
        member.chunks[index] = bytes(chunk)

    @staticmethod
    def _waits(cookie: _Cookie) -> bool:
        member, index = cookie
        return not member.lost and not member.chunks[index]

    def _lost(self, cookie: _Cookie, error: KeepstoneError) -> None:
        member, _ = cookie
        if not member.lost:
            member.lost = True
            self._findings.fail(member.path, f"left out: {error}")

    def _begin(self, member: _Member) -> bool:
        """Write what stands before a member's content; False where it has none, as a link to an earlier one."""
        entry = member.entry
        if entry.extra.link is not None:
            key = entry.extra.link[0], entry.inode
            target = self._links.setdefault(key, member.path)
            if target is not member.path:
                self._stream.write(header(member.path, entry, self._described, link=target))
                self._count(member, 0)
                return False
        self._stream.write(header(member.path, entry, self._described, layout=member.layout))
        return True

    def _stream_content(self, member: _Member, refs: list[int]) -> None:
        """Write the content of a large file, a window at a time."""
        at = 0
        while at < len(refs):
            end, size = at, 0
            while end < len(refs) and size < _WINDOW_SIZE:
                size += self._reader.chunk_length(refs[end])
                end += 1
            member.chunks = [b""] * (end - at)
            try:
                self._reader.fetch([(ref, (member, index)) for index, ref in enumerate(refs[at:end])], self._sink)
            except DAMAGE as error:
                raise CorruptObject(f"{shown(member.path)}: {error}. The tar breaks off in the middle of it") from error
            for chunk in member.chunks:
                self._stream.write(chunk)
            at = end
        self._end(member)

    def _end(self, member: _Member) -> None:
        size = member.layout.length if member.layout is not None else 0
        self._stream.write(bytes(-size % BLOCK))
        self._count(member, size)

    def _count(self, member: _Member, size: int) -> None:
        if stat.S_ISDIR(member.entry.mode):
            self._findings.directories += 1
        else:
            self._findings.files += 1
        self._findings.size += size
        self._findings.progress.advance(size, 1)
