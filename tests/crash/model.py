# SPDX-License-Identifier: Apache-2.0
"""What a disk certainly holds and what it may hold, while a log is replayed record by record.

A file has durable bytes and, in order, the changes since its last fsync. A directory has durable names; changes of
names wait in one list, each a group of entries that takes effect as one. What makes a group durable is the profile's
matter:

strict POSIX  an fsync of a directory makes that directory's entries durable, an fsync of a file makes no name durable.
              Of a rename between directories the new name may be durable before the old one is gone, never the reverse.
journal       (like ext4) an fsync of a file or directory makes every group up to the last that concerns it durable.

A failed fsync leaves its file's data in doubt: Linux drops the error and calls the pages clean, so that a later fsync
succeeds without them. Only a page that is written again is written out again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tests.crash.oplog import Kind, Record

__all__ = ["PAGE", "Blob", "Change", "Entry", "Inode", "Model", "patch"]

PAGE = 4096  # bytes that the kernel writes out together
_LARGEST = 2**30  # bytes
_EXCHANGE = 2  # RENAME_EXCHANGE


class Blob:
    """Bytes that never change, with a digest that is computed once."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data

    @cached_property
    def digest(self) -> bytes:
        return hashlib.blake2b(self.data, digest_size=16).digest()


@dataclass(slots=True)
class Change:
    """`data` written at `offset`; without data, the file's size becomes `offset`. `doubtful`: its fsync failed."""

    offset: int
    data: bytes | None
    doubtful: bool = False


def patch(content: bytearray, change: Change) -> None:
    """Make `change` in `content`; a hole reads as zeros. Raises ValueError for a file that memory should not hold."""
    end = change.offset + (len(change.data) if change.data else 0)
    if not 0 <= end <= _LARGEST:
        raise ValueError(
            f"a file of {end} bytes: the replay keeps files in memory, holes too; make the workload smaller"
        )
    if change.data is None:
        del content[end:]
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    if change.data:
        content[change.offset : end] = change.data


class Inode:
    """A file, or with `names` a directory."""

    def __init__(self, mode: int, names: dict[str, Inode] | None = None, content: Blob | None = None) -> None:
        self.mode = mode
        self.names = names
        self.durable = content or Blob()
        self.pending: list[Change] = []
        self._made: dict[tuple[str, int], Blob] = {}

    def after(self, count: int) -> Blob:
        """The content with the first `count` pending changes."""
        return self._make("after", count, patch) if count else self.durable

    def zeroed(self) -> Blob:
        """The content as a file system leaves it that extended the file and wrote none of the data."""

        def extend(content: bytearray, change: Change) -> None:
            if change.data is None:
                patch(content, change)
            else:
                patch(content, Change(max(len(content), change.offset + len(change.data)), None))

        return self._make("zeroed", len(self.pending), extend)

    def _make(self, how: str, count: int, step: Callable[[bytearray, Change], None]) -> Blob:
        if (how, count) not in self._made:
            content = bytearray(self.durable.data)
            for change in self.pending[:count]:
                step(content, change)
            self._made[how, count] = Blob(bytes(content))
        return self._made[how, count]

    def flush(self) -> None:
        """Make the pending changes durable, but for pages whose writing failed and that nobody wrote again."""
        cached = self.after(len(self.pending))
        doubtful = _pages(change for change in self.pending if change.doubtful)
        doubtful -= _pages(change for change in self.pending if not change.doubtful)
        # What truncation cut off is no longer in doubt.
        lost = [Change(at, cached.data[at : at + PAGE], True) for at in sorted(doubtful) if at < len(cached.data)]
        if lost:
            written = bytearray(cached.data)
            before = self.durable.data.ljust(len(written), b"\0")
            for change in lost:
                page = slice(change.offset, min(change.offset + PAGE, len(written)))
                written[page] = before[page]
            cached = Blob(bytes(written))
        self.durable, self.pending, self._made = cached, lost, {}


