# SPDX-License-Identifier: Apache-2.0
"""The journal: what is appended is read again, in order and whole, or the reader is told which entry is wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from keepstone.crypto import DomainKeys, PassphraseProvider, hashing
from keepstone.errors import CorruptObject, ObjectExists, ObjectMissing, StorageError, UsageError
from keepstone.objects import FolderStorage, MemoryStorage, ObjectStorage
from keepstone.store import Journal, Store, journal, rescue
from keepstone.store.context import Context
from keepstone.store.layout import journal_name
from tests.unit.store.known import Failing, Machine, items, kit_of, load, new_store, opener, save

pytestmark = pytest.mark.store

Change = Callable[[bytes], bytes]


def body(sequence: int) -> bytes:
    return b"entry %d" % sequence


def fill(journal: Journal, last: int, snapshots: Sequence[int] = ()) -> list[tuple[int, bytes]]:
    """Entries 1 to `last`; what a reader gets of them."""
    for sequence in range(1, last + 1):
        journal.append(sequence, body(sequence), snapshot=sequence in snapshots)
    return [(sequence, body(sequence)) for sequence in range(max([1, *snapshots]), last + 1)]


def beside(
    store: Store, objects: dict[str, bytes], fail: Callable[[str, str], Exception | None] | None = None
) -> Store:
    """The same store in another process."""
    env = Machine(7)
    return Store(env, MemoryStorage(env, objects=objects, fail=fail), store.descriptor, store.keyring, None)


def told(store: Store) -> dict[str, str]:
    """What verify says: object → code."""
    return {finding.object: finding.code for finding in store.verify().findings}


# What is written is read


def test_round_trip(storage: ObjectStorage, machine: Machine, provider: PassphraseProvider) -> None:
    written = Store.init(machine, storage, [provider]).journal
    assert (list(written.entries()), written.newest(), written.count()) == ([], 0, 0)
    for sequence, content in enumerate([b"one", b"", bytes(70_000)], 1):
        written.append(sequence, content)

    store = Store.open(machine, storage, [provider])

    assert list(store.journal.entries()) == [(1, b"one"), (2, b""), (3, bytes(70_000))]
    assert (store.journal.newest(), store.journal.count()) == (3, 3)
    assert store.verify().ok


def test_in_order_of_numbers(storage: ObjectStorage, machine: Machine, provider: PassphraseProvider) -> None:
    journal = Store.init(machine, storage, [provider]).journal

    assert fill(journal, 101) == list(journal.entries())


@pytest.mark.parametrize(("after", "first"), [(0, 1), (1, 2), (4, 5), (5, 6), (99, 6)])
def test_what_is_not_known_yet(store: Store, after: int, first: int) -> None:
    entries = fill(store.journal, 5)

    assert list(store.journal.entries(after)) == entries[first - 1 :]


def test_nothing_of_it_is_in_clear(store: Store, memory: MemoryStorage) -> None:
    store.journal.append(1, b"a policy of somebody", snapshot=True)

    stored = memory.objects[journal_name(1)]
    assert b"policy" not in stored
    assert b"snapshot" not in stored


def test_an_entry_is_one_put(storage: ObjectStorage, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is durable when it returns; tests/crash has the power fail."""
    steps: list[str] = []
    store = Store.init(machine, storage, [opener()])
    monkeypatch.setattr(machine, "step", steps.append)
    fill(store.journal, 2)

    assert steps == [f"put {journal_name(1)}", f"put {journal_name(2)}"]


def test_storage_and_recovery_kit_suffice(store: Store, memory: MemoryStorage) -> None:
    entries = fill(store.journal, 3)
    kit = kit_of(store)
    for name in [name for name in memory.objects if name.startswith("keys/")]:
        del memory.objects[name]

    assert list(Store.open_by_kit(Machine(7), memory, kit).journal.entries()) == entries


def test_points_come_and_go_beside_it(store: Store) -> None:
    entries = fill(store.journal, 3)
    gone = save(store, items("ABCD"))
    kept = save(store, items("wxyz"), "other")
    store.points.purge(store.points.find(gone), now=True)
    store.reclaim()
    store.rekey([opener(b"another")])

    assert list(store.journal.entries()) == entries
    assert load(store, kept) == items("wxyz")
    assert store.verify(deep=True).ok
    assert store.stat().journal == 3


def test_other_things_in_its_folder_are_none_of_it(store: Store, memory: MemoryStorage) -> None:
    entries = fill(store.journal, 2)
    for name in ("journal/3", "journal/000000000000000x", journal_name(3) + ".tmp", journal_name(3) + "/1"):
        memory.objects[name] = b"something"

    assert list(store.journal.entries()) == entries
    assert store.verify().ok


