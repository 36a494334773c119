# SPDX-License-Identifier: Apache-2.0
"""What the actors do: writers, forget, reclaim with compaction, and somebody who revokes leases, over one store.

The real store code runs over the memory backend. Every point's chunks are known here, so after each schedule every
acknowledged point, and every visible one, is restored and compared; then the store is reclaimed in peace and all is
compared again.

A schedule starts from one of the `BEGINNINGS`. What it takes a long row of events to come to, and so would hardly
ever be seen by chance, is the state that some of the schedules start from.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache

from keepstone.crypto import Argon2Cost, Keyring, PassphraseProvider
from keepstone.errors import KeepstoneError, LeaseLost, PointNotFound, StorageError
from keepstone.objects import MemoryStorage, ObjectInfo
from keepstone.store import Chunks, Outcome, Point, Scratch, Store, chain
from keepstone.store.descriptor import Descriptor
from keepstone.store.leases import Leases

from .world import Killed, World

__all__ = ["BEGINNINGS", "Result", "prepare", "run_schedule"]

_SIZE = 64
_ITEM = "disk"


def _chunk(letter: str) -> bytes:
    return (letter * _SIZE).encode()


@dataclass(slots=True)
class Result:
    """`problems`: what was lost or broken; empty for a good schedule. `trace` names the schedule."""

    seed: int
    problems: list[str]
    trace: tuple[int, ...]
    steps: int
    lost_leases: int
    killed: int
    swept: int


@dataclass(slots=True)
class _Tally:
    acknowledged: dict[str, str] = field(default_factory=dict)
    lost_leases: int = 0
    lost_replies: int = 0
    swept: int = 0


def backup(store: Store, letters: str, item: str = _ITEM, meanwhile: Callable[[], object] = lambda: None) -> str:
    """A point whose chunks are these letters; unchanged ones come from the parent, as workloads do it. `meanwhile`
    happens when the writer has begun."""
    with store.writer(item, "letters") as writer:
        meanwhile()
        parent: dict[int, int] = {}
        roots = writer.parent_root()
        if roots:
            node = writer.node(roots[0])
            refs = writer.chunk_refs(node)
            before = node.body.decode()
            usable = writer.usable(refs)
            # what did not change is not read again: its places are taken over as they are
            parent = {ord(letter): ref for letter, ref in zip(before, usable or (), strict=False)}
        places: dict[int, int] = {index: parent[ord(x)] for index, x in enumerate(letters) if ord(x) in parent}
        for index, letter in enumerate(letters):
            if index in places:
                continue

            def read(scratch: Scratch, letter: str = letter) -> Chunks:
                scratch.view[:_SIZE] = _chunk(letter)
                return Chunks(scratch.view[:_SIZE], [_SIZE], [], None)

            writer.submit(read, lambda refs, _, index=index: places.__setitem__(index, refs[0]))  # type: ignore[misc]
        writer.drain()
        root = writer.put_node("letters", [places[index] for index in range(len(letters))], [], letters.encode())
        size = _SIZE * len(letters)
        outcome = Outcome(root=[root], detail=b"", source=b"/", logical=size, read=size, files=1, warnings=0)
        return writer.commit(outcome)


def restore(store: Store, point: Point) -> str:
    """The letters of a point, out of its chunks."""
    with store.reader(point) as reader:
        node = reader.node(reader.root()[0])
        found: dict[int, bytes] = {}
        reader.fetch(
            [(ref, index) for index, ref in enumerate(reader.chunk_refs(node))],
            lambda index, data: found.__setitem__(index, bytes(data)),
        )
        letters = "".join(chr(found[index][0]) for index in sorted(found))
        if [found[index] for index in sorted(found)] != [
            _chunk(letter) for letter in letters
        ] or letters != node.body.decode():
            raise AssertionError("wrong bytes")
        return letters


# The first heads are the same in every schedule, and every actor checks all of them; the function is a pure one.
chain.verify = lru_cache(maxsize=1 << 14)(chain.verify)  # type: ignore[attr-defined]


class _Storage(MemoryStorage):
    """As unhelpful as a real storage may be: a listing is no snapshot, and now and then a reply is lost."""

    def __init__(self, world: World, objects: dict[str, bytes]) -> None:
        super().__init__(world, objects=objects, fail=self._lose)
        self._world = world
        self._loss = world.scheduler.rng.choice((0.0, 0.0, 0.01))

    def _lose(self, operation: str, name: str) -> Exception | None:
        scheduler = self._world.scheduler
        if not operation.endswith(" reply") or scheduler.actor < 0 or scheduler.rng.random() >= self._loss:
            return None
        return StorageError(f"the reply to {operation} {name} was lost; look what is there, then go on")

    def _listing(self, prefix: str) -> Iterator[ObjectInfo]:
        for info in super()._listing(prefix):
            self._world.step("list on")
            yield info


def _two_points(store: Store) -> dict[str, str]:
    return {backup(store, "ABDE"): "ABDE", backup(store, "XY", "other"): "XY"}


def _condemned_and_needed(store: Store) -> dict[str, str]:
    """A tombstone whose leases are over, and a point that needs what it condemns: its writer had begun before."""
    first = backup(store, "ABDE")

    def condemn() -> None:
        store.points.purge(store.points.find(first), now=True)
        if not store.reclaim().waiting:
            raise AssertionError("the tombstone does not wait for the writer")

    return {backup(store, "DE", meanwhile=condemn): "DE", backup(store, "XY", "other"): "XY"}


BEGINNINGS: tuple[Callable[[Store], dict[str, str]], ...] = (_two_points, _condemned_and_needed)
"""What the store holds when the actors begin: each makes it and gives the letters of its points."""


@cache
def _beginning(which: int) -> tuple[dict[str, bytes], Descriptor, Keyring, dict[str, str]]:
    """The objects of a store, what opens it, and its points. Made once; every schedule starts from a copy."""
    world = World(0)
    storage = MemoryStorage(world)
    provider = PassphraseProvider(b"explore", cost=Argon2Cost(iterations=1, memory_kib=64, lanes=1), weak=True)
    store = Store.init(world, storage, [provider])
    points = BEGINNINGS[which](store)
    return dict(storage.objects), store.descriptor, store.keyring, points


def prepare() -> None:
    """Make the beginnings, while the product is whole: no variant is to take part in that."""
    for which in range(len(BEGINNINGS)):
        _beginning(which)


def run_schedule(seed: int) -> Result:
    """Run one schedule and look at what is left."""
    objects, descriptor, keyring, points = _beginning(seed % len(BEGINNINGS))
    world = World(seed)
    objects = dict(objects)
    tally = _Tally(dict(points))
    rng = world.scheduler.rng

    def store() -> Store:
        return Store(world, _Storage(world, objects), descriptor, keyring, None)

    def write(plans: list[tuple[str, str]]) -> None:
        mine = store()
        for item, letters in plans:
            try:
                commit = backup(mine, letters, item)
            except LeaseLost:
                tally.lost_leases += 1
            except StorageError:
                tally.lost_replies += 1  # not acknowledged; it may be there all the same
            else:
                tally.acknowledged[commit] = letters

    def late() -> None:
        for _ in range(rng.randrange(200)):
            world.step("not yet")
        write([("third", "DXE")])

    def forget() -> None:
        mine = store()
        for point in mine.points.list():
            if point.id in points and point.record.item == _ITEM:
                with contextlib.suppress(PointNotFound, StorageError):
                    tally.acknowledged.pop(point.id, None)
                    mine.points.purge(point, now=True)

    def collect() -> None:
        mine = store()
        for _ in range(2):
            try:
                tally.swept += mine.reclaim().packs_deleted
            except LeaseLost:
                tally.lost_leases += 1
            except StorageError:
                tally.lost_replies += 1

    def revoke() -> None:
        mine = store()
        leases = Leases(mine.context, mine.commits)
        for _ in range(rng.randrange(1, 4)):
            for commit in leases.names():
                with contextlib.suppress(StorageError):
                    mine.commits.abort(commit)
                    if rng.random() < 0.5:
                        leases.release(commit)

    plans = (
        [(_ITEM, "ABC")],
        [(_ITEM, "AC"), (_ITEM, "ACF")],
        [("third", "DXC")],
    )
    if seed % len(BEGINNINGS):  # few, for what can go wrong here takes every one of them in its place
        actors = [(late, True), (forget, False), (collect, True), (collect, True)]
    else:
        actors = [
            (lambda: write(plans[0]), True),
            (lambda: write(plans[rng.choice((1, 2))]), True),
            (forget, False),
            (collect, True),
        ]
        if rng.random() < 0.4:
            actors.append((collect, True))
    if rng.random() < 0.3:
        actors.append((revoke, False))
    world.scheduler.run(actors)
    problems = [f"{type(error).__name__}: {error}" for error in world.scheduler.errors if not isinstance(error, Killed)]
    if not problems:
        problems = _look(store(), tally)
    if not problems:
        with contextlib.suppress(LeaseLost):
            store().reclaim()
            store().reclaim()
        problems = [f"after reclaim: {problem}" for problem in _look(store(), tally)]
    scheduler = world.scheduler
    return Result(
        seed,
        problems,
        tuple(scheduler.trace),
        len(scheduler.trace),
        tally.lost_leases,
        len(scheduler.dead),
        tally.swept,
    )


def _look(store: Store, tally: _Tally) -> list[str]:
    problems = []
    try:
        visible = {point.id: point for point in store.points.list(deleted=True)}
    except KeepstoneError as error:
        return [f"list: {error}"]
    for commit, letters in tally.acknowledged.items():
        if commit not in visible:
            problems.append(f"acknowledged point {commit} ({letters}) is gone")
    for commit, point in visible.items():
        try:
            letters = restore(store, point)
        except (KeepstoneError, AssertionError) as error:
            problems.append(f"visible point {commit} does not restore: {error}")
            continue
        if tally.acknowledged.get(commit, letters) != letters:
            problems.append(f"point {commit} restores {letters}, not {tally.acknowledged[commit]}")
    if not problems:
        report = store.verify()
        problems += [f"verify: {finding.object}: {finding.message}" for finding in report.findings]
    return problems
