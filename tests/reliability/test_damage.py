# SPDX-License-Identifier: Apache-2.0
"""Every kind of object, broken in every way: verify says so, and no restore gives wrong bytes.

For each broken store: `verify(deep=True)` raises nothing and names each object that was broken; every point restores
its right bytes or fails with an error of the tree; a point that fails is one that verify called damaged; a point that
needs nothing of what is broken restores.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path

import pytest

from keepstone.errors import KeepstoneError, StorageError
from keepstone.objects import MemoryStorage
from keepstone.store import Store
from keepstone.store.footer import DATA, HEADER_SIZE, TRAILER_SIZE
from keepstone.store.layout import pack_name
from keepstone.store.survey import Survey
from keepstone.store.verify import Verified
from tests.reliability.full import NEW, OLD, Full, kind_of, make
from tests.unit.store.known import Fail, Machine, items, load, save

pytestmark = pytest.mark.store

KINDS = (
    "data pack",
    "metadata pack",
    "point",
    "move",
    "aborted",
    "deleted",
    "head",
    "lease",
    "tomb",
    "waits",
    "verdict",
    "key",
    "descriptor",
    "document",
)
NOBODY_MISSES = {"aborted", "lease", "tomb", "waits", "verdict"}
"""Kinds whose removal cannot be seen: nothing else says that they were there, and without them every point still
restores."""


@pytest.fixture(scope="module")
def full() -> Full:
    return make()


def restored(store: Store, full: Full, commit: str) -> list[bytes] | KeepstoneError:
    """What a restore gives, found as a user finds it: among the deleted ones only where it is one."""
    try:
        return load(store, store.points.find(commit, deleted=commit in full.deleted))
    except KeepstoneError as error:
        return error


def names(report: Verified, name: str) -> bool:
    return any(name == finding.object or name in finding.message for finding in report.findings)


def problems(full: Full, store: Store, broken: Iterable[str], *, silent: bool = False) -> Iterator[str]:
    """What is wrong with how this store, in which these objects are broken, is told of and restored."""
    broken = set(broken)
    try:
        report = store.verify(deep=True)
    except Exception as error:
        yield f"verify raised {error!r}"
        return
    if not silent:
        yield from (f"verify does not name {name}" for name in broken if not names(report, name))
    for commit, chunks in full.points.items():
        found = restored(store, full, commit)
        needed = broken & full.needs[commit]
        if isinstance(found, KeepstoneError):
            if not needed:
                yield f"{commit} needs none of it and does not restore: {found}"
            elif commit not in report.damaged_points and not names(report, f"commits/{commit}"):
                yield f"{commit} does not restore, and verify did not call it damaged: {found}"
        elif found != chunks:
            yield f"{commit} restores wrong bytes"
        if not needed and commit in report.damaged_points:
            yield f"verify calls {commit} damaged, and it needs none of what is broken"


class Bench:
    """Tries broken stores and remembers what went wrong."""

    def __init__(self, full: Full, counts: Counter[str], what: str) -> None:
        self._full, self._counts, self._what = full, counts, what
        self.wrong: dict[str, str] = {}

    def attempt(self, label: str, changes: dict[str, bytes | None], *, silent: bool = False) -> None:
        """A store with these contents (None: removed)."""
        objects = dict(self._full.objects)
        for name, content in changes.items():
            if content is None:
                del objects[name]
            else:
                objects[name] = content
        self._counts[self._what] += 1
        for problem in problems(self._full, self._full.open(objects), changes, silent=silent):
            self.wrong.setdefault(problem, label)

    def settle(self) -> None:
        shown = [f"{label}: {problem}" for problem, label in self.wrong.items()]

        assert shown == [], f"{len(shown)} problems"


@pytest.fixture
def bench(full: Full, counts: Counter[str], request: pytest.FixtureRequest) -> Bench:
    return Bench(full, counts, request.node.originalname.removeprefix("test_").replace("_", " "))


def of_kind(full: Full, kind: str, most: int | None = None) -> list[str]:
    found = [name for name in sorted(full.objects) if kind_of(full, name) == kind]
    assert found, f"the store holds no {kind}"
    return found[:most]


def survivors(full: Full) -> set[str]:
    """What must not go while the points are there: everything that a restore of any of them reads."""
    return set().union(*full.needs.values())


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :]


HOW = ("damaged", "removed", "unreadable")


def unreadable(name: str) -> Fail:
    """A disk that cannot read this object any more."""

    def fail(operation: str, asked: str) -> Exception | None:
        if asked == name and operation in ("read", "read_into"):
            return StorageError(f"{name}: Input/output error; check the disk that it lies on")
        return None

    return fail


def broken_stores(full: Full, kinds: Iterable[str], how: str) -> Iterator[tuple[str, Store]]:
    """(which, the store) with each object of these kinds broken in this way; of the many heads the first and the
    last."""
    for kind in kinds:
        named = of_kind(full, kind)
        for name in named if kind != "head" else named[:2] + named[-3:]:
            objects = dict(full.objects)
            if how == "damaged":
                objects[name] = flipped(objects[name], len(objects[name]) // 2)
            elif how == "removed":
                del objects[name]
            yield name, full.open(objects, fail=unreadable(name) if how == "unreadable" else None)


def stored(store: Store) -> dict[str, bytes]:
    storage = store.context.storage
    assert isinstance(storage, MemoryStorage)
    return storage.objects


# Each object by itself


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("data pack", "metadata pack", "document")])
def test_bit_flip_in_every_byte(full: Full, bench: Bench, kind: str) -> None:
    for number, name in enumerate(of_kind(full, kind)):
        content = full.objects[name]
        step = 1 if number == 0 else max(1, len(content) // 5)  # every byte of one of them, some of the others
        for at in range(0, len(content), step):
            bench.attempt(f"byte {at}", {name: flipped(content, at)})

    bench.settle()


def test_bit_flip_in_a_document(full: Full, bench: Bench) -> None:
    for name in of_kind(full, "document"):
        content = full.objects[name]
        for at in {*range(0, len(content), max(1, len(content) // 40)), len(content) - 1}:
            bench.attempt(f"{name} byte {at}", {name: flipped(content, at)})

    bench.settle()


@pytest.mark.parametrize("kind", ["data pack", "metadata pack"])
def test_bit_flip_in_a_pack(full: Full, bench: Bench, kind: str) -> None:
    survey = Survey(full.open().context)
    footers = {pack_name(pack): survey.packs.footer(pack) for pack in survey.sizes}
    for number, name in enumerate(of_kind(full, kind)):
        content = full.objects[name]
        footer = footers[name]
        end, trailer = footer.offsets[footer.frames], len(content) - TRAILER_SIZE
        frames = [
            at
            for offset, length in zip(footer.offsets, footer.frame_lengths, strict=False)
            for at in (offset, offset + (length - 16) // 2, offset + length - 16, offset + length - 1)
        ]
        columns = [end, end + 1, (end + trailer) // 2, trailer - 17, trailer - 16, trailer - 1]
        edges = [*range(HEADER_SIZE), *range(trailer, len(content))]
        for at in [*(edges if number == 0 else edges[number % 7 :: 13]), *frames, *columns]:
            bench.attempt(f"byte {at} of {name}", {name: flipped(content, at)})

    bench.settle()


@pytest.mark.parametrize("kind", KINDS)
def test_truncation(full: Full, bench: Bench, kind: str) -> None:
    for name in of_kind(full, kind):
        content = full.objects[name]
        for cut in (b"", content[: len(content) // 2], content[:-1], content + b"\0", content + b"\n"):
            if cut != content:
                bench.attempt(f"{len(cut)} of {len(content)} bytes of {name}", {name: cut})

    bench.settle()


@pytest.mark.parametrize("kind", KINDS)
def test_zero_fill(full: Full, bench: Bench, kind: str) -> None:
    for name in of_kind(full, kind):
        content = full.objects[name]
        half = len(content) // 2
        for zeros in (bytes(len(content)), content[:half] + bytes(len(content) - half), bytes(half) + content[half:]):
            if zeros != content:
                bench.attempt(f"zeros in {name}", {name: zeros})

    bench.settle()


@pytest.mark.parametrize("kind", KINDS)
def test_removal(full: Full, bench: Bench, kind: str) -> None:
    newest = max(full.objects.keys() & {name for name in full.objects if name.startswith("heads/")})
    needed = survivors(full)
    for name in of_kind(full, kind):
        # The newest head alone cannot be missed by who never saw it: see `test_rollback_that_this_machine_remembers`.
        garbage = name == "keys/00000001" or ("pack" in kind and name not in needed)
        bench.attempt(f"{name} removed", {name: None}, silent=kind in NOBODY_MISSES or name == newest or garbage)

    bench.settle()


@pytest.mark.parametrize("kind", KINDS)
def test_unreadable(full: Full, counts: Counter[str], kind: str) -> None:
    """A disk that cannot read an object any more is the commonest damage of all."""
    wrong: dict[str, str] = {}
    for name, store in broken_stores(full, [kind], "unreadable"):
        counts["unreadable"] += 1
        for problem in problems(full, store, [name]):
            wrong.setdefault(problem, name)

    assert wrong == {}


# Objects for one another


@pytest.mark.parametrize("kind", KINDS)
def test_swap(full: Full, bench: Bench, kind: str) -> None:
    """This kind with itself and with those that come after it in the list."""
    mine = of_kind(full, kind, 4)
    others = [name for other in KINDS[KINDS.index(kind) + 1 :] for name in of_kind(full, other, 2)]
    for one, other in [*combinations(mine, 2), *((one, other) for one in mine for other in others)]:
        a, b = full.objects[one], full.objects[other]
        if a != b:
            bench.attempt(f"{one} and {other} swapped", {one: b, other: a})

    bench.settle()


@pytest.mark.parametrize("kind", KINDS)
def test_copy(full: Full, bench: Bench, kind: str) -> None:
    """One object in the place of another one, its own still where it was."""
    mine = of_kind(full, kind, 3)
    for name in mine:
        for other in [*mine, *(of_kind(full, other, 1)[0] for other in KINDS)]:
            if full.objects[name] != full.objects[other]:
                bench.attempt(f"{other} in the place of {name}", {name: full.objects[other]})

    bench.settle()


# What was once true


def test_rollback_of_a_marker(full: Full, bench: Bench) -> None:
    """A point was deleted, undeleted and deleted again; the first marker, with its earlier date, is put back."""
    name, content = full.old_marker
    assert full.objects[name] != content

    bench.attempt("old marker", {name: content})

    bench.settle()


def test_marker_removed_by_rollback(full: Full, bench: Bench) -> None:
    bench.attempt("marker removed", {full.old_marker[0]: None})

    bench.settle()


def test_marker_put_back(full: Full, bench: Bench) -> None:
    """An undeleted point is hidden, and would be purged at the old date."""
    name, content = full.undeleted
    assert name not in full.objects

    commit = name.removeprefix("deleted/")
    objects = full.objects | {name: content}
    store = full.open(objects)

    assert names(store.verify(), name)
    assert load(store, store.points.find(commit, deleted=True)) == full.points[commit]

    bench.settle()


@pytest.mark.parametrize("with_marker", [False, True])
def test_purged_point_put_back(full: Full, counts: Counter[str], with_marker: bool) -> None:
    commit, cell, marker = full.purged
    objects = full.objects | {f"commits/{commit}": cell}
    if with_marker:
        objects[f"deleted/{commit}"] = marker
    store = full.open(objects)

    report = store.verify(deep=True)
    counts["purged put back"] += 1

    if not with_marker:  # with it, it is what a crash in the middle of a purge leaves
        assert names(report, f"commits/{commit}")
    for other, chunks in full.points.items():
        assert restored(store, full, other) == chunks


def test_keys_put_back(full: Full) -> None:
    """After a rotation the old keys object is put back and the new one removed: the passphrase that was rotated out
    opens the store."""
    objects = dict(full.objects)
    del objects["keys/00000002"]
    env = Machine(9)
    store = Store.open(env, MemoryStorage(env, objects=objects), [OLD])

    assert names(store.verify(), "keys/")


def test_old_keys_beside_the_new(full: Full) -> None:
    """The keys object of the passphrase that was rotated out is under the name of the new one."""
    objects = full.objects | {"keys/00000002": full.objects["keys/00000001"]}
    env = Machine(9)
    try:
        store = Store.open(env, MemoryStorage(env, objects=objects), [OLD])
    except KeepstoneError:
        return

    assert names(store.verify(), "keys/00000002")


def test_rollback_that_this_machine_remembers(full: Full, tmp_path: Path) -> None:
    full.open(cache=tmp_path).verify()
    heads = sorted(name for name in full.objects if name.startswith("heads/"))
    for count in range(1, len(heads)):
        older = {name: content for name, content in full.objects.items() if name not in heads[-count:]}

        report = full.open(older, cache=tmp_path).verify()

        assert "RollbackDetected" in {finding.code for finding in report.findings}


def test_rollback_of_the_whole_store(tmp_path: Path) -> None:
    """Set back to an older copy, and then written to until the chain is as long as it was, and longer."""
    machine = Machine(3)
    objects: dict[str, bytes] = {}
    store = Store.init(machine, MemoryStorage(machine, objects=objects), [NEW], cache=tmp_path)
    save(store, items("ABC"))
    older = dict(objects)
    save(store, items("ABD"))
    assert store.verify().ok
    objects.clear()
    objects.update(older)
    other = Store.open(Machine(4, beside=machine), MemoryStorage(machine, objects=objects), [NEW])

    for letters in ("", "X", "Y", "Z"):
        if letters:
            save(other, items(letters))
        report = store.verify()

        assert [finding.code for finding in report.findings] == ["RollbackDetected"]
        assert load(store, "latest") == items(letters or "ABC")


def test_rollback_after_a_backup(tmp_path: Path) -> None:
    """What this machine wrote it has seen: nobody needs to have verified it before."""
    machine = Machine(3)
    objects: dict[str, bytes] = {}
    store = Store.init(machine, MemoryStorage(machine, objects=objects), [NEW], cache=tmp_path)
    save(store, items("ABC"))
    older = dict(objects)
    save(store, items("ABD"))
    objects.clear()
    objects.update(older)

    assert [finding.code for finding in store.verify().findings] == ["RollbackDetected"]


# Several at once


def test_damage_to_a_head_hides_nothing_else(full: Full) -> None:
    """The log is damaged *and* a point is gone: both are told."""
    head, commit = sorted(name for name in full.objects if name.startswith("heads/"))[3], next(iter(full.points))
    objects = full.objects | {head: flipped(full.objects[head], 50)}
    del objects[f"commits/{commit}"]

    report = full.open(objects).verify(deep=True)

    assert names(report, head)
    assert names(report, f"commits/{commit}")


def test_every_missing_pack_is_named(full: Full) -> None:
    """Data packs; what is named only in a metadata pack that is gone, nobody can name."""
    survey = Survey(full.open().context)
    packs = [
        pack_name(pack)
        for pack in survey.sizes
        if survey.packs.footer(pack).kind == DATA and any(pack_name(pack) in need for need in full.needs.values())
    ]
    objects = {name: content for name, content in full.objects.items() if name not in packs}

    report = full.open(objects).verify(deep=True)

    assert {name for name in packs if not names(report, name)} == set()


@pytest.mark.parametrize(
    "name", ["packs/ab/README", "packs/ab/abcd", "packs/README", "heads/README", "keys/README", "commits/README"]
)
def test_a_foreign_file_is_no_reason_to_stop(full: Full, name: str) -> None:
    """A file manager, a virus scanner or a person leaves a file in the store's folder."""
    objects = full.objects | {name: b"hello"}
    store = full.open(objects)

    store.verify(deep=True)
    commit = save(store, items("new"))

    assert load(store, commit) == items("new")
    for other, chunks in full.points.items():
        assert restored(store, full, other) == chunks