# Twice, and beyond the limits


@pytest.mark.parametrize("snapshot", [False, True])
def test_the_same_twice(store: Store, memory: MemoryStorage, snapshot: bool) -> None:
    store.journal.append(1, b"one", snapshot=snapshot)
    before = dict(memory.objects)
    store.journal.append(1, b"one", snapshot=snapshot)

    assert memory.objects == before
    for content, flag in ((b"two", snapshot), (b"one", not snapshot)):
        with pytest.raises(ObjectExists, match=f"{journal_name(1)}.* entry 1 .*read the journal first"):
            store.journal.append(1, content, snapshot=flag)
    assert memory.objects == before


def test_a_reply_that_was_lost(store: Store, memory: MemoryStorage) -> None:
    fail = Failing("put reply journal/", StorageError("no answer"), times=1)
    other = beside(store, memory.objects, fail).journal
    with pytest.raises(StorageError):
        other.append(1, b"one")
    other.append(1, b"one")

    assert list(store.journal.entries()) == [(1, b"one")]


def test_twice_where_the_first_is_damaged(store: Store, memory: MemoryStorage) -> None:
    store.journal.append(1, b"one")
    memory.objects[journal_name(1)] += b"!"

    with pytest.raises(CorruptObject, match=journal_name(1)):
        store.journal.append(1, b"one")


@pytest.mark.parametrize("sequence", [-1, 0, 10**16])
def test_numbers_that_are_none(store: Store, memory: MemoryStorage, sequence: int) -> None:
    before = dict(memory.objects)

    with pytest.raises(UsageError, match=f"entry {sequence};"):
        store.journal.append(sequence, b"")
    assert memory.objects == before


def test_the_longest_body(store: Store, memory: MemoryStorage) -> None:
    store.journal.append(1, bytes(journal.BODY_LIMIT))

    ((_, content),) = store.journal.entries()
    assert content == bytes(64 << 20)
    with pytest.raises(UsageError, match=f"entry 2 .* {(64 << 20) + 1} bytes"):
        store.journal.append(2, bytes((64 << 20) + 1))
    assert journal_name(2) not in memory.objects


def test_no_more_is_read_than_an_entry_can_have(
    store: Store, memory: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store.journal, 1)
    asked: list[int | None] = []
    read = memory.read

    def spy(name: str, offset: int = 0, length: int | None = None) -> bytes:
        asked.append(length)
        return read(name, offset, length)

    monkeypatch.setattr(memory, "read", spy)
    assert list(store.journal.entries())
    (most,) = set(asked)
    assert most is not None
    assert journal.BODY_LIMIT < most < journal.BODY_LIMIT + (1 << 20)


# What is missing


@pytest.mark.parametrize("missing", [1, 3, 4])
def test_a_gap(storage: ObjectStorage, machine: Machine, provider: PassphraseProvider, missing: int) -> None:
    store = Store.init(machine, storage, [provider])
    fill(store.journal, 5)
    storage.delete(journal_name(missing))

    with pytest.raises(ObjectMissing, match=f"{journal_name(missing)} is gone: entry {missing} of the journal; .*copy"):
        next(store.journal.entries())
    assert told(store) == {journal_name(missing): "ObjectMissing"}
    assert list(store.journal.entries(missing)) == [(number, body(number)) for number in range(missing + 1, 6)]


def test_every_gap_is_told(store: Store, memory: MemoryStorage) -> None:
    fill(store.journal, 9)
    for missing in (1, 2, 5, 7, 8):
        del memory.objects[journal_name(missing)]

    assert told(store) == {journal_name(last): "ObjectMissing" for last in (2, 5, 8)}


def test_what_was_cut_off_at_the_end_cannot_be_seen(store: Store, memory: MemoryStorage) -> None:
    """Only who knows how far it went sees it. This test is there to be changed when that is no longer so."""
    entries = fill(store.journal, 5)
    del memory.objects[journal_name(5)]

    assert list(store.journal.entries()) == entries[:-1]
    assert store.verify().ok
    assert store.journal.newest() == 4


# What is not what was written


