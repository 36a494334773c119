# SPDX-License-Identifier: Apache-2.0
"""What a workload does with a store, and what it is told that it can rely on.

Each intention and each acknowledgement is one line of JSON in the file `$FS_ACK`:

    {"point": id, "holds": tag}                          a backup was acknowledged
    {"doing": what, "point": id}, {"did": what, …}       around forget, undelete and purge, rekey and init
    {"failed": what, "message": text}                    an error of the product's tree reached the caller
    {"raw": what, "message": text}                       any other error did, which it must not

Between `doing` and `did` either outcome is right.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from keepstone.crypto import Argon2Cost, KeyProvider, PassphraseProvider
from keepstone.env import Env
from keepstone.errors import KeepstoneError
from keepstone.objects import FolderStorage
from keepstone.store import Point, Store
from tests.crash.product import letters, trees

__all__ = ["CACHE", "NEW", "OLD", "STORE", "THOROUGH", "Work", "attempt", "begin", "open_store", "promise"]

STORE, CACHE = "store", "cache"
THOROUGH = 0.95
"""Share of needed bytes below which a pack is compacted here: any dead chunk in packs of three is reason enough."""

_COST = Argon2Cost(iterations=1, memory_kib=64, lanes=1)
OLD: KeyProvider = PassphraseProvider(b"old", cost=_COST, weak=True)
NEW: KeyProvider = PassphraseProvider(b"new", cost=_COST, weak=True)


def promise(**said: object) -> None:
    """Acknowledge; the state of the disk at this moment is what counts."""
    with open(os.environ["FS_ACK"], "a", encoding="utf-8") as acks:
        acks.write(json.dumps(said) + "\n")


@contextlib.contextmanager
def attempt(what: str) -> Iterator[None]:
    """Go on after a failure as a service would, where a fault is being injected; without one nothing may fail."""
    try:
        yield
    except Exception as error:
        if not os.environ.get("FS_FAULT"):
            raise
        kind = "failed" if isinstance(error, KeepstoneError) else "raw"
        promise(**{kind: what}, message=f"{type(error).__name__}: {error}")


def _env() -> Env:
    return Env(threads=0)  # the same operations in the same order at every run


def begin(disk: Path) -> Store:
    """Make the store of a disk."""
    env = _env()
    return Store.init(env, FolderStorage(env, disk / STORE, create=True), [OLD])


def open_store(disk: Path, providers: Sequence[KeyProvider] = (OLD,), *, cached: bool = False) -> Store:
    """Open the store of a disk; with `cached` its index is kept on the same disk."""
    letters.small_packs()
    env = _env()
    return Store.open(env, FolderStorage(env, disk / STORE), providers, cache=disk / CACHE if cached else None)


class Work:
    """A user of a store. What fails under a fault is left out, and so is what would need its result."""

    def __init__(self, store: Store) -> None:
        letters.small_packs()
        self.store = store

    def backup(self, holds: str, item: str = "disk") -> str | None:
        """A point of these letters; its id, None where it failed."""
        commit = None
        with attempt(f"backup of {holds}"):
            with self.store.writer(item, letters.KIND, tags=[holds]) as writer:
                commit = letters.write(writer, holds)
            promise(point=commit, holds=holds)
        return commit

    def backup_tree(self, root: Path, holds: str) -> str | None:
        """The same of a generation of the tree at `root`."""
        commit = None
        with attempt(f"backup of {holds}"):
            trees.grow(root, holds)
            with self.store.writer("tree", trees.KIND, tags=[holds]) as writer:
                commit = trees.write(self.store.context.env, writer, root)
            promise(point=commit, holds=holds)
        return commit

    def forget(self, commit: str | None) -> None:
        self._change("forget", commit, self.store.points.forget)

    def undelete(self, commit: str | None) -> None:
        self._change("undelete", commit, self.store.points.undelete)

    def purge(self, commit: str | None) -> None:
        self._change("purge", commit, lambda point: self.store.points.purge(point, now=True))

    def _change(self, what: str, commit: str | None, change: Callable[[Point], object]) -> None:
        if commit is not None:
            with attempt(f"{what} {commit}"):
                point = self.store.points.find(commit, deleted=True)
                promise(doing=what, point=commit)
                change(point)
                promise(did=what, point=commit)

    def reclaim(self) -> None:
        """One round that compacts whatever it can."""
        with attempt("reclaim"):
            done = self.store.reclaim(compact_below=THOROUGH)
            promise(reclaimed=done.packs_deleted, compacted=done.packs_compacted)

    def verify(self) -> None:
        """Also remembers the newest head where there is a cache."""
        with attempt("verify"):
            promise(verified=[finding.message for finding in self.store.verify().findings])