# Opening a broken store


@pytest.mark.parametrize("kind", ["descriptor", "key"])
def test_opening_a_broken_store(full: Full, counts: Counter[str], kind: str) -> None:
    name = of_kind(full, kind)[-1]
    content = full.objects[name]
    env = Machine(9)
    for at in range(len(content)):
        objects = full.objects | {name: flipped(content, at)}
        counts["opening"] += 1
        with pytest.raises(KeepstoneError):
            Store.open(env, MemoryStorage(env, objects=objects), [NEW])


# Going on


ALPHA = "ABCDEfGHIJKLMN"


def backed_up(store: Store, *, letters: str = ALPHA) -> str:
    """Why a backup of the item alpha, made now, is no good; empty where it is."""
    try:
        commit = save(store, items(letters), "alpha")
    except KeepstoneError as error:
        return f"the backup failed: {error}"
    try:
        return "" if load(store, store.points.find(commit)) == items(letters) else "wrong bytes"
    except KeepstoneError as error:
        return f"the new point does not restore: {error}"


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("tomb", "descriptor")])
def test_backup_after_damage(full: Full, counts: Counter[str], kind: str, how: str) -> None:
    """What is broken is seen by a verify first, where data is broken that a backup has no other way to know of."""
    wrong = {}
    for name, store in broken_stores(full, [kind], how):
        counts["backup after damage"] += 1
        if kind == "data pack":
            store.verify(deep=True)
        why = backed_up(store)
        if why:
            wrong[name] = why

    assert wrong == {}