def test_damage_of_every_byte(store: Store, memory: MemoryStorage) -> None:
    fill(store.journal, 3)
    name = journal_name(2)
    sound = memory.objects[name]
    broken = [sound[:at] + bytes([sound[at] ^ 1 << at % 8]) + sound[at + 1 :] for at in range(len(sound))]
    broken += [sound[:cut] for cut in range(0, len(sound), 7)] + [sound + b"\0", bytes(len(sound)), b"rubbish"]
    for content in broken:
        memory.objects[name] = content
        with pytest.raises(CorruptObject, match=f"{name} .*restore it from a copy, or let a service .* snapshot"):
            next(store.journal.entries())
        assert [name for name, _ in store.journal.check()] == [name]
    assert told(store) == {name: "CorruptObject"}


@pytest.mark.parametrize("change", ["swap", "copy"])
def test_entries_do_not_stand_for_one_another(store: Store, memory: MemoryStorage, change: str) -> None:
    fill(store.journal, 4)
    one, other = journal_name(2), journal_name(3)
    first, second = memory.objects[one], memory.objects[other]
    memory.objects[one] = second
    if change == "swap":
        memory.objects[other] = first

    with pytest.raises(CorruptObject, match=other if change == "swap" else one):
        next(store.journal.entries())
    assert set(told(store)) == ({one, other} if change == "swap" else {one})


def test_an_old_entry_does_not_come_last(store: Store, memory: MemoryStorage) -> None:
    fill(store.journal, 3)
    memory.objects[journal_name(4)] = memory.objects[journal_name(2)]

    with pytest.raises(CorruptObject, match=journal_name(4)):
        next(store.journal.entries())


@pytest.mark.parametrize("keys", ["its own", "the same"])
def test_an_entry_of_another_store(store: Store, memory: MemoryStorage, keys: str) -> None:
    other = new_store(Machine(5))
    context = other.context if keys == "its own" else replace(store.context, store_id=other.context.store_id)
    context = replace(context, storage=MemoryStorage(context.env))
    Journal(context).append(1, b"one")
    assert list(Journal(context).entries()) == [(1, b"one")]
    memory.objects[journal_name(1)] = context.storage.read(journal_name(1))

    with pytest.raises(CorruptObject, match=journal_name(1)):
        next(store.journal.entries())
    assert told(store) == {journal_name(1): "CorruptObject"}


def test_another_kind_of_object(store: Store, memory: MemoryStorage) -> None:
    fill(store.journal, 1)
    name = journal_name(1)
    text = store.context.read_sealed("journal", name)
    memory.objects[name] = store.context.seal("deleted", name, text)

    with pytest.raises(CorruptObject, match=name):
        next(store.journal.entries())


@pytest.mark.parametrize("text", [b"", b"\xc1", msgspec.msgpack.encode([True, b"one"]), b"\x81\xa4body\xc4\x00"])
def test_what_has_been_sealed_and_is_no_entry(store: Store, text: bytes) -> None:
    store.context.put_sealed("journal", journal_name(1), text)

    with pytest.raises(CorruptObject, match=journal_name(1)):
        next(store.journal.entries())


def test_more_than_this_version_knows(store: Store) -> None:
    """New keys of a map are to be ignored."""
    text = msgspec.msgpack.encode({"body": b"one", "later": [1], "snapshot": False})
    store.context.put_sealed("journal", journal_name(1), text)

    assert list(store.journal.entries()) == [(1, b"one")]


def test_rubbish_under_the_last_number(store: Store, memory: MemoryStorage) -> None:
    """Ten thousand billion numbers are missing before it; nobody counts them."""
    fill(store.journal, 2)
    name = journal_name(10**16 - 1)
    memory.objects[name] = b"rubbish"

    with pytest.raises(CorruptObject, match=name):
        next(store.journal.entries())
    assert told(store) == {name: "CorruptObject"}


def test_what_the_storage_cannot_read(store: Store, memory: MemoryStorage) -> None:
    fill(store.journal, 3)
    other = beside(store, memory.objects, Failing(f"read {journal_name(2)}", StorageError("broken disk")))

    with pytest.raises(StorageError):
        next(other.journal.entries())
    assert told(other) == {journal_name(2): "StorageError"}


# Snapshots


@pytest.mark.parametrize("snapshots", [(1,), (3,), (5,), (2, 4), (1, 2, 3, 4, 5)])
def test_reading_begins_with_the_newest_snapshot(store: Store, snapshots: tuple[int, ...]) -> None:
    entries = fill(store.journal, 5, snapshots)

    assert list(store.journal.entries()) == entries
    assert entries[0][0] == max(snapshots)
    for after in range(7):
        assert list(store.journal.entries(after)) == [entry for entry in entries if entry[0] > after]


