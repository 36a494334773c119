# SPDX-License-Identifier: Apache-2.0
"""What must hold on whatever a crash or a fault leaves of a store.

    CLOSED    the store does not open with a key that must open it       OPEN     it opens with one that must not
    LOST      an acknowledged point is not listed                        BACK     a purged one is
    STATE     a point is (not) soft-deleted, and the opposite was acknowledged
    BROKEN    a visible point does not restore                           WRONG    it restores something else
    VERIFY    verify finds damage
    UNUSABLE  a new backup or a reclaim fails                            LITTER   reclaim leaves garbage
    RAW       an error outside the product's tree reached the caller     NAMELESS its message names no object

Everything is looked at as it was left, again after a new backup of old content, and again after reclaim has removed
and compacted all it can.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keepstone.crypto import KeyProvider
from keepstone.errors import KeepstoneError, WrongKey
from keepstone.store import Point, Store
from keepstone.store.layout import DELETED, LEASES, TOMBS
from tests.crash.product import letters, trees
from tests.crash.product.work import NEW, OLD, THOROUGH, open_store

__all__ = ["again", "check"]

_NAMES = re.compile(
    r"(packs|commits|leases|tombs|heads|keys|deleted|journal)/|keepstone\.json|tmp in |/store\b|/cache\b"
)
_AFTERWARDS = "ABCDEFGHabcd"  # old and new chunks


@dataclass(slots=True)
class _Promised:
    """`there`: id → tag of the acknowledged points. `deleted`: what is known of a point's soft deletion. `purging`: the
    points that may be gone."""

    there: dict[str, str] = field(default_factory=dict)
    deleted: dict[str, bool] = field(default_factory=dict)
    purging: set[str] = field(default_factory=set)
    purged: set[str] = field(default_factory=set)
    rekeying: bool = False
    rekeyed: bool = False

    def hear(self, ack: dict[str, Any]) -> None:
        match ack:
            case {"point": str(commit), "holds": str(holds)}:
                self.there[commit] = holds
                self.deleted[commit] = False
            case {"doing": "purge", "point": str(commit)}:
                self.there.pop(commit, None)
                self.deleted.pop(commit, None)
                self.purging.add(commit)
            case {"did": "purge", "point": str(commit)}:
                self.purged.add(commit)
            case {"doing": "forget" | "undelete", "point": str(commit)}:
                self.deleted.pop(commit, None)
            case {"did": "forget" | "undelete" as what, "point": str(commit)}:
                self.deleted[commit] = what == "forget"
            case {"doing": "rekey"}:
                self.rekeying = True
            case {"did": "rekey"}:
                self.rekeyed = True


def check(disk: Path, acks: list[Any], *, cached: bool = False) -> list[str]:
    """The violations of what `acks` promise."""
    promised = _Promised()
    for ack in acks:
        promised.hear(ack)
    violations = list(_words(acks))
    try:
        store, closed = _open(disk, promised, cached)
        violations += closed
        violations += _look(store, promised)
        violations += _verified(store)
        violations += _pardoned(store, promised)
    except KeepstoneError as error:
        return [*violations, f"CLOSED: {type(error).__name__}: {error}"]
    if violations:
        return violations
    return violations + _used(store, promised)


def again(disk: Path, *, cached: bool = False) -> list[str]:
    """A new point is made of old and new chunks, everything is reclaimed, and all that shows restores."""
    try:
        store = open_store(disk, [OLD, NEW], cached=cached)
    except KeepstoneError as error:
        return [f"CLOSED: {type(error).__name__}: {error}"]
    return _used(store, _Promised())


def _words(acks: Iterable[Any]) -> Iterable[str]:
    for ack in acks:
        if "raw" in ack:
            yield f"RAW: {ack['raw']}: {ack['message']}"
        if "failed" in ack and not _NAMES.search(ack["message"]):
            yield f"NAMELESS: {ack['failed']}: {ack['message']}"
        if ack.get("verified"):
            yield f"VERIFY: {ack['verified']}"


def _open(disk: Path, promised: _Promised, cached: bool) -> tuple[Store, list[str]]:
    providers: list[KeyProvider] = [NEW] if promised.rekeyed else [OLD, NEW] if promised.rekeying else [OLD]
    store = open_store(disk, providers, cached=cached)
    if promised.rekeyed:
        try:
            open_store(disk, [OLD])
        except WrongKey:
            return store, []
        return store, ["OPEN: the old key opens the store after the rotation was acknowledged"]
    return store, []


def _look(store: Store, promised: _Promised) -> list[str]:
    """Everything that is listed, against what was promised."""
    visible = {point.id: point for point in store.points.list(deleted=True)}
    violations = [f"LOST: {commit} ({holds})" for commit, holds in promised.there.items() if commit not in visible]
    violations += [f"BACK: {commit}" for commit in promised.purged & visible.keys()]
    for commit, point in visible.items():
        deleted = point.deleted_until is not None
        if promised.deleted.get(commit, deleted) != deleted:
            violations.append(f"STATE: {commit} is {'' if deleted else 'not '}deleted")
        violations += _restored(store, point, promised.there.get(commit))
    return violations


def _restored(store: Store, point: Point, holds: str | None) -> list[str]:
    tag = point.record.tags[0]
    if holds not in (tag, None):
        return [f"WRONG: {point.id} holds {tag}, not {holds}"]
    try:
        if point.record.kind == letters.KIND:
            found = letters.restore(store, point)
        else:
            found = trees.restore(store.context.env, store, point)
    except KeepstoneError as error:
        return [f"BROKEN: {point.id} ({tag}): {type(error).__name__}: {error}"]
    return [] if found == tag else [f"WRONG: {point.id} ({tag}): {found}"]


def _verified(store: Store) -> list[str]:
    return [f"VERIFY: {finding.object}: {finding.message}" for finding in store.verify().findings]


def _pardoned(store: Store, promised: _Promised) -> list[str]:
    """A purge that did not come to its end can be taken back as long as the point is listed."""
    violations: list[str] = []
    for point in store.points.list(deleted=True):
        if point.id in promised.purging and point.deleted_until is not None:
            store.points.undelete(point)
            violations += _restored(store, point, None)
            violations += [f"{found} (after undelete)" for found in _verified(store)]
    return violations


def _used(store: Store, promised: _Promised) -> list[str]:
    """Use the store as if nothing had happened."""
    violations: list[str] = []
    try:
        with store.writer("disk", letters.KIND, tags=[_AFTERWARDS]) as writer:
            made = letters.write(writer, _AFTERWARDS)
        point = store.points.find(made)
        violations += _restored(store, point, _AFTERWARDS)
        violations += _reclaimed(store)
        violations += _restored(store, point, _AFTERWARDS)
        store.points.purge(point, now=True)  # so that there is something to condemn, and the leases are asked for
        violations += _reclaimed(store)
        violations += _litter(store)
        violations += [f"{found} (after reclaim)" for found in [*_look(store, promised), *_verified(store)]]
    except KeepstoneError as error:
        violations.append(f"UNUSABLE: {type(error).__name__}: {error}")
    return violations


def _reclaimed(store: Store) -> list[str]:
    waiting = store.reclaim(compact_below=THOROUGH).waiting
    return [f"LITTER: reclaim waits for {commit}" for commit in waiting]


def _litter(store: Store) -> list[str]:
    """What reclaim should not have left."""
    storage = store.context.storage
    left = [info.name for folder in (LEASES, TOMBS) for info in storage.list(folder)]
    commits = set(store.commits.names())
    left += [info.name for info in storage.list(DELETED) if info.name.removeprefix(DELETED) not in commits]
    root = Path(storage.root) / "tmp"  # type: ignore[attr-defined]
    left += [f"tmp/{path.name}" for path in root.iterdir() if path.name != "reserve"] if root.exists() else []
    violations = [f"LITTER: {name}" for name in left]
    if store.reclaim(dry_run=True).packs_condemned:
        violations.append("LITTER: packs that nothing needs")
    return violations