def test_backup_without_its_condemned_list(full: Full) -> None:
    """A damaged tombstone: a writer must not go on without knowing what is condemned. It says so and leaves nothing."""
    name = of_kind(full, "tomb")[0]
    objects = full.objects | {name: flipped(full.objects[name], 60)}
    store = full.open(objects)

    with pytest.raises(KeepstoneError, match=name):
        save(store, items(ALPHA), "alpha")

    assert stored(store) == objects


@pytest.mark.parametrize("where", ["header", "frame", "footer", "trailer", "removed", "emptied"])
def test_backup_stores_damaged_chunks_again(full: Full, counts: Counter[str], where: str) -> None:
    """Old data packs are damaged, all that the item has; after a deep verify the next backup brings what is lost."""
    survey = Survey(full.open().context)
    objects = dict(full.objects)
    for pack in survey.sizes:
        footer, name = survey.packs.footer(pack), pack_name(pack)
        if footer.kind != DATA:
            continue
        content = objects.pop(name)
        at = {
            "header": 30,
            "frame": HEADER_SIZE + 5,
            "footer": footer.offsets[footer.frames] + 5,
            "trailer": len(content) - TRAILER_SIZE + 10,
        }
        if where in at:
            objects[name] = flipped(content, at[where])
        elif where == "emptied":
            objects[name] = b""
    store = full.open(objects)
    assert not store.verify(deep=True).ok
    counts["backup after damage"] += 1

    assert backed_up(store) == ""


