# SPDX-License-Identifier: Apache-2.0
"""The versions of a path over points: what it was, and from which point until which.

Two entries are one version where kind, size, time and, where that is known without reading it, content are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Generic, TypeVar

import msgspec

from keepstone.store import Reader
from keepstone.workloads.files.page import Entry

__all__ = ["Version", "Versions", "content_id", "version_of"]

P = TypeVar("P")
T = TypeVar("T")
_SIZE = 16  # bytes of what names a content or a version


def content_id(reader: Reader, entry: Entry, refs: Sequence[int]) -> bytes:
    """Names the content of a regular file of a point of files: equal for equal bytes that were cut alike."""
    digest = blake2b(msgspec.msgpack.encode(entry.extra.extents), digest_size=_SIZE)
    for ref in refs:
        digest.update(reader.chunk_id(ref))
    return digest.digest()


def version_of(entry: Entry, content: bytes | None) -> str:
    """Names a version of a path; `content`: see `content_id`, None where it is not known. A directory has one version:
    its time only says that something in it changed."""
    times = (0, 0) if entry.kind == "directory" else (entry.size, entry.mtime)
    known = entry.kind, *times, entry.extra.target, content
    return blake2b(msgspec.msgpack.encode(known), digest_size=_SIZE).hexdigest()


@dataclass(slots=True)
class Version(Generic[T, P]):
    """`about`: what is known of it, from the first point that has it; `points`: how many have it, of which `first` and
    `last` are the ends."""

    about: T
    first: P
    last: P
    points: int = 1


class Versions(Generic[T, P]):
    """Collects versions; points are told from the oldest to the newest."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], dict[str, Version[T, P]]] = {}

    def add(self, path: tuple[str, ...], version: str, about: T, point: P) -> None:
        """There is this version at a path (behind whatever else paths are of) in the point."""
        known = self._known.setdefault(path, {})
        found = known.get(version)
        if found is None:
            known[version] = Version(about, point, point)
        else:
            found.last = point
            found.points += 1

    def __iter__(self) -> Iterator[Version[T, P]]:
        """By path, and from the oldest on."""
        for path in sorted(self._known):
            yield from self._known[path].values()
