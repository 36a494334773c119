# SPDX-License-Identifier: Apache-2.0
"""Usage, against a count that is too simple to be wrong."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepstone.errors import JobCancelled, StorageFull
from keepstone.objects import MemoryStorage
from keepstone.store import PointRecord, Store
from keepstone.store import ordinals as ordinals_module
from keepstone.store import usage as module
from keepstone.store.commits import MoveRecord
from keepstone.store.footer import DATA
from keepstone.store.layout import pack_id
from keepstone.store.moves import Moves
from keepstone.store.node import Node, decode_node
from keepstone.store.ordinals import Ordinals
from keepstone.store.packs import Packs
from keepstone.store.refs import ZERO_REF, PackNumbers
from keepstone.store.usage import Usage
from tests.unit.store.known import Failing, Machine, finish, items, new_store, outcome, save, submit

pytestmark = pytest.mark.store

Place = tuple[bytes, int]


def purge(store: Store, commit: str) -> None:
    store.points.purge(store.points.find(commit, deleted=True), now=True)


def memory_of(store: Store) -> MemoryStorage:
    assert isinstance(store.context.storage, MemoryStorage)
    return store.context.storage


def reopened(store: Store) -> Store:
    return Store(store.context.env, store.context.storage, store.descriptor, store.keyring, None)


def pack_bytes(store: Store) -> int:
    return sum(len(data) for name, data in memory_of(store).objects.items() if name.startswith("packs/"))


@dataclass
class Model:
    """The simple way: sets of places, and the bytes of each place."""

    store: Store
    bytes: dict[Place, int] = field(default_factory=dict)
    points: list[tuple[PointRecord, set[Place]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.numbers = PackNumbers()
        self.packs = Packs(self.store.context, self.numbers)
        records = [record for _, record in self.store.commits.records()]
        self.moves = Moves(self.numbers, [record for record in records if isinstance(record, MoveRecord)])
        for pack, _ in self.packs.listing():
            footer = self.packs.footer(pack)
            for frame in range(footer.frames):
                first, last = footer.first_chunk[frame : frame + 2]
                stored, raw, before = footer.frame_lengths[frame], footer.frame_raw[frame], 0
                for position in range(first, last):
                    after = before + footer.chunk_lengths[position]
                    self.bytes[pack, position] = stored * after // raw - stored * before // raw + 36
                    before = after
        for record in records:
            if isinstance(record, PointRecord):
                self.points.append((record, set()))
                self._walk(Node("", record.packs, b"", record.root, b"").child_refs(self.numbers), self.points[-1][1])

    def _place(self, ref: int) -> Place:
        resolved = self.moves.resolve(ref)
        return self.numbers.ids[resolved >> 32], resolved & 0xFFFFFFFF

    def _walk(self, refs: list[int], found: set[Place]) -> None:
        for ref in refs:
            found.add(self._place(ref))
            node = decode_node(self.packs.chunk(self.moves.resolve(ref)))
            found |= {self._place(chunk) for chunk in node.chunk_refs(self.numbers) if chunk != ZERO_REF}
            self._walk(node.child_refs(self.numbers), found)

    def needed(self, name: str, names: dict[str, str | None]) -> set[Place]:
        """The places of all points whose item has this name in `names`."""
        return set().union(*(places for record, places in self.points if names[record.item] == name))

    def total(self, places: set[Place]) -> int:
        return sum(self.bytes[place] for place in places)

    def compare(self, found: Usage, families: dict[str, str | None]) -> None:
        """Everything that there is to say of groups, families and the whole."""
        assert found.damage == []
        present = {record.item for record, _ in self.points}
        own: dict[str, str | None] = {item: item for item in families}
        for names, footprints in ((own, found.groups), (families, found.families)):
            titles = {names[item] for item in present} - {None}
            assert set(footprints) == titles
            for title, footprint in footprints.items():
                records = [record for record, _ in self.points if names[record.item] == title]
                mine = self.needed(title, names)
                others = set().union(*(places for record, places in self.points if names[record.item] != title))
                assert footprint.points == len(records)
                assert footprint.logical == sum(record.logical for record in records)
                assert footprint.referenced == self.total(mine)
                assert footprint.unique == self.total(mine - others)
                assert footprint.shared == self.total(mine & others)
        everything = set().union(*(places for _, places in self.points))
        assert found.referenced == self.total(everything)
        assert found.dead == self.total(set(self.bytes) - everything)
        assert found.shared == found.referenced - sum(one.unique for one in found.groups.values())
        assert found.stored == pack_bytes(self.store)
        assert (found.points, found.logical) == (len(self.points), sum(record.logical for record, _ in self.points))


def test_an_empty_store(store: Store) -> None:
    found = store.usage()

    assert (found.groups, found.families, found.damage) == ({}, {}, [])
    assert (found.points, found.logical, found.referenced, found.shared, found.dead, found.stored) == (0,) * 6


def test_what_one_item_needs_is_all_its_own(store: Store) -> None:
    save(store, items("ABC"))
    save(store, items("ABCD"))

    found = store.usage()
    one = found.groups["item"]

    assert one.points == 2
    assert one.logical == 700
    assert one.unique == one.referenced == found.referenced
    assert (one.shared, found.shared, found.dead) == (0, 0, 0)
    assert 0 < found.overhead < found.stored == pack_bytes(store)


def test_what_two_items_share_is_unique_to_neither(store: Store) -> None:
    save(store, items("0123"), "a")  # of digits, which do not compress: a chunk of 100 bytes is stored in about as many
    save(store, items("01235678"), "b")

    found = store.usage()

    assert 4 * 100 < found.shared == found.groups["a"].shared == found.groups["b"].shared < 8 * 100
    assert found.groups["b"].unique > 4 * 100
    assert found.groups["a"].unique < 400  # only its nodes


def test_what_two_items_of_a_family_share_is_unique_to_the_family(store: Store) -> None:
    for item in ("a", "b", "c"):
        save(store, items("0123"), item)

    def pair(item: str) -> str | None:
        return "pair" if item in "ac" else "b is alone"

    with_third = store.usage(family=pair)
    purge(store, store.points.find("latest", item="b").id)
    alone = store.usage(family=pair)

    assert with_third.families["pair"].shared == with_third.families["b is alone"].shared > 400
    assert with_third.families["pair"].referenced < 2 * with_third.families["pair"].shared
    assert alone.families["pair"].shared == 0
    assert alone.families["pair"].unique == alone.referenced
    assert alone.groups["a"].shared > 400
    assert alone.families["pair"].points == 2


def test_deleting_a_group_gives_its_unique_bytes_back(store: Store) -> None:
    """What is said to be unique is what a reclaim can free, but for what is around it."""
    save(store, items("01234567"), "kept")
    commit = save(store, items("4567xyz89"), "gone")
    before = store.usage()
    purge(store, commit)

    after = store.usage()

    assert after.dead == before.dead + before.groups["gone"].unique
    assert after.referenced == before.referenced - before.groups["gone"].unique
    store.reclaim(compact_below=1.0)
    assert store.usage().dead == 0


def test_groups_are_what_somebody_says(store: Store) -> None:
    for number in range(4):
        save(store, items(f"{number}{number + 1}"), f"item {number}")

    found = store.usage(lambda record: str(int(record.item[-1]) % 2))

    assert {name: one.points for name, one in found.groups.items()} == {"0": 2, "1": 2}


def test_points_that_are_soft_deleted_count(store: Store) -> None:
    commit = save(store, items("0123"))
    before = store.usage()
    store.points.forget(store.points.find(commit))

    assert store.usage() == before


def test_zeros_cost_nothing(store: Store) -> None:
    save(store, items("0"), "plain")
    with store.writer("sparse", "known", level=1) as writer:
        places = submit(writer, items("0"))
        writer.drain()
        leaf = writer.put_node("leaf", [ZERO_REF, *places, ZERO_REF, ZERO_REF], [], b"")
        writer.commit(outcome([leaf], 400))

    found = store.usage()

    Model(store).compare(found, {"plain": None, "sparse": None})
    assert found.groups["sparse"].logical == 400
    assert found.groups["sparse"].unique < 400


def test_what_nobody_committed_is_dead(store: Store) -> None:
    save(store, items("0123"))
    before = store.usage()
    full = MemoryStorage(
        store.context.env, objects=memory_of(store).objects, fail=Failing("put commits/", StorageFull("full"))
    )
    with pytest.raises(StorageFull):
        save(Store(store.context.env, full, store.descriptor, store.keyring, None), items("456789"), "other")

    found = store.usage()

    assert found.dead > 600
    assert found.groups == before.groups


def test_a_chunk_of_a_pack_that_was_compacted_and_is_still_there_counts_where_it_is_now(store: Store) -> None:
    first = save(store, items("0123456789"), "a")
    save(store, items("0123"), "b")
    purge(store, first)
    with store.writer("running", "known", level=1):  # for which the old pack has to wait
        assert store.reclaim(compact_below=1.0).packs_compacted
        found = store.usage()

        Model(store).compare(found, {"b": None})
        assert found.dead > 10 * 100  # the whole old pack


def test_what_was_moved_again_and_again(store: Store) -> None:
    text = "".join(chr(0x100 + number) for number in range(40))
    commits = [save(store, items(text[:count])) for count in (40, 20, 10, 5)]
    save(store, items(text[:3]), "other")
    for commit in commits[:-1]:
        purge(store, commit)
        store.reclaim(compact_below=0.9)
        store.reclaim(compact_below=0.9)

    model = Model(store)
    assert any(first >> 32 in model.moves.old for _, _, runs in model.moves.old.values() for _, first in runs)
    model.compare(store.usage(), {"item": None, "other": None})


def test_a_chunk_that_was_not_moved_and_is_needed_after_all(store: Store) -> None:
    """A backup that began before the compaction refers to it where it was, and the old pack stays for it."""
    gone = save(store, items("01234567"), "gone")
    save(store, items("0123"), "kept")
    purge(store, gone)
    with store.writer("late", "known", level=1) as writer:
        places = submit(writer, items("7"))
        writer.drain()
        assert store.reclaim(compact_below=1.0).packs_compacted
        finish(writer, [places], 100)
        pack = writer.numbers.ids[places[0] >> 32]

    model = Model(store)
    assert pack in {model.numbers.ids[number] for number in model.moves.old}
    model.compare(store.usage(), {"kept": None, "late": None})


def test_a_node_is_read_once_for_each_group_that_has_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    node = Ordinals.node

    def count(self: Ordinals, ordinal: int) -> Node:
        read.append(ordinal)
        return node(self, ordinal)

    monkeypatch.setattr(Ordinals, "node", count)
    save(store, items("0123456789ABCDEF"))
    for _ in range(2):
        with store.writer("item", "known", level=1) as writer:
            leaves = writer.child_refs(writer.node(writer.parent_root()[0]))
            writer.commit(outcome([writer.put_node("root", [], leaves, b"another")]))

    store.usage()
    assert len(read) == len(set(read)) == 3 + len(leaves)

    read.clear()
    store.usage(lambda record: str(record.started))
    assert len(read) == 3 + 3 * len(leaves)


def test_a_compaction_meanwhile_does_no_harm(store: Store) -> None:
    gone = save(store, items("0123456789"), "gone")
    for item in ("a", "b", "c"):
        save(store, items("012" + item), item)
    swept: list[int] = []

    def sweep(_done: int, _expected: int) -> None:
        if not swept:
            swept.append(1)
            purge(store, gone)
            assert store.reclaim(compact_below=1.0).packs_deleted

    found = store.usage(tick=sweep)

    Model(store).compare(found, dict.fromkeys("abc"))


def test_damage_is_told_and_the_rest_is_counted(store: Store) -> None:
    save(store, items("0123"), "a")
    data = {name for name in memory_of(store).objects if name.startswith("packs/")}
    save(store, items("5678"), "b")
    sound = store.usage()
    lost = next(name for name in data if Packs(store.context, PackNumbers()).footer(pack_id(name)).kind == DATA)
    del memory_of(store).objects[lost]

    found = store.usage()

    assert any(lost in sentence for sentence in found.damage)
    assert found.groups["b"] == sound.groups["b"]
    assert found.groups["a"].referenced < 400
    assert found.stored == pack_bytes(store)


def test_a_manifest_that_names_what_never_was_is_told(store: Store) -> None:
    save(store, items("0123"), "sound")
    before = store.usage()
    with store.writer("past the end", "known", level=1) as writer:
        places = submit(writer, items("4"))
        writer.drain()
        finish(writer, [[*places, places[0] + 1000]])
    record = store.points.find("latest", item="sound").record
    broken = msgspec.structs.replace(record, item="broken", root=record.root + b"x", logical=7)
    store.commits.publish(f"{'0' * 16}-{'1' * 32}", broken)

    found = store.usage()

    assert len(found.damage) == 2
    assert found.groups["sound"] == before.groups["sound"]
    assert found.groups["broken"].referenced == 0
    assert found.groups["broken"].logical == 7
    assert found.groups["past the end"].unique > 100
    assert found.dead == 0


def test_a_cell_that_cannot_be_read_is_told(store: Store) -> None:
    commit = save(store, items("0123"), "a")
    save(store, items("5678"), "b")
    memory_of(store).objects[f"commits/{commit}"] += b"x"

    found = reopened(store).usage()

    assert set(found.groups) == {"b"}
    assert any(commit in sentence for sentence in found.damage)
    assert found.dead > 400


def test_progress_is_told_and_can_end_it(store: Store) -> None:
    for number in range(3):
        save(store, items(str(number)), f"item {number}")
    told: list[tuple[int, int]] = []
    store.usage(tick=lambda done, expected: told.append((done, expected)))

    assert told == sorted(told)
    assert {done for done, _ in told} == {0, 1, 2, 3}
    assert {expected for _, expected in told} == {3}

    def cancel(_done: int, _expected: int) -> None:
        raise JobCancelled("enough")

    with pytest.raises(JobCancelled):
        store.usage(tick=cancel)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1 << 32))
def test_against_a_simple_count(seed: int) -> None:
    """Items that share chunks, points that come and go, packs that are compacted once and again."""
    chance = random.Random(seed)
    store = new_store(Machine(seed))
    families = {f"item {number}": chance.choice([None, "a", "b"]) for number in range(chance.randint(1, 6))}
    commits: list[str] = []
    for _ in range(chance.randint(1, 20)):
        step = chance.random()
        if step < 0.5 or not commits:
            text = "".join(chance.sample("ABCDEFGH0123456789", chance.randint(0, 12)))
            commits.append(save(store, items(text, chance.choice([100, 37])), chance.choice(list(families))))
        elif step < 0.75:
            purge(store, commits.pop(chance.randrange(len(commits))))
        else:
            store.reclaim(compact_below=chance.choice([0.7, 1.0]))
    with pytest.MonkeyPatch.context() as patch:
        if chance.random() < 0.5:  # blocks and heaps so small that there are many
            patch.setattr(module, "_ASIDE", 24)
            patch.setattr(module, "_LOT", 2)
            patch.setattr(module, "_BLOCK", 3)
            patch.setattr(ordinals_module, "_BLOCK", 3)
        found = store.usage(family=families.__getitem__)

    Model(store).compare(found, families)