@pytest.mark.parametrize("gone", [(1,), (2,), (1, 2, 3)])
def test_a_gap_before_it_means_nothing(store: Store, memory: MemoryStorage, gone: tuple[int, ...]) -> None:
    entries = fill(store.journal, 6, [4])
    for sequence in gone:
        del memory.objects[journal_name(sequence)]

    assert list(store.journal.entries()) == entries
    assert store.verify().ok


@pytest.mark.parametrize("missing", [4, 5])
def test_a_gap_behind_it_is_one(store: Store, memory: MemoryStorage, missing: int) -> None:
    """Where the snapshot itself is missing, the reader goes on towards an older one, and sees that something is."""
    fill(store.journal, 6, [4])
    del memory.objects[journal_name(missing)]

    with pytest.raises(ObjectMissing, match=f"entry {missing} "):
        next(store.journal.entries())
    assert told(store) == {journal_name(missing): "ObjectMissing"}


def test_damage_before_it_is_told_and_not_in_the_way(store: Store, memory: MemoryStorage) -> None:
    entries = fill(store.journal, 6, [4])
    memory.objects[journal_name(2)] = b"rubbish"

    assert list(store.journal.entries()) == entries
    assert told(store) == {journal_name(2): "CorruptObject"}
    store.journal.drop(4)
    assert store.verify().ok


def test_a_damaged_snapshot_is_not_called_a_gap(store: Store, memory: MemoryStorage) -> None:
    fill(store.journal, 6, [4])
    store.journal.drop(4)
    memory.objects[journal_name(4)] = b"rubbish"

    assert told(store) == {journal_name(4): "CorruptObject"}


@pytest.mark.parametrize("what", ["gap", "damage"])
def test_a_new_snapshot_mends_it(store: Store, memory: MemoryStorage, what: str) -> None:
    fill(store.journal, 5)
    if what == "gap":
        del memory.objects[journal_name(3)]
    else:
        memory.objects[journal_name(3)] = b"rubbish"
    store.journal.append(6, b"everything", snapshot=True)
    store.journal.drop(6)

    assert list(store.journal.entries()) == [(6, b"everything")]
    assert store.verify().ok


def test_drop(storage: ObjectStorage, machine: Machine, provider: PassphraseProvider) -> None:
    journal = Store.init(machine, storage, [provider]).journal
    entries = fill(journal, 6, [2, 4])
    for before, left in ((2, [2, 3, 4, 5, 6]), (4, [4, 5, 6]), (4, [4, 5, 6])):
        journal.drop(before)

        assert sorted(info.name for info in storage.list("journal/")) == [journal_name(number) for number in left]
        assert list(journal.entries()) == entries


@pytest.mark.parametrize("before", [3, 5, 9])
def test_nothing_is_dropped_before_what_is_no_snapshot(store: Store, memory: MemoryStorage, before: int) -> None:
    fill(store.journal, 6, [4])
    kept = dict(memory.objects)

    with pytest.raises(ObjectMissing if before == 9 else UsageError, match=f"entry {before} "):
        store.journal.drop(before)
    assert memory.objects == kept


def test_nothing_is_dropped_before_a_damaged_snapshot(store: Store, memory: MemoryStorage) -> None:
    fill(store.journal, 6, [4])
    memory.objects[journal_name(4)] = b"rubbish"
    kept = dict(memory.objects)

    with pytest.raises(CorruptObject):
        store.journal.drop(4)
    assert memory.objects == kept


class Off(BaseException):
    """The power."""


