# SPDX-License-Identifier: Apache-2.0
"""Looking into a point without restoring it: what is in a directory, where a name is, what is different in another
one, bytes of a file, a folder as tar or zip.

Each request opens the point for itself and closes it again: nothing is kept between two of them, and each takes memory
that is bounded. Only points that the service can read: what is sealed says so (`WrongKey`).
"""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import BinaryIO

from keepstone.control import points
from keepstone.control.pipe import poured
from keepstone.control.plane import Plane
from keepstone.env import Env
from keepstone.errors import KeepstoneError, RestoreIncomplete, ServiceUnavailable, Unsupported, UsageError
from keepstone.vault import RecoveryPoint, Vault
from keepstone.workloads import Silent
from keepstone.workloads.content import Content
from keepstone.workloads.files import Change, Entry, Tree, write_tar
from keepstone.workloads.files.diff import StoredSide, compare
from keepstone.workloads.files.find import matching
from keepstone.workloads.files.names import shown
from keepstone.workloads.files.restore.zip import write_zip
from keepstone.workloads.guestfiles.diff import diff_guests
from keepstone.workloads.guestfiles.finding import Finder
from keepstone.workloads.guestfiles.reader import IMAGE, GuestReader
from keepstone.workloads.guestfiles.tree import guest_reader, tree_of

