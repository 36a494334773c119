# SPDX-License-Identifier: Apache-2.0
"""What the bytes of a store are there for: how many of them a group of points needs, and how many it needs alone.

Points are counted in groups, such as those of one item, and groups in families, such as the items of one policy. The
chunks of manifests count like those of data. What a chunk's stored bytes are is said in `ordinals.py`.

One pass over the manifests, family by family and group by group. Of every chunk two things are remembered: which group
needed it last, and whether others did. With its bytes that is 9 bytes of memory a chunk, however many groups there are.
A node is read once for each group that has it.

Invariants
* In a group or a family a chunk counts once, however many of its points have it.
* The unique bytes of all groups and the shared ones are the referenced bytes. These, the dead ones and the overhead are
  the bytes of all packs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from keepstone.errors import KeepstoneError
from keepstone.store.commits import MoveRecord, PointRecord
from keepstone.store.ordinals import Array, Ordinals
from keepstone.store.store import Store

__all__ = ["Footprint", "Usage", "usage"]

_LOOKS = 3
_ASIDE = 1 << 20  # bytes of runs
_LOT = 4096  # nodes whose children are looked at together
_BLOCK = 1 << 18  # chunks that are looked at together
_NOBODY = -1
_OTHER_GROUP, _OTHER_FAMILY = 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What the `points` of a group or a family cost, in bytes. `logical`: what restores of all of them would write.
    `referenced`: stored bytes of the chunks that they need; `unique`: of those that no other group or family needs."""

    points: int
    logical: int
    referenced: int
    unique: int

    @property
    def shared(self) -> int:
        """Stored bytes of the chunks that others need too."""
        return self.referenced - self.unique


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """`groups`, `families`: by name. Of the whole store, in bytes: `logical` of all `points`; `referenced`, stored
    bytes of the chunks that any point needs; `shared`, of those that several groups need; `dead`, of those that no
    point needs, among them what running backups have written so far; `overhead`, what is in packs beside chunks, and
    packs that cannot be read. `damage`: what could not be counted, a sentence each."""

    groups: dict[str, Footprint]
    families: dict[str, Footprint]
    points: int
    logical: int
    referenced: int
    shared: int
    dead: int
    overhead: int
    damage: list[str]

    @property
    def stored(self) -> int:
        """The bytes of all packs."""
        return self.referenced + self.dead + self.overhead


def usage(
    store: Store,
    group: Callable[[PointRecord], str] = lambda record: record.item,
    family: Callable[[str], str | None] = lambda _: None,
    tick: Callable[[int, int], None] = lambda _done, _expected: None,
) -> Usage:
    """Count all points of a store, also those that are soft-deleted. `group`: which one a point is in; `family`: which
    one a group is in, None for none. `tick` hears often of the points that are done and of all; what it raises ends
    the count.

    Others may compact and sweep meanwhile: only what two looks agree on is called damaged.
    """
    before: list[str] = []
    for _ in range(_LOOKS):
        found = _Look(store, group, family).count(tick)
        if not found.damage or found.damage == before:
            break
        before = found.damage
    return found