@pytest.mark.parametrize("done", range(4))
def test_a_crash_in_the_middle_of_a_drop(
    storage: ObjectStorage, machine: Machine, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    store = Store.init(machine, storage, [opener()])
    entries = fill(store.journal, 6, [4])
    steps = 0

    def step(what: str) -> None:
        nonlocal steps
        steps += what.startswith("delete")
        if steps > done:
            raise Off

    with monkeypatch.context() as patch, contextlib.suppress(Off):
        patch.setattr(machine, "step", step)
        store.journal.drop(4)
        assert done == 3

    again = Store.open(machine, storage, [opener()])
    assert again.journal.count() == 6 - done
    assert list(again.journal.entries()) == entries
    assert again.verify().ok
    again.journal.drop(4)
    assert again.journal.count() == 3


# Others at the same time


def meanwhile(store: Store, objects: dict[str, bytes], at: str, act: Callable[[], None]) -> Store:
    """The same store in a process that is overtaken, once, right before the operation `at`."""
    pending = [act]

    def fail(operation: str, name: str) -> None:
        if f"{operation} {name}" == at and pending:
            pending.pop()()

    return beside(store, objects, fail)


def shorten(store: Store) -> None:
    newest = store.journal.newest()
    store.journal.append(newest + 1, b"everything", snapshot=True)
    store.journal.drop(newest + 1)


@pytest.mark.parametrize("at", [1, 2, 4, 5])
def test_it_is_shortened_while_it_is_read(store: Store, memory: MemoryStorage, at: int) -> None:
    fill(store.journal, 5)
    reading = meanwhile(store, memory.objects, f"read {journal_name(at)}", lambda: shorten(store))

    assert list(reading.journal.entries()) == [(6, b"everything")]
    assert list(reading.journal.entries(5)) == [(6, b"everything")]


@pytest.mark.parametrize("at", [1, 2, 4, 5])
def test_it_is_shortened_while_it_is_verified(store: Store, memory: MemoryStorage, at: int) -> None:
    fill(store.journal, 5)
    looking = meanwhile(store, memory.objects, f"read {journal_name(at)}", lambda: shorten(store))

    assert looking.verify().ok
    assert store.journal.count() == 1


def test_two_write_the_same_and_one_drops_it(store: Store, memory: MemoryStorage) -> None:
    fill(store.journal, 3)
    late = meanwhile(store, memory.objects, f"read {journal_name(3)}", lambda: shorten(store))
    late.journal.append(3, body(3))

    assert list(store.journal.entries()) == [(4, b"everything")]


def test_two_write_something_else(store: Store, memory: MemoryStorage) -> None:
    fill(store.journal, 2)
    late = meanwhile(store, memory.objects, f"put {journal_name(3)}", lambda: store.journal.append(3, b"mine"))

    with pytest.raises(ObjectExists, match="entry 3 "):
        late.journal.append(3, b"yours")
    assert list(late.journal.entries(2)) == [(3, b"mine")]


# The format

KNOWN = {
    "blake3": "4b534f31010000001ab44df8a4b1452f347257341fc39251fbe263c74a59715734ef67b3248bfe38"
    "d909520ba2de7bd3543a958ac740447484cc44701aed4afe1e1c06048f8f729dfbee4b3da1247d",
    "hmac-sha256": "4b534f310100000095380750fe33b0bcbf0858ef7a94b2d217c05c91e0c5250452004573941076bf"
    "d59e768a0492d8e73e4d73d4da80387b42b7cac67e26bc32c6237089add192cfe5750772b7d1c7",
}
"""Entry 7 under keys that everybody knows, as the journal wrote it when the format was made: a snapshot, "hello"."""


def known(profile: str) -> Journal:
    """Of a store with the keys of the test vectors in docs/FORMAT.md."""
    env, keys = Machine(), DomainKeys.from_bytes(1, bytes(range(160)))
    return Journal(
        Context(
            env=env,
            storage=MemoryStorage(env),
            store_id=bytes(range(16)),
            keys=keys,
            verify_key=b"",
            hashing=hashing(profile),
        )
    )


@pytest.mark.parametrize("profile", KNOWN)
def test_what_was_written_once_can_be_read_for_ever(profile: str) -> None:
    entry = bytes.fromhex(KNOWN[profile])
    journal = known(profile)
    journal._context.storage.put("journal/0000000000000007", entry)

    assert list(journal.entries(6)) == [(7, b"hello")]
    journal.append(7, b"hello", snapshot=True)  # the same


@pytest.mark.parametrize("profile", KNOWN)
def test_another_program_reads_it(profile: str) -> None:
    """As docs/FORMAT.md has it, by the functions of rescue.py, which shares no code with this package."""
    store = new_store(hashing_name=profile)
    store.journal.append(1, b"hello", snapshot=True)
    sealed = store.context.storage.read("journal/0000000000000001")
    keyed, _ = rescue.hashing(profile)
    epoch = sealed[4:8]
    key = keyed(store.context.keys.metadata, b"object/v1" + sealed[8:40] + b"journal")
    name = b"journal/0000000000000001"
    text = rescue.unseal(key, sealed[40:], rescue.bind(store.context.store_id, b"journal", name, epoch), "the entry")

    assert sealed[:4] == b"KSO1"
    assert rescue.unpack(text, dict) == {"snapshot": True, "body": b"hello"}


def test_rescue_passes_it_by(tmp_path: Path) -> None:
    machine = Machine()
    store = Store.init(machine, FolderStorage(machine, tmp_path / "store", create=True), [opener()])
    fill(store.journal, 3)
    problems: list[str] = []

    rescued = rescue.Store(str(tmp_path / "store"), "passphrase", b"correct horse", problems.append)
    assert rescue.verify(rescued, problems.append) == "0 packs, 0 points with 0 nodes"
    assert problems == []
