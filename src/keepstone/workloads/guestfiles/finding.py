# SPDX-License-Identifier: Apache-2.0
"""Finding the same names in one point after the other.

A volume that is made of the same chunks as in the point before, which most of a disk is from day to day, is not looked
at again: what was found in it is told. A pattern that begins with names as they are leads to where these are, so that
all versions of one path cost a look at one path.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from keepstone.errors import KeepstoneError, NotFound, UsageError
from keepstone.workloads.files.browse import Folder, Found, Tree
from keepstone.workloads.files.find import beginning, matching
from keepstone.workloads.files.page import Entry
from keepstone.workloads.files.tree import Lost
from keepstone.workloads.files.versions import content_id, version_of
from keepstone.workloads.guestfiles.reader import GuestReader

__all__ = ["Finder", "Match", "Seen"]

_MOST = 100_000  # matches in a volume that are remembered for the next point


class Match(NamedTuple):
    """An entry that a pattern matches. `content`: names that of a file, where it is known; see `content_id`."""

    path: bytes
    entry: Entry
    content: bytes | None

    @property
    def version(self) -> str:
        """Which version of the path it is; see `version_of`."""
        return version_of(self.entry, self.content)


class Seen(NamedTuple):
    """A path that was looked at, and what it is where it is wanted."""

    path: bytes
    match: Match | None


class _Volume:
    """What is found in a volume. `identity`: of the volume; `path`: where the walk of it begins."""

    def __init__(self, identity: bytes, path: bytes) -> None:
        self.identity = identity
        self.path = path
        self.within = path + b"/"
        self.matches: list[Match] = []


class Finder:
    """Patterns are those of `find`. `skipped`: how many volumes were not looked at, as they were known."""

    def __init__(self, patterns: Sequence[bytes]) -> None:
        self._is_wanted = matching(patterns)
        self._begin, self._is_one = beginning(patterns)
        self._known: dict[bytes, _Volume] = {}  # by where the walk of it begins
        self._walked: _Volume | None = None
        self._passed: list[Match] = []
        self._folder: Folder | None = None
        self._prefix = b""  # of the paths of what is in this folder
        self.skipped = 0

    def matches(self, tree: Tree, lost: Lost | None = None) -> Iterator[Match]:
        """What is wanted of a point, in order."""
        return (seen.match for seen in self.look(tree, lost=lost) if seen.match is not None)

    def look(self, tree: Tree, *, after: bytes = b"", lost: Lost | None = None) -> Iterator[Seen]:
        """All that is looked at in a point, in order; with `after`, which is a path that was seen in it, what comes
        behind that. Raises what `Tree.walk` does, or tells `lost`."""
        self._walked, self._passed = None, []
        try:
            begin = tree.find(self._begin)
        except (NotFound, UsageError):  # or what is on the way to it is a file in this point
            return
        if begin is not None and not after:
            yield self._seen(tree, begin)
        if self._is_one or (begin is not None and not stat.S_ISDIR(begin.entry.mode)):
            return
        guest = tree.reader if isinstance(tree.reader, GuestReader) else None

        def lose(path: bytes, error: KeepstoneError) -> None:
            if lost is None:
                raise error
            self._walked = None  # what is in it is not known
            lost(path, error)

        def enters(found: Found) -> bool:
            return guest is None or self._enters(found.path, guest, found.refs)

        if guest is not None and begin is not None and not after:
            above = _volume(tree, guest, begin)
            if above is not None and not self._enters(begin.path, guest, above.refs):
                yield from self._known_ones()
                return
        for found in tree.walk(self._begin, after=after, lost=lose, enters=enters):
            if self._passed:
                yield from self._known_ones()
            seen = self._seen(tree, found)
            self._remember(seen)
            yield seen
        yield from self._known_ones()
        self._close()
        for disk, error in guest.damage.items() if guest is not None else ():
            lose(disk, error)

    def _enters(self, path: bytes, guest: GuestReader, refs: Sequence[int]) -> bool:
        """Whether this directory is to be looked at. Where it is not, what is known of it waits to be told."""
        identity = guest.identity(refs[0]) if refs and guest.is_volume(refs[0]) else None
        if identity is None:
            return True
        self._close()
        known = self._known.get(path)
        if known is None or known.identity != identity:
            self._walked = _Volume(identity, path)
            return True
        self._passed = known.matches
        self.skipped += 1
        return False

    def _known_ones(self) -> Iterator[Seen]:
        passed, self._passed = self._passed, []
        return (Seen(match.path, match) for match in passed)

    def _remember(self, seen: Seen) -> None:
        if self._walked is None:
            return
        if not seen.path.startswith(self._walked.within):
            self._close()
        elif seen.match is not None:
            self._walked.matches.append(seen.match)
            if len(self._walked.matches) > _MOST:
                self._walked = None

    def _close(self) -> None:
        """All of the volume was seen."""
        if self._walked is not None:
            self._known[self._walked.path] = self._walked
            self._walked = None

    def _seen(self, tree: Tree, found: Found) -> Seen:
        path, entry = self._path(found), found.entry
        if not self._is_wanted(path, entry):
            return Seen(path, None)
        content = None
        if stat.S_ISREG(entry.mode) and not isinstance(tree.reader, GuestReader):
            content = content_id(tree.reader, entry, found.refs)
        return Seen(path, Match(path, entry, content))

    def _path(self, found: Found) -> bytes:
        """As `Found.path`, which goes up to the root for each entry of a folder."""
        if found.folder is not self._folder:
            self._folder = found.folder
            self._prefix = found.folder.child(b"")
        return self._prefix + found.entry.name


def _volume(tree: Tree, guest: GuestReader, begin: Found) -> Found | None:
    """The volume that this is in, or is."""
    parts = begin.path.split(b"/")
    depth = 1 if guest.disks == [b""] else 2
    found = tree.find(b"/".join(parts[:depth])) if len(parts) >= depth else None
    return found if found is not None and stat.S_ISDIR(found.entry.mode) else None