def _pages(changes: Iterable[Change]) -> set[int]:
    return {
        page
        for change in changes
        if change.data
        for page in range(change.offset // PAGE * PAGE, change.offset + len(change.data), PAGE)
    }


@dataclass(frozen=True, slots=True)
class Entry:
    """In `directory`, `name` comes to mean `target`, or nothing."""

    directory: Inode
    name: str
    target: Inode | None


class Model:
    """The disk after the records applied so far.

    `inodes` is what the disk held, durably, when recording began, by inode number; `root` is the watched directory.
    """

    def __init__(self, root: Inode, inodes: dict[int, Inode], journal: bool) -> None:
        self.root = root
        self.journal = journal
        self.groups: list[list[Entry]] = []
        self.acks: list[Any] = []
        self._inodes = dict(inodes)
        self._dirty: set[Inode] = set()
        self._ack_line = b""

    @property
    def settled(self) -> bool:
        """Whether a power loss now can leave one state only."""
        return not self.groups and not self._dirty

    def apply(self, record: Record) -> None:
        """Replay one record. Raises ValueError where it names a file that the log never made."""
        match record.kind:
            case Kind.CREATE | Kind.MKDIR:
                self._inodes[record.inode] = Inode(record.flags, {} if record.kind is Kind.MKDIR else None)
                if record.dir:  # O_TMPFILE makes a file without a name
                    self._name(record, record.inode, record.dir, record.name)
            case Kind.WRITE:
                self._change(record, Change(record.offset, record.data))
                if record.flags:
                    self._sync(self._find(record, record.inode))
            case Kind.SIZE:
                self._change(record, Change(record.offset, None))
            case Kind.SYNC:
                self._sync(self._find(record, record.inode))
            case Kind.SYNC_FAILED:
                for change in self._find(record, record.inode).pending:
                    change.doubtful = change.data is not None
            case Kind.SYNC_ALL:
                self._settle(len(self.groups))
                for inode in list(self._dirty):
                    self._flush(inode)
            case Kind.RENAME:
                self._rename(record)
            case Kind.LINK:
                self._name(record, record.inode, record.dir2, record.name2)
            case Kind.UNLINK:
                self.groups.append([Entry(self._find(record, record.dir), record.name, None)])
            case Kind.ACK:
                *lines, self._ack_line = (self._ack_line + record.data).split(b"\n")
                self.acks.extend(json.loads(line) for line in lines if line)

    def _find(self, record: Record, number: int) -> Inode:
        try:
            return self._inodes[number]
        except KeyError:
            name = record.name2 or record.name or "a file"
            raise ValueError(
                f"{record.kind.name} of {name}: inode {number} was not made where the shim sees it"
            ) from None

    def _name(self, record: Record, number: int, directory: int, name: str) -> None:
        self.groups.append([Entry(self._find(record, directory), name, self._find(record, number))])

    def _rename(self, record: Record) -> None:
        target, new = self._find(record, record.inode), self._find(record, record.dir2)
        group = [Entry(new, record.name2, target)]
        if record.dir:
            left = self._find(record, record.offset) if record.flags & _EXCHANGE else None
            group.append(Entry(self._find(record, record.dir), record.name, left))
        self.groups.append(group)

    def _change(self, record: Record, change: Change) -> None:
        inode = self._find(record, record.inode)
        inode.pending.append(change)
        self._dirty.add(inode)

    def _flush(self, inode: Inode) -> None:
        inode.flush()
        if not inode.pending:
            self._dirty.discard(inode)

    def _sync(self, inode: Inode) -> None:
        self._flush(inode)
        if self.journal:
            concerned = (
                n for n, group in enumerate(self.groups, 1) if any(inode in (e.directory, e.target) for e in group)
            )
            self._settle(max(concerned, default=0))
        elif inode.names is not None:
            self._settle_directory(inode)

    def _settle(self, count: int) -> None:
        for group in self.groups[:count]:
            _set(group)
        del self.groups[:count]

    def _settle_directory(self, directory: Inode) -> None:
        """Make the entries of `directory` durable, and with each its group's new names.

        Entries of one directory become durable in their order: a new name elsewhere takes along what precedes it there.
        """
        limits = {directory: len(self.groups)}
        queue = [directory]
        while queue:
            current = queue.pop()
            for n, group in enumerate(self.groups[: limits[current]], 1):
                if any(entry.directory is current for entry in group):
                    for entry in group:
                        if entry.target and limits.get(entry.directory, 0) < n:
                            limits[entry.directory] = n
                            queue.append(entry.directory)
        waiting: list[list[Entry]] = []
        for n, group in enumerate(self.groups, 1):
            _set([entry for entry in group if n <= limits.get(entry.directory, 0)])
            waiting.append([entry for entry in group if n > limits.get(entry.directory, 0)])
        self.groups = [group for group in waiting if group]


def _set(entries: Sequence[Entry]) -> None:
    for entry in entries:
        assert entry.directory.names is not None
        if entry.target:
            entry.directory.names[entry.name] = entry.target
        else:
            entry.directory.names.pop(entry.name, None)