# Reclaim


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", KINDS)
def test_reclaim_meets_damage(full: Full, counts: Counter[str], kind: str, how: str) -> None:
    """Whatever is broken, a reclaim deletes nothing that a point needs."""
    wrong = {}
    for name, store in broken_stores(full, [kind], how):
        counts["reclaim after damage"] += 1
        before = set(stored(store))
        for _ in range(2):
            with contextlib.suppress(KeepstoneError):
                store.reclaim()
        lost = (before - set(stored(store))) & survivors(full)
        # Compaction may have moved what it deletes: then the points must still restore.
        failing = [
            commit
            for commit, chunks in full.points.items()
            if name not in full.needs[commit] and restored(store, full, commit) != chunks
        ]
        if lost and failing:
            wrong[name] = f"deleted {sorted(lost)}; {failing} restore no more"

    assert wrong == {}


@pytest.mark.parametrize("kind", ["metadata pack", "point", "move"])
@pytest.mark.parametrize("how", HOW)
def test_reclaim_refuses(full: Full, counts: Counter[str], kind: str, how: str) -> None:
    """Where the mark cannot see what a point needs, nothing at all is deleted."""
    wrong = {}
    for name, store in broken_stores(full, [kind], how):
        if name not in survivors(full):
            continue
        counts["reclaim refused"] += 1
        kept = {other for other in stored(store) if other.startswith(("packs/", "commits/", "tombs/"))}
        refused = False
        try:
            store.reclaim()
        except KeepstoneError:
            refused = True
        gone = kept - set(stored(store))
        if gone or not refused:
            wrong[name] = f"refused: {refused}, deleted: {sorted(gone)}"

    assert wrong == {}


def test_reclaim_goes_on_beside_damage_that_nobody_needs(full: Full) -> None:
    """A damaged pack that no point needs is garbage like any other: it must not keep the space of the rest for ever."""
    needed = survivors(full)
    dead = next(name for name in of_kind(full, "data pack") if name not in needed)
    objects = full.objects | {dead: flipped(full.objects[dead], len(full.objects[dead]) - 50)}
    store = full.open(objects)

    store.reclaim()
    store.reclaim()

    assert dead not in stored(store)
    assert store.verify(deep=True).ok


def test_damaged_points_can_be_got_rid_of(full: Full) -> None:
    """The way out of damage: purge the points that it hit, reclaim, and the store is whole again."""
    name = next(name for name in of_kind(full, "metadata pack") if any(name in needs for needs in full.needs.values()))
    objects = full.objects | {name: flipped(full.objects[name], 80)}
    store = full.open(objects)
    for commit in store.verify(deep=True).damaged_points:
        store.points.purge(store.points.find(commit, deleted=True), now=True)

    store.reclaim()
    store.reclaim()

    assert store.verify(deep=True).findings == []
