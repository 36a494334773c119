# SPDX-License-Identifier: Apache-2.0
"""Object storage as the store sees it: the least that every backend can promise.

Names are relative paths of letters, digits, `.`, `_` and `-`, in any number of folders ("packs/3f/3f12…"), no part with
a leading dot, the first not `tmp`; anything else is a `UsageError`. No two differ in case only: some disks fold it.
An object is written once and never changed; there is no overwrite, no rename and no compare-and-swap.

Contract (one test suite holds every backend to it)
* `put` and `create` are put-if-absent: among any number of concurrent writers of one name exactly one succeeds, the
  others get `ObjectExists`. An object appears whole or not at all, also after a crash.
* `put` is durable when it returns, and so is the object that made it raise `ObjectExists`. An upload from `create` is
  visible after `finish`, its content is durable then, but its *name* is durable only after a later `sync` over that
  name (one barrier for many objects). Object stores make it durable at once and `sync` does nothing.
* After `put` or `finish`, `list` and `read` of any process see the object (strong consistency); after `delete`, they do
  not.
* `delete` of a missing name is not an error, and the removal is durable when it returns.
* Every operation, and `Upload.finish`, calls `env.step` once before it acts; `delete_many` does before each name, for
  each of its removals is an act of its own that others see.

Errors: `ObjectMissing`, `ObjectExists`, `StorageFull`, `AccessDenied`, `StorageError`, each naming the object.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import msgspec

__all__ = ["Buffer", "ObjectInfo", "ObjectStorage", "Upload"]

Buffer = bytes | bytearray | memoryview


class ObjectInfo(msgspec.Struct, frozen=True):
    """`name` of an object and its `size` in bytes."""

    name: str
    size: int


class Upload(Protocol):
    """A large object while it is being written, in order, by one thread at a time. A failure ends it, nothing stays."""

    def write(self, data: Buffer) -> None:
        """Append `data`; the caller may reuse the buffer afterwards."""

    def room(self, count: int) -> memoryview:
        """`count` (at most 5 MiB) bytes to be filled in place instead of `write`; valid until the next call."""

    def advance(self, count: int) -> None:
        """Append the first `count` bytes of the last `room`."""

    def finish(self) -> None:
        """Make the object visible, its content durable (see `ObjectStorage.sync` for its name)."""

    def abort(self) -> None:
        """Forget what was written. Harmless after `finish` and when repeated."""


class ObjectStorage(Protocol):
    """A flat space of immutable, named byte strings."""

    def put(self, name: str, data: Buffer) -> None:
        """Store a small object, durable on return."""

    def create(self, name: str) -> Upload:
        """Begin a large object; see `Upload`. A taken name shows when it finishes."""

    def sync(self, names: Iterable[str]) -> None:
        """Barrier: the names of these finished uploads are durable on return. Unknown names are ignored."""

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """`length` bytes from `offset` (to the end by default; negative `offset` counts from the end).

        Returns fewer bytes where the object ends before.
        """

    def read_into(self, name: str, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset`; the number of bytes that were there, behind them it holds anything.

        Fast where offset and buffer are page aligned and the buffer is whole pages, also at the end of the object.
        """

    def size(self, name: str) -> int:
        """Length of the object in bytes."""

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """The objects whose name starts with `prefix`, in no order; cheap where `prefix` names one folder.

        The listing is a state that existed at some moment for each name: one that was there all the time is listed, one
        that never was is not.
        """

    def names(self, prefix: str = "") -> Iterator[str]:
        """The names that `list` would give, for a part of its price where sizes lie elsewhere than names."""

    def anything(self) -> str | None:
        """The name of something that lies there, object or not; None where there is nothing but empty folders."""

    def delete(self, name: str) -> None:
        """Remove the object if it is there; durable on return."""

    def delete_many(self, names: Iterable[str]) -> None:
        """Remove these objects, with one barrier at the end; durable on return."""

    def clean(self) -> int:
        """Remove what unfinished uploads of dead writers left behind, where the storage keeps such things; how many.

        Uploads that are under way are not touched.
        """

    def keep_reserve(self) -> None:
        """Hold some room back for deleting, where room can run out. Harmless when it is held, or when there is none."""

    def spend_reserve(self) -> bool:
        """Give the reserve up, so that something small can be written on a full disk; False where there was none."""
