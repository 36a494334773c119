# SPDX-License-Identifier: Apache-2.0
"""A store that holds an object of every kind, made once: what test_damage.py breaks.

Points of several items, some of them soft-deleted; packs with many frames, some of them compacted away and still named
by a manifest; an aborted cell; the leases of writers that died; a tombstone that waits for them, and one with its
verdict; two keys objects, as a crash in a rotation leaves them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from keepstone.crypto import Keyring
from keepstone.env import Env
from keepstone.objects import MemoryStorage
from keepstone.store import Store
from keepstone.store.commits import ABORTED
from keepstone.store.descriptor import Descriptor
from keepstone.store.layout import deleted_name, pack_name
from keepstone.store.leases import Leases, Tomb, Tombs
from keepstone.store.refs import PackNumbers
from keepstone.store.survey import Survey
from tests.unit.store.known import DAY, LEAF, Fail, Machine, items, opener, save, submit

__all__ = ["NEW", "OLD", "Full", "kind_of", "make"]

_OPENED_BY = 3  # a process of its own: 1 made the store, 2 is dead
OLD, NEW = opener(b"old"), opener(b"new")

_KINDS = (
    (r"packs/", "pack"),
    (r"commits/moves-", "move"),
    (r"commits/", "point"),
    (r"tombs/.*\.waits", "waits"),
    (r"tombs/.*\.verdict", "verdict"),
    (r"tombs/", "tomb"),
    (r"([a-z]+)/", None),
    (r"keepstone.json", "descriptor"),
    (r"FORMAT.md|rescue.py", "document"),
)


@dataclass(slots=True)
class Full:
    """`objects`: name → content. `points`: commit → (its chunks). `needs`: commit → names of the objects that its
    restore reads."""

    machine: Machine
    objects: dict[str, bytes]
    descriptor: Descriptor
    keyring: Keyring
    points: dict[str, list[bytes]] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    needs: dict[str, set[str]] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    old_marker: tuple[str, bytes] = ("", b"")
    purged: tuple[str, bytes, bytes] = ("", b"", b"")
    undeleted: tuple[str, bytes] = ("", b"")

    def open(
        self,
        objects: dict[str, bytes] | None = None,
        *,
        cache: Path | None = None,
        env: Env | None = None,
        fail: Fail | None = None,
    ) -> Store:
        """The store, opened before the damage was done to its descriptor or keys."""
        env = env or Machine(_OPENED_BY, beside=self.machine)
        storage = MemoryStorage(env, objects=dict(self.objects) if objects is None else objects, fail=fail)
        return Store(env, storage, self.descriptor, self.keyring, cache)


def kind_of(full: Full, name: str) -> str:
    """What sort of object this is; of commit cells and packs also which one."""
    return full.kinds[name]


def _kind(name: str, content: bytes, kinds_of_packs: dict[str, int]) -> str:
    if content == ABORTED:
        return "aborted"
    for pattern, kind in _KINDS:
        match = re.match(pattern, name)
        if match:
            found = kind or match[1].rstrip("s")
            return found if found != "pack" else ("data pack", "metadata pack")[kinds_of_packs[name]]
    raise LookupError(name)


@cache
def make() -> Full:
    """Make it; the caller must not change what is in it."""
    machine = Machine(1)
    objects: dict[str, bytes] = {}
    storage = MemoryStorage(machine, objects=objects)
    store = Store.init(machine, storage, [OLD])
    full = Full(machine, objects, store.descriptor, store.keyring)

    def point(letters: str, item: str, leaf: int = LEAF) -> str:
        commit = save(store, items(letters), item, leaf=leaf)
        full.points[commit] = items(letters)
        machine.now += DAY
        return commit

    def purge(commit: str) -> None:
        store.points.purge(store.points.find(commit, deleted=True), now=True)
        del full.points[commit]

    point("ABCDEFGHIJKLM", "alpha")
    point("ABCDEfGHIJKLMN", "alpha")
    point("ABCDxyz", "beta")
    # A node of very many runs, in the packs of others and in its own.
    point("".join(old + new for old, new in zip("ABCDEFGHIJKLM", "!#$%&()*+,-./", strict=True)) * 2, "wide", 60)
    # An old pack that is compacted away while a manifest still names places in it.
    sparse = point("nopqrstuvw", "gamma")
    point("noP", "gamma")
    purge(sparse)
    assert store.reclaim().packs_compacted
    assert store.reclaim().packs_compacted == 0
    # Soft deletes: one that was taken back and repeated, one that was taken back, one that ended in a purge.
    first, second, third = point("0123A", "delta"), point("4567B", "delta"), point("89:C", "delta")
    for commit in (first, second, third):
        store.points.forget(store.points.find(commit))
    full.old_marker = deleted_name(first), objects[deleted_name(first)]
    full.undeleted = deleted_name(second), objects[deleted_name(second)]
    for commit in (first, second):
        store.points.undelete(store.points.find(commit, deleted=True))
    store.points.forget(store.points.find(first))
    full.purged = third, objects[f"commits/{third}"], objects[deleted_name(third)]
    purge(third)
    other = point("DEF;<=", "delta")
    store.points.forget(store.points.find(other))
    full.deleted = {first, other}
    # A rotation that a crash cut off before it removed the old keys.
    old_keys = objects["keys/00000001"]
    store.rekey([NEW])
    objects["keys/00000001"] = old_keys
    full.keyring = store.keyring
    # Two writers under way; a reclaim condemns a pack and waits for them; then they die.
    dying = Machine(2, beside=machine)
    theirs = Store(dying, MemoryStorage(dying, objects=objects), store.descriptor, store.keyring, None)
    Leases(theirs.context, theirs.commits).publish("0123456789abcdef-" + 32 * "0")
    theirs.commits.abort("0123456789abcdef-" + 32 * "0")
    doomed = point("?@[]", "epsilon")
    lost = theirs.writer("alpha", "known")
    submit(lost, items("zyx"))
    purge(doomed)
    assert store.reclaim(compact_below=0).waiting == [lost.commit_id]
    machine.dead.add(2)
    # A collector that died when it had decided what of a tombstone goes.
    tombs = Tombs(store.context)
    decided = tombs.publish(Tomb(packs=[], moves=[]))
    tombs.wait_for(decided, [])
    tombs.decide(decided, Tomb(packs=[], moves=[]))
    _describe(full)
    return full


def _describe(full: Full) -> None:
    """Fill in `kinds` and `needs`."""
    store = full.open(full.objects)
    survey = Survey(store.context)
    packs = {pack_name(pack): survey.packs.footer(pack).kind for pack in survey.sizes}
    full.kinds = {name: _kind(name, content, packs) for name, content in full.objects.items()}
    moves = {name for name, kind in full.kinds.items() if kind == "move"}
    for point in store.points.list(deleted=True):
        full.needs[point.id] = {f"commits/{point.id}"} | survey.packs_of(point.record)
        numbers = PackNumbers()
        table = {numbers.number(point.record.packs[at : at + 32]) for at in range(0, len(point.record.packs), 32)}
        assert table
        if point.record.item == "gamma":
            full.needs[point.id] |= moves
