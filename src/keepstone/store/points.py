# SPDX-License-Identifier: Apache-2.0
"""Recovery points as people handle them: list, find by name, forget, undelete, purge, give up.

Soft delete is a marker object with a date; the point stays whole and restorable until a purge. A purge needs the
date to have passed (or `now=True`) and the point's lock to have ended. Space comes back with the next reclaim.

A point whose cell is lost, and that no copy of the store has, is given up: that is entered in the chain like a purge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from keepstone.errors import GuardRefused, KeepstoneError, ObjectExists, ObjectMissing, PointNotFound, UsageError
from keepstone.store.chain import Chain
from keepstone.store.commits import Commits, PointRecord
from keepstone.store.context import Context
from keepstone.store.decoding import decode
from keepstone.store.fulldisk import with_reserve
from keepstone.store.layout import DELETED, MOVES_TAG, commit_name, deleted_name, names
from keepstone.store.ledger import LOST, Ledger

__all__ = ["Point", "Points", "item_tag"]

_DAY = 86_400 * 10**9
_FOR_EVER = 2**63 - 1


class _Marker(msgspec.Struct, frozen=True):
    deleted: int
    until: int


_marker = msgspec.msgpack.Decoder(_Marker)


@dataclass(frozen=True, slots=True)
class Point:
    """A visible point. `id`: its commit id; `deleted_until`: wall clock ns until which it can be undeleted, None
    while it is not deleted."""

    id: str
    record: PointRecord = field(repr=False)
    deleted_until: int | None = None

    @property
    def short(self) -> str:
        """Enough of the id for people."""
        return self.id.partition("-")[2][:10]


def item_tag(context: Context, item: str) -> str:
    """What the commits of this item begin with: 16 hex digits that tell nobody its name."""
    return context.hashing.keyed(context.keys.metadata, b"item/v1" + item.encode("utf-8", "surrogateescape")).hex()[:16]


def _begins(commit: str, name: str) -> bool:
    """Whether somebody who says `name` may mean this commit."""
    return bool(name) and (commit.startswith(name) or commit.partition("-")[2].startswith(name))


class Points:
    """The points of a store."""

    def __init__(self, context: Context, commits: Commits, soft_delete_days: int) -> None:
        self._context = context
        self._commits = commits
        self._days = soft_delete_days

    def list(self, *, deleted: bool = False, damaged: list[tuple[str, KeepstoneError]] | None = None) -> list[Point]:
        """Every point, oldest first; soft-deleted ones only with `deleted`. Damaged cells as in `Commits.records`."""
        markers = {name[len(DELETED) :] for name in names(self._context.storage, DELETED)}
        points = []
        for commit, record in self._commits.records(damaged=damaged):
            if isinstance(record, PointRecord) and (deleted or commit not in markers):
                until = self._marker(commit) if commit in markers else None
                points.append(Point(commit, record, until))
        return sorted(points, key=lambda point: (point.record.finished, point.id))

    def _marker(self, commit: str) -> int | None:
        """Until when a soft delete can be taken back; for ever where the marker cannot be read."""
        try:
            data = self._context.read_sealed("deleted", deleted_name(commit))
            return decode(_marker, data, deleted_name(commit)).until
        except ObjectMissing:
            return None
        except KeepstoneError:
            return _FOR_EVER

    def find(self, name: str, *, deleted: bool = False, item: str | None = None) -> Point:
        """The point with this id, or this unambiguous beginning of one; or `latest`, the newest that is not deleted.

        A deleted one only with `deleted`. `PointNotFound`.
        """
        known = self.list(deleted=True, damaged=[])
        points = [point for point in known if item is None or point.record.item == item]
        of = "" if item is None else f" of item {item!r}"
        if name == "latest":
            live = [point for point in points if point.deleted_until is None]
            if live:
                return live[-1]
            if points:
                raise PointNotFound(f"all recovery points{of} are deleted; `keepstone store list --deleted` shows them")
            if known:
                raise PointNotFound(f"no recovery point{of}; `keepstone store list` shows the items that there are")
            raise PointNotFound("the store holds no recovery point yet; make one with `keepstone store backup`")
        named = [point for point in points if _begins(point.id, name)]
        found = [point for point in named if deleted or point.deleted_until is None]
        if len(found) > 1:
            raise UsageError(f"{name!r} begins the id of {len(found)} recovery points; give more of it")
        if named and not found:
            raise PointNotFound(f"recovery point {name!r} is deleted; take that back with `keepstone store undelete`")
        if not found:
            raise PointNotFound(f"no recovery point {name!r}{of}; `keepstone store list` shows what there is")
        return found[0]

    def forget(self, point: Point) -> int:
        """Soft-delete; the wall clock (ns) until which `undelete` is possible. Repeating it changes nothing.

        `PointNotFound` where somebody purges it at the same time.
        """
        return with_reserve(self._context.storage, lambda: self._forget(point))

    def _forget(self, point: Point) -> int:
        now = self._context.env.wall_time()
        until = now + self._days * _DAY
        name = deleted_name(point.id)
        chain = Chain(self._context)
        try:
            sealed = self._context.put_sealed("deleted", name, msgspec.msgpack.encode(_Marker(now, until)))
        except ObjectExists:
            try:
                sealed = self._context.storage.read(name)
            except ObjectMissing:  # undeleted or purged since
                if self._commits.decided(point.id):
                    return self._forget(point)
                raise PointNotFound(f"recovery point {point.short} was purged meanwhile; it is gone") from None
            until = self._marker(point.id) or until
            entry = chain.newest_about(name)
            if entry is not None and entry.event == "forget":
                return until
        chain.append("forget", name, sealed)
        return until

    def undelete(self, point: Point) -> None:
        """Take a soft delete back."""
        storage = self._context.storage
        chain, name = Chain(self._context), deleted_name(point.id)
        with_reserve(storage, lambda: chain.append("undelete", name, b""))
        storage.delete(name)
        with_reserve(storage, lambda: chain.append("undeleted", name, b""))

    def purge(self, point: Point, *, now: bool = False) -> None:
        """Remove a soft-deleted point for ever.

        `GuardRefused` while it is locked, and before its date unless `now`.
        """
        clock = self._context.env.wall_time()
        if clock < point.record.lock_until:
            end = datetime.fromtimestamp(point.record.lock_until // 10**9, UTC)
            raise GuardRefused(
                f"recovery point {point.short} is locked until {end:%Y-%m-%dT%H:%M:%SZ}; it cannot be purged before"
            )
        until = self._marker(point.id)  # not what an earlier look saw
        if until is None and not now:
            raise UsageError(f"recovery point {point.short} is not deleted; forget it first")
        if until is None:
            self.forget(point)  # so that a purge which a crash interrupts is seen to be one
        elif not now and clock < until:
            raise GuardRefused(
                f"recovery point {point.short} can still be undeleted; wait for its date, or `--purge` it at once"
            )
        self._remove(point.id)

    def _remove(self, commit: str) -> None:
        storage, event = self._context.storage, "drop-move" if commit.startswith(MOVES_TAG) else "purge"
        with_reserve(storage, lambda: Chain(self._context).append(event, commit_name(commit), b""))
        storage.delete(commit_name(commit))
        storage.delete(deleted_name(commit))

    def due(self) -> Sequence[Point]:
        """Every soft-deleted point whose date has passed and that is not locked."""
        clock = self._context.env.wall_time()
        return [
            point
            for point in self.list(deleted=True, damaged=[])
            if point.deleted_until is not None and point.deleted_until <= clock and point.record.lock_until <= clock
        ]

    def purge_due(self) -> Sequence[Point]:
        """Purge what is `due`; what was purged."""
        due = self.due()
        for point in due:
            self.purge(point)
        return due

    def lost(self) -> Sequence[str]:
        """The commits whose cells are gone though nobody purged them, are damaged, or cannot be read. Reclaim gives
        nothing back as long as there are any: their packs are still there for a cell that comes back from a copy."""
        damaged: list[tuple[str, KeepstoneError]] = []
        for _ in Commits(self._context).records(damaged=damaged):  # and not what was read of them before
            pass
        lost = {commit for commit, error in damaged if isinstance(error, LOST)}
        return sorted(lost.union(Ledger.read(self._context, lambda name, error: None).lost()))

    def find_lost(self, name: str) -> str:
        """The lost commit with this id, or this unambiguous beginning of one; `PointNotFound`."""
        found = [commit for commit in self.lost() if _begins(commit, name)]
        if len(found) > 1:
            raise UsageError(f"{name!r} begins the id of {len(found)} lost recovery points; give more of it")
        if not found:
            raise PointNotFound(f"no recovery point {name!r} is lost; `keepstone store verify` names those that are")
        return found[0]

    def give_up(self, commit: str) -> None:
        """Enter a lost commit as purged, and remove what is left of its cell: nothing is kept for it any more."""
        self._remove(self.find_lost(commit))

    def tag(self, item: str) -> str:
        """See `item_tag`; never the tag of moves."""
        tag = item_tag(self._context, item)
        assert tag != MOVES_TAG
        return tag