__all__ = [
    "Differences",
    "Listing",
    "Look",
    "Matches",
    "Named",
    "Turn",
    "compared",
    "looking",
    "searching",
    "streaming",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CACHE = 32 << 20  # bytes of chunks that one download keeps and reads ahead
_PIECE = 1 << 20
_STREAMS = threading.BoundedSemaphore(4)  # downloads of one process at a time: each takes up to 100 MB
_LOOK = 256  # entries between two looks at the clock
_SECONDS = 4.0  # that one search may take, from the first entry on, before it says how far it came
_SEARCHES = threading.BoundedSemaphore(4)  # through many points or two, of one process at a time


@dataclass(frozen=True, slots=True)
class Named:
    """An entry and its path from the source on. `version`: see `version_of`, where it was asked for."""

    path: bytes
    entry: Entry
    version: str = ""

    @property
    def name(self) -> bytes:
        """The last part of its path."""
        return self.path.rpartition(b"/")[2]

    @property
    def modified(self) -> datetime:
        """When its content was changed last."""
        return _EPOCH + timedelta(microseconds=self.entry.mtime // 1000)


@dataclass(frozen=True, slots=True)
class Listing:
    """`of`: what was asked for; `entries`: what is in it, where it is a directory. `damage`: why some are missing."""

    of: Named
    entries: list[Named]
    damage: str


@dataclass(frozen=True, slots=True)
class Matches:
    """`after`: how far the search came where there is more to look at; empty at its end. `damage`: as in `Listing`."""

    found: list[Named]
    after: bytes
    damage: str


@dataclass(frozen=True, slots=True)
class Differences:
    """`after`: how far the comparison came, and `damage`: as in `Matches`."""

    changes: list[Change]
    after: bytes
    damage: str


class Turn:
    """How long one request may go on looking. Its time begins with the first entry that it sees: what comes before
    that, such as reading a directory, has to be done again by the request that goes on."""

    def __init__(self, env: Env) -> None:
        self._env = env
        self._seen = 0
        self._until = 0

    def is_over(self) -> bool:
        """Whether it is, for somebody who has seen one more entry; now and then the clock is asked."""
        if not self._until:
            self._until = self._env.boot_time() + int(_SECONDS * 1e9)
        self._seen += 1
        return self._seen % _LOOK == 0 and self.is_late()

    def is_late(self) -> bool:
        """Whether it is by the clock."""
        return bool(self._until) and self._env.boot_time() > self._until


@contextmanager
def searching() -> Iterator[None]:
    """While one request looks into many points, or into two at once. `ServiceUnavailable` where too many do."""
    if not _SEARCHES.acquire(blocking=False):
        raise ServiceUnavailable("too many points are being searched at the moment; try again in a few seconds")
    try:
        yield
    finally:
        _SEARCHES.release()


@contextmanager
def looking(plane: Plane, vault: Vault, point: RecoveryPoint) -> Iterator[Look]:
    """Look into a point. `NotFound` where it is gone, `WrongKey` where it is sealed; `CorruptObject`."""
    store = plane.stores.open(vault.id)
    with points.opened(store, point) as reader, tree_of(plane.env, reader, _CACHE) as tree:
        yield Look(plane, tree)


def compared(
    plane: Plane,
    vault: Vault,
    before: RecoveryPoint,
    after: RecoveryPoint,
    path: bytes,
    *,
    behind: bytes = b"",
    limit: int,
) -> Differences:
    """At most `limit` changes at `path` and beneath it that lead from one point to the other, behind the path `behind`.
    Ends sooner where it takes long. As `looking` raises; `UsageError` where the two are of different kinds."""
    store = plane.stores.open(vault.id)
    with ExitStack() as stack:
        readers = [stack.enter_context(points.opened(store, point)) for point in (before, after)]
        kinds = [reader.point.kind for reader in readers]
        if kinds[0] != kinds[1]:
            raise UsageError(f"one point is of {kinds[0]}, the other of {kinds[1]}; choose two of one kind")
        told = _Damage()
        if kinds[0] == "files":
            one, other = map(StoredSide, readers)
            steps = compare(one, other, path, behind=behind, lost=told)
        else:
            left, right = (stack.enter_context(guest_reader(plane.env, reader)) for reader in readers)
            steps = diff_guests(left, right, path, behind=behind, lost=told)
        changes: list[Change] = []
        turn = Turn(plane.env)
        for step in steps:
            if step.change is not None:
                changes.append(step.change)
            if turn.is_over() or len(changes) >= limit:
                return Differences(changes, step.path, told.said)
        return Differences(changes, b"", told.said)


@contextmanager
def streaming() -> Iterator[None]:
    """While bytes are sent. `ServiceUnavailable` where that is so of too many."""
    if not _STREAMS.acquire(blocking=False):
        raise ServiceUnavailable("too many files are being downloaded at the moment; try again in a few seconds")
    try:
        yield
    finally:
        _STREAMS.release()


class Look:
    """One look. Everything raises `CorruptObject` and `ObjectMissing` for what is damaged or gone, `NotFound` for a
    path that the point does not have, `UsageError` for one that cannot be meant so."""

    def __init__(self, plane: Plane, tree: Tree) -> None:
        self._plane = plane
        self._reader = tree.reader
        self._tree = tree
        self.kind = "disk" if isinstance(tree.reader, GuestReader) else "files"
        """`files`, or `disk`: then there are the disk itself and its volumes, or those of several disks."""

    def listing(self, path: bytes, *, after: bytes = b"", limit: int) -> Listing:
        """What is at `path`, and at most `limit` entries of it behind the name `after`."""
        told = _Damage()
        found = self._tree.find(path)
        of = Named(b"", self._tree.entry) if found is None else Named(found.path, found.entry)
        if not stat.S_ISDIR(of.entry.mode):
            return Listing(of, [], "")
        entries = self._tree.listing(path, after=after, limit=limit, lost=told)
        prefix = of.path + b"/" if of.path else b""
        return Listing(of, [Named(prefix + entry.name, entry) for entry in entries], told.said or self._unseen(of.path))

    def search(self, pattern: bytes, path: bytes, *, after: bytes = b"", limit: int) -> Matches:
        """At most `limit` entries beneath `path`, behind the path `after`, that the pattern matches (as `find` has it).
        Ends sooner where it takes long."""
        is_wanted, told, turn = matching([pattern]), _Damage(), Turn(self._plane.env)
        matches: list[Named] = []
        for found in self._tree.walk(path, after=after, lost=told):
            if is_wanted(found.path, found.entry):
                matches.append(Named(found.path, found.entry))
            if turn.is_over() or len(matches) >= limit:
                return Matches(matches, found.path, told.said)
        return Matches(matches, b"", told.said)

    def find(self, finder: Finder, turn: Turn, *, after: bytes = b"", limit: int) -> Matches:
        """At most `limit` entries of the point, behind the path `after`, that are looked for, each with its version.
        Ends sooner where the turn is over."""
        told = _Damage()
        matches: list[Named] = []
        for seen in finder.look(self._tree, after=after, lost=told):
            if (match := seen.match) is not None:
                matches.append(Named(match.path, match.entry, match.version))
            if turn.is_over() or len(matches) >= limit:
                return Matches(matches, seen.path, told.said)
        return Matches(matches, b"", told.said)

    def size(self, path: bytes) -> int:
        """The bytes of a file, or of the disk."""
        return self._content(path).map.size

    def content(self, path: bytes, begin: int, end: int) -> Iterator[bytes]:
        """These bytes of a file or of the disk, in pieces."""
        content = self._content(path)
        for at in range(begin, end, _PIECE):
            yield b"".join(content.read(at, min(_PIECE, end - at)))

    def archive(self, path: bytes, form: str) -> Iterator[bytes]:
        """What is at `path` as a stream, `tar` or `zip`, as it is made. Where something of it is damaged, the rest
        comes, and `RestoreIncomplete` in place of the end."""
        found = self._tree.find(path)
        if isinstance(self._reader, GuestReader) and (found is None or found.path in self._reader.disks):
            raise Unsupported(f"a disk is no folder; take a folder of it, or {IMAGE.decode()} as it is")
        paths = [] if found is None else [found.path]

        def write(stream: BinaryIO) -> None:
            report = (write_zip if form == "zip" else write_tar)(self._reader, paths, stream, Silent())
            if report.failed:
                raise RestoreIncomplete(
                    "a part of it is damaged in the store; `keepstone restore` leaves out only that"
                )

        yield from poured(write)

    def _content(self, path: bytes) -> Content:
        found = self._tree.find(path)
        if found is None or not stat.S_ISREG(found.entry.mode):
            raise UsageError("only a file has bytes; take a folder as a tar")
        return self._tree.content(found)

    def _unseen(self, path: bytes) -> str:
        """Why the volumes of the disk at this path are missing."""
        if isinstance(self._reader, GuestReader) and path in self._reader.damage:
            return f"what is on the disk cannot be told: {self._reader.damage[path]}"
        return ""


class _Damage:
    """Told of what cannot be read; remembers that there is some."""

    said = ""

    def __call__(self, path: bytes, error: KeepstoneError) -> None:
        self.said = self.said or f"a part of {shown(path or b'.')!r} cannot be read: {error}"