class _Look:
    """One look at the whole store. `order`: the groups, those of a family one after the other."""

    def __init__(self, store: Store, group: Callable[[PointRecord], str], family: Callable[[str], str | None]) -> None:
        self.damage: dict[str, None] = {}  # each sentence once
        self._aside: list[tuple[bytes, bytes]] = []
        self._aside_bytes = 0
        cells: list[tuple[str, KeepstoneError]] = []
        records = [record for _, record in store.commits.records(damaged=cells)]  # before the packs that they need
        for _, error in cells:
            self._note(error)
        self.points = [record for record in records if isinstance(record, PointRecord)]
        moves = [record for record in records if isinstance(record, MoveRecord)]
        self.chunks = Ordinals(store.context, moves, self._note)
        self.members: dict[str, list[PointRecord]] = {}
        for record in self.points:
            self.members.setdefault(group(record), []).append(record)
        kin = {name: family(name) for name in self.members}
        self.order = sorted(kin, key=lambda name: (kin[name] is not None, kin[name] or "", name))
        self.families: dict[str | None, list[PointRecord]] = {}
        for name in self.order:
            self.families.setdefault(kin[name], []).extend(self.members[name])
        numbers = {title: number for number, title in enumerate(self.families)}
        self.owners = _Owners(self.chunks.shares, [numbers[kin[name]] for name in self.order])

    def _note(self, error: KeepstoneError) -> None:
        self.damage[str(error)] = None

    def count(self, tick: Callable[[int, int], None]) -> Usage:
        """What the look finds."""
        done = 0
        for number, name in enumerate(self.order):
            for _ in self._walk(number, self.members[name]):
                tick(done, len(self.points))
            done += len(self.members[name])
        tick(done, len(self.points))
        groups, families, shared = self.owners.alone()
        everything, referenced = int(self.chunks.shares.sum(dtype=np.int64)), sum(groups) + shared
        return Usage(
            groups={
                name: _footprint(self.members[name], self.owners.groups[number], groups[number])
                for number, name in enumerate(self.order)
            },
            families={
                title: _footprint(points, self.owners.families[number], families[number])
                for number, (title, points) in enumerate(self.families.items())
                if title is not None
            },
            points=len(self.points),
            logical=sum(record.logical for record in self.points),
            referenced=referenced,
            shared=shared,
            dead=everything - referenced,
            overhead=self.chunks.stored - everything,
            damage=list(self.damage),
        )

    def _walk(self, group: int, points: list[PointRecord]) -> Iterator[None]:
        """Take all that these points need, in steps. What their nodes name is put aside, so that many are taken at
        once."""
        pending = [(record.packs, record.root) for record in points]
        while pending:
            parts = pending[-_LOT:]
            del pending[-_LOT:]
            for fresh in self._take(group, parts):
                for ordinal in fresh.tolist():
                    try:
                        node = self.chunks.node(ordinal)
                    except KeepstoneError as error:
                        self._note(error)
                        continue
                    if node.children:
                        pending.append((node.packs, node.children))
                    if node.chunks:
                        self._aside.append((node.packs, node.chunks))
                        self._aside_bytes += len(node.chunks)
                        if self._aside_bytes >= _ASIDE:
                            self._take_aside(group)
            yield
        self._take_aside(group)

    def _take_aside(self, group: int) -> None:
        parts, self._aside, self._aside_bytes = self._aside, [], 0
        for _ in self._take(group, parts):
            pass

    def _take(self, group: int, parts: list[tuple[bytes, bytes]]) -> Iterator[Array]:
        return (self.owners.take(group, block) for block in self.chunks.named(parts))


def _footprint(points: list[PointRecord], referenced: int, unique: int) -> Footprint:
    logical = sum(record.logical for record in points)
    return Footprint(points=len(points), logical=logical, referenced=referenced, unique=unique)


class _Owners:
    """Of every chunk the group that needed it last, and whether others did. `family_of`: by group. `groups`,
    `families`: stored bytes that they need."""

    def __init__(self, shares: npt.NDArray[np.uint32], family_of: list[int]) -> None:
        self._shares = shares
        self._last = np.full(len(shares), _NOBODY, np.int32)
        self._others = np.zeros(len(shares), np.uint8)
        self._family_of = np.array([*family_of, _NOBODY], np.int32)  # that of nobody stands at the end
        self.groups = [0] * len(family_of)
        self.families = [0] * (max(family_of, default=-1) + 1)

    def take(self, group: int, ordinals: Array) -> Array:
        """A group needs these chunks, each given once; those that it was not known to need."""
        fresh: Array = ordinals[self._last[ordinals] != group]
        before, family = self._last[fresh], self._family_of[group]
        known, foreign = before != _NOBODY, self._family_of[before] != family
        self._others[fresh[known]] |= _OTHER_GROUP
        self._others[fresh[known & foreign]] |= _OTHER_FAMILY
        self._last[fresh] = group
        shares = self._shares[fresh]
        self.groups[group] += int(shares.sum(dtype=np.int64))
        self.families[family] += int(shares[foreign].sum(dtype=np.int64))
        return fresh

    def alone(self) -> tuple[list[int], list[int], int]:
        """Stored bytes that only one group needs, by group; that only one family needs, by family; that several groups
        need."""
        groups, families = np.zeros(len(self.groups)), np.zeros(len(self.families))  # exact up to 2^53
        shared = 0
        for at in range(0, len(self._last), _BLOCK):
            last, others, shares = (column[at : at + _BLOCK] for column in (self._last, self._others, self._shares))
            for flag, sums, whose in (
                (_OTHER_GROUP, groups, last),
                (_OTHER_FAMILY, families, self._family_of[last]),
            ):
                alone = (last != _NOBODY) & (others & flag == 0)
                sums += np.bincount(whose[alone], shares[alone], len(sums))
            shared += int(shares[others & _OTHER_GROUP != 0].sum(dtype=np.int64))
        return [int(value) for value in groups], [int(value) for value in families], shared
