# SPDX-License-Identifier: Apache-2.0
"""The store against a dictionary: any order of everything that can be done to it.

The model is `{commit: chunks}` with the dates of soft deletes. Several writers are open at once, commit in any order,
give up, or die without a word; reclaim, compaction, rotation of keys and loss of the cache happen between any two
steps of theirs.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test

from keepstone.errors import GuardRefused, LeaseLost, PointNotFound, WrongKey
from keepstone.objects import MemoryStorage
from keepstone.store import LocalWriter, Store, pack
from keepstone.store.layout import LEASES, PACKS, TOMBS
from keepstone.store.survey import Survey
from tests.tampered import Tampered
from tests.unit.store.known import DAY, LEAF, Machine, finish, items, load, opener, save, submit

pytestmark = pytest.mark.store

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef0123456789"
NAMES = ("one", "two", "three")
WEEK = 7 * DAY

texts = st.lists(st.sampled_from(LETTERS), min_size=1, max_size=18).map("".join)
edits = st.lists(st.tuples(st.integers(0, 17), st.sampled_from(LETTERS)), max_size=4)


@dataclass(slots=True)
class Writing:
    """A backup under way: its writer, the process that runs it, and what it has been given."""

    machine: Machine
    writer: LocalWriter
    began: int
    chunks: list[bytes] = field(default_factory=list)
    leaves: list[list[int]] = field(default_factory=list)
    over: bool = False


@dataclass(slots=True)
class Kept:
    """A point that must restore. `until`: while it is soft-deleted, the date after which it may be purged."""

    chunks: list[bytes]
    item: str
    locked: int
    until: int | None = None


class StoreMachine(RuleBasedStateMachine):
    """See the module."""

    writing = Bundle("writing")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="model-"))
        self.fs = Tampered(fsync=lambda fd: None)  # of the cache; nothing here loses its power
        self.seed = 0
        self.now = 10**18
        self.dead: set[int] = set()
        self.objects: dict[str, bytes] = {}
        self.passphrase = 0
        self.points: dict[str, Kept] = {}
        self.open: list[Writing] = []
        machine = self._machine()
        self.store = Store.init(
            machine, MemoryStorage(machine, objects=self.objects), [opener(b"0")], cache=self.folder
        )
        self.machine = machine
        self.target = pack.PACK_TARGET
        pack.PACK_TARGET = 1200  # so that one backup makes several packs

    def _machine(self) -> Machine:
        """A new process."""
        self.seed += 1
        machine = Machine(self.seed, fs=self.fs)
        machine.dead = self.dead
        machine.now = self.now
        return machine

    def _tick(self) -> None:
        """All clocks agree."""
        self.now = max([self.now, self.machine.now, *(writing.machine.now for writing in self.open)])
        for machine in (self.machine, *(writing.machine for writing in self.open)):
            machine.now = self.now

    def teardown(self) -> None:
        try:
            for writing in self.open:
                self._close(writing)
            self._settle()
        finally:
            pack.PACK_TARGET = self.target
            shutil.rmtree(self.folder)

    def _settle(self) -> None:
        """In peace, everything that is not needed goes, and everything that is needed stays."""
        for _ in range(8):  # a dead copy goes a round later than the pack that it was moved out of, and so on
            self.now += 10 * WEEK  # the leases of the dead end
            self._tick()
            self._forget_what_is_due()
            self.store.reclaim()
        self._check_all(deep=True)
        survey = Survey(self.store.context)
        left = [name for name in self.objects if name.startswith((LEASES, TOMBS))]

        assert survey.dead() == []
        assert left == []
        assert {name for name in self.objects if name.startswith(PACKS)} == (
            set().union(*(survey.packs_of(point.record) for point in self.store.points.list(deleted=True)))
        )

    def _forget_what_is_due(self) -> None:
        for commit, kept in list(self.points.items()):
            if kept.until is not None and kept.until <= self.now and kept.locked <= self.now:
                del self.points[commit]

    def _check_all(self, *, deep: bool) -> None:
        report = self.store.verify(deep=deep)

        assert report.findings == []
        assert report.damaged_points == []
        assert report.points == len(self.points)
        for commit, kept in self.points.items():
            assert load(self.store, commit) == kept.chunks

    # Backups

    @rule(target=writing, item=st.sampled_from(NAMES), locked=st.sampled_from([0, 0, 0, 20 * DAY]), check=st.booleans())
    def begin(self, item: str, locked: int, check: bool) -> Writing:
        self._tick()
        machine = self._machine()
        store = Store(
            machine,
            MemoryStorage(machine, objects=self.objects),
            self.store.descriptor,
            self.store.keyring,
            self.folder if len(self.open) % 2 else None,
        )
        lock_until = self.now + locked if locked else 0
        writing = Writing(machine, store.writer(item, "model", check=check, lock_until=lock_until), self.now)
        self.open.append(writing)
        return writing

    @rule(writing=writing, text=texts)
    def feed(self, writing: Writing, text: str) -> None:
        """More chunks, all of them read."""
        if writing.over:
            return
        chunks = items(text)
        for at in range(0, len(chunks), LEAF):
            writing.leaves.append(submit(writing.writer, chunks[at : at + LEAF]))
        writing.chunks += chunks

    @rule(writing=writing, changes=edits)
    def feed_from_parent(self, writing: Writing, changes: list[tuple[int, str]]) -> None:
        """The parent's chunks with a few of them changed: what did not change is hinted at, or taken over unread."""
        if writing.over or writing.leaves or writing.writer.parent is None:
            return
        writer = writing.writer
        known = self.points.get(writer.parent_id)
        if known is None:
            return  # purged since
        chunks = list(known.chunks)
        for at, letter in changes:
            if at < len(chunks):
                chunks[at] = items(letter)[0]
        places = [
            ref
            for root in writer.parent_root()
            for leaf in writer.child_refs(writer.node(root))
            for ref in writer.chunk_refs(writer.node(leaf))
        ]
        usable = writer.usable(places)
        for at in range(0, len(chunks), LEAF):
            mine, before = chunks[at : at + LEAF], known.chunks[at : at + LEAF]
            if usable is not None and mine == before and at % (2 * LEAF):
                writing.leaves.append(usable[at : at + LEAF])
            else:
                hints = (usable or [-1] * len(places))[at : at + LEAF]
                writing.leaves.append(submit(writer, mine, hints))
        writing.chunks += chunks

    def _close(self, writing: Writing) -> None:
        writing.over = True
        writing.writer.abort()

    def _end(self, writing: Writing) -> None:
        self.open.remove(writing)
        self._tick()

    @rule(writing=consumes(writing))
    def commit(self, writing: Writing) -> None:
        if writing.over:
            return
        writing.over = True
        item, locked = writing.writer._item, writing.writer._lock_until
        try:
            commit = finish(writing.writer, writing.leaves, sum(map(len, writing.chunks)))
        except LeaseLost:
            assert self.now - writing.began > WEEK, "a backup of less than a week was taken for dead"
        else:
            self.points[commit] = Kept(writing.chunks, item, locked)
        self._end(writing)

    @rule(writing=consumes(writing))
    def give_up(self, writing: Writing) -> None:
        if not writing.over:
            self._close(writing)
            self._end(writing)

    @rule(writing=consumes(writing))
    def die(self, writing: Writing) -> None:
        """The process is gone, and nobody tidies up after it."""
        if not writing.over:
            writing.over = True
            self.dead.add(writing.machine.pid)
            self._end(writing)

    @rule(writing=consumes(writing))
    def die_after_the_commit(self, writing: Writing) -> None:
        """The cell is written, the head is not."""
        if writing.over:
            return
        writing.over = True
        writer, session = writing.writer, writing.writer._session
        item, locked = writer._item, writer._lock_until

        class Gone(BaseException):
            pass

        def fail(operation: str, name: str) -> Exception | None:
            if operation != "finish" and name.startswith(("heads/", "leases/")) and operation in ("put", "delete"):
                raise Gone
            return None

        storage = session.context.storage
        assert isinstance(storage, MemoryStorage)
        storage._fail = fail
        try:
            finish(writer, writing.leaves)
        except LeaseLost:
            assert self.now - writing.began > WEEK
        except Gone:
            if f"commits/{session.commit_id}" in self.objects and self.store.commits.get(session.commit_id) is not None:
                self.points[session.commit_id] = Kept(writing.chunks, item, locked)
        self.dead.add(writing.machine.pid)
        self._end(writing)

    @rule(item=st.sampled_from(NAMES), text=texts, often=st.integers(1, 3))
    def back_up(self, item: str, text: str, often: int) -> None:
        """From beginning to end at once; each further point loses the first third of what the one before had."""
        chunks = items(text)
        for _ in range(often):
            self._tick()
            self.points[save(self.store, chunks, item, kind="model")] = Kept(chunks, item, 0)
            chunks = chunks[-(-len(chunks) // 3) :]

    # Points

    def _pick(self, data: st.DataObject, *, deleted: bool) -> str | None:
        found = sorted(commit for commit, kept in self.points.items() if (kept.until is not None) == deleted)
        return data.draw(st.sampled_from(found)) if found else None

    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        if self.points:
            commit = data.draw(st.sampled_from(sorted(self.points)))
            assert load(self.store, commit) == self.points[commit].chunks

    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        commit = self._pick(data, deleted=False)
        if commit is not None:
            self.points[commit].until = self.store.points.forget(self.store.points.find(commit))

    @rule(data=st.data())
    def undelete(self, data: st.DataObject) -> None:
        commit = self._pick(data, deleted=True)
        if commit is not None:
            self.store.points.undelete(self.store.points.find(commit, deleted=True))
            self.points[commit].until = None

    @rule(data=st.data(), deleted=st.booleans())
    def purge(self, data: st.DataObject, deleted: bool) -> None:
        commit = self._pick(data, deleted=deleted)
        if commit is None:
            return
        self._tick()
        point = self.store.points.find(commit, deleted=True)
        if self.points[commit].locked > self.now:
            with pytest.raises(GuardRefused):
                self.store.points.purge(point, now=True)
        else:
            self.store.points.purge(point, now=True)
            del self.points[commit]
            with pytest.raises(PointNotFound):
                self.store.points.find(commit, deleted=True)

    @rule(count=st.integers(0, 3), below=st.sampled_from([0.75, 1.0]))
    def retire(self, count: int, below: float) -> None:
        """The oldest points go, as a policy has it; the old packs of a compaction go with the second reclaim."""
        for commit in [commit for commit, kept in self.points.items() if kept.locked <= self.now][:count]:
            self.store.points.purge(self.store.points.find(commit, deleted=True), now=True)
            del self.points[commit]
        for _ in range(2):
            self.reclaim(below, False)

    @rule(days=st.sampled_from([1, 3, 8, 15]))
    def wait(self, days: int) -> None:
        self._tick()  # else what was read last lies ahead of where the days begin
        self.now += days * DAY
        self._tick()

    # The store

    @rule(below=st.sampled_from([0.0, 0.4, 0.75, 1.0]), elsewhere=st.booleans())
    def reclaim(self, below: float, elsewhere: bool) -> None:
        self._tick()
        store = self.store
        if elsewhere:
            machine = self._machine()
            store = Store(machine, MemoryStorage(machine, objects=self.objects), store.descriptor, store.keyring, None)
        result = store.reclaim(compact_below=below)
        self._forget_what_is_due()
        event(f"compacted: {bool(result.packs_compacted)}")
        event(f"deleted: {bool(result.packs_deleted)}")
        event(f"move of moves: {self._longest_move() > 1}")
        event(f"waited: {bool(result.waiting)}")
        assert set(result.waiting) <= {writing.writer.commit_id for writing in self.open}

    def _longest_move(self) -> int:
        """How many moves lie between a manifest and a chunk, at most."""
        moves = Survey(self.store.context).moves
        longest = 0
        for number, (chunks, _, _) in moves.old.items():
            for position in range(chunks):
                steps, ref = 0, moves.step(number << 32 | position)
                while ref is not None:
                    steps, ref = steps + 1, moves.step(ref)
                longest = max(longest, steps)
        return longest

    @rule(deep=st.booleans())
    def verify(self, deep: bool) -> None:
        report = self.store.verify(deep=deep)

        assert report.findings == []
        assert report.points == len(self.points)

    @rule()
    def stat(self) -> None:
        statistics = self.store.stat()

        assert statistics.points + statistics.deleted_points == len(self.points)
        assert statistics.items == len({kept.item for kept in self.points.values()})

    @rule()
    def rebuild_index(self) -> None:
        self.store.rebuild_index()

    @rule()
    def lose_the_cache(self) -> None:
        shutil.rmtree(self.folder)
        self.folder.mkdir()

    @rule(seed=st.integers(0, 2**32))
    def damage_the_cache(self, seed: int) -> None:
        chance = random.Random(seed)
        for path in self.folder.rglob("*.segment"):
            data = bytearray(path.read_bytes())
            for _ in range(8):
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            path.unlink()  # a new file: the old one may be mapped
            path.write_bytes(data)

    @rule()
    def rekey(self) -> None:
        self.passphrase += 1
        self.store.rekey([opener(b"%d" % self.passphrase)])
        with pytest.raises(WrongKey):
            Store.open(self.machine, self.store.context.storage, [opener(b"%d" % (self.passphrase - 1))])

    @rule(cached=st.booleans())
    def reopen(self, cached: bool) -> None:
        self._tick()
        self.machine = self._machine()
        storage = MemoryStorage(self.machine, objects=self.objects)
        provider = opener(b"%d" % self.passphrase)
        self.store = Store.open(self.machine, storage, [provider], cache=self.folder if cached else None)

    @invariant()
    def points_are_those_of_the_model(self) -> None:
        listed = {point.id: point.deleted_until for point in self.store.points.list(deleted=True)}

        assert listed == {commit: kept.until for commit, kept in self.points.items()}


def _settings(examples: int, steps: int, *, shrink: bool = False) -> settings:
    """Making a failure small can take minutes, which is for the desk and not for every run."""
    return settings(
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def test_model() -> None:
    run_state_machine_as_test(StoreMachine, settings=_settings(300, 50))


@pytest.mark.slow
def test_model_deep() -> None:
    run_state_machine_as_test(StoreMachine, settings=_settings(10_000, 80, shrink=True))
