# SPDX-License-Identifier: Apache-2.0
"""The head chain: who was first, what follows what, and who signed it."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from keepstone.crypto import sign
from keepstone.errors import CorruptObject, KeepstoneError, ObjectMissing, StorageError
from keepstone.objects import MemoryStorage
from keepstone.store import Store
from keepstone.store.chain import EVENTS, Chain, Head
from keepstone.store.context import Context
from keepstone.store.layout import head_name
from tests.unit.store.known import Machine, Recorded, heads, items, load, new_store, save

pytestmark = pytest.mark.store


def through(store: Store, storage: MemoryStorage) -> Context:
    return replace(store.context, storage=storage)


def findings(store: Store) -> list[str]:
    return [f"{finding.object}: {finding.message}" for finding in store.verify().findings]


def test_each_entry_names_the_one_before(store: Store, memory: MemoryStorage) -> None:
    save(store, items("A"))
    chain = Chain(store.context)
    entries = heads(store)
    digests = [chain.read(head.sequence)[1] for head in entries]

    assert [head.sequence for head in entries] == list(range(1, len(entries) + 1))
    assert [head.previous for head in entries] == ["", *digests[:-1]]
    assert {head.event for head in entries} <= set(EVENTS)
    assert entries[-1].event == "commit"
    assert entries[-1].digest == store.context.hashing.digest(memory.objects[entries[-1].object]).hex()
    assert findings(store) == []


def test_an_empty_chain() -> None:
    context = new_store().context
    empty = replace(context, storage=MemoryStorage(Machine()))

    assert Chain(empty).last() == (0, "")
    assert Chain(empty).append("init", "x", b"")[0] == 1
    with pytest.raises(ObjectMissing):
        Chain(empty).read(2)


def test_a_race_of_two(store: Store, memory: MemoryStorage) -> None:
    """Another one takes the number between the look and the write: the loser takes the next, behind the winner's."""
    winner = Chain(store.context)
    raced: list[int] = []

    def meanwhile(operation: str, name: str) -> Exception | None:
        if operation == "put" and name.startswith("heads/") and len(raced) < 3:
            raced.append(winner.append("keys", "keys/00000009", b"")[0])
        return None

    loser = Chain(through(store, MemoryStorage(store.context.env, objects=memory.objects, fail=meanwhile)))
    before = len(heads(store))
    sequence, digest = loser.append("keys", "keys/00000008", b"")

    entries = heads(store)
    assert raced == [before + 1, before + 2, before + 3]
    assert sequence == before + 4
    assert entries[-1].object == "keys/00000008"
    assert [head.previous for head in entries[1:]] == [
        Chain(store.context).read(head.sequence)[1] for head in entries[:-1]
    ]
    assert loser.last() == (sequence, digest)


def test_many_in_any_order(store: Store, memory: MemoryStorage) -> None:
    """Several chains that remember where they were: none forks."""
    chance = random.Random(3)
    chains = [Chain(store.context) for _ in range(5)]
    before = len(heads(store))
    for number in range(40):
        chance.choice(chains).append("undelete", f"deleted/{number}", b"")

    entries = heads(store)
    assert [head.object for head in entries[before:]] == [f"deleted/{number}" for number in range(40)]
    assert findings(store) == []


def test_a_lost_reply(store: Store, memory: MemoryStorage) -> None:
    """The entry was written, its writer is told that it was not: a second one says the same, and nobody minds."""
    lost = [StorageError("no answer")]

    def fail(operation: str, name: str) -> Exception | None:
        return lost.pop() if operation == "put reply" and name.startswith("heads/") and lost else None

    chain = Chain(through(store, MemoryStorage(store.context.env, objects=memory.objects, fail=fail)))
    with pytest.raises(StorageError):
        chain.append("undelete", "deleted/x", b"")
    chain.append("undelete", "deleted/x", b"")

    assert [head.object for head in heads(store)[-2:]] == ["deleted/x", "deleted/x"]
    assert findings(store) == []


def test_only_what_is_new_is_read(store: Store, memory: MemoryStorage) -> None:
    for letter in "ABCDEFGH":
        save(store, items(letter))
    storage = Recorded(store.context.env, objects=memory.objects)
    chain = Chain(through(store, storage))
    chain.append("undelete", "deleted/x", b"")

    assert len([line for line in storage.log if line.startswith("read heads/")]) <= 3


# Forks and forgeries


def forged(signer: Store, at: int, **changes: str | int) -> bytes:
    """An entry with these fields instead, signed as it should be by who has the key."""
    head = Chain(signer.context).read(at)[0]
    fields = {field: getattr(head, field) for field in head.__struct_fields__} | changes
    body = msgspec.json.encode(Head(**fields), order="deterministic")
    signature = sign(signer.context.keys.signing_seed, b"keepstone-head/v1" + body)
    return b'{"head":%b,"signature":"%b"}' % (body, signature.hex().encode())


def test_a_forged_entry_is_what_the_store_writes(store: Store, memory: MemoryStorage) -> None:
    """So that the tests below test what they say."""
    assert forged(store, 1) == memory.objects[head_name(1)]


def test_a_fork(store: Store, memory: MemoryStorage) -> None:
    """Two histories that part at one entry, each of them soundly signed: the next entry does not continue this one."""
    save(store, items("A"))
    save(store, items("B"))
    at = len(heads(store)) - 1
    memory.objects[head_name(at)] = forged(store, at, time=5)

    assert any(head_name(at + 1) in finding and "does not continue" in finding for finding in findings(store))


@pytest.mark.parametrize("changes", [{"sequence": 7}, {"store": "00" * 16}], ids=["another sequence", "another store"])
def test_an_entry_of_elsewhere(store: Store, memory: MemoryStorage, changes: dict[str, str | int]) -> None:
    save(store, items("A"))
    memory.objects[head_name(2)] = forged(store, 2, **changes)

    with pytest.raises(CorruptObject, match=head_name(2)):
        Chain(store.context).read(2)


def test_an_entry_that_another_key_signed(store: Store, memory: MemoryStorage) -> None:
    other = new_store(Machine(8))
    storage = other.context.storage
    assert isinstance(storage, MemoryStorage)
    memory.objects[head_name(1)] = storage.objects[head_name(1)]

    with pytest.raises(CorruptObject, match=head_name(1)):
        Chain(store.context).read(1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"head":{},"signature":""}',
        b'{"head":1,"signature":"zz"}',
        b"\xff\xfe",
        b'{"head":' + b"[" * 100_000,
    ],
    ids=["empty", "object", "list", "null", "deep", "no fields", "no hex", "no text", "deep head"],
)
def test_what_is_no_entry(store: Store, memory: MemoryStorage, data: bytes) -> None:
    memory.objects[head_name(1)] = data

    with pytest.raises(CorruptObject, match=head_name(1)):
        Chain(store.context).read(1)
    assert any(head_name(1) in finding for finding in findings(store))


@pytest.mark.parametrize("change", ["upper case", "blank", "escape"])
def test_the_same_entry_in_other_bytes(store: Store, memory: MemoryStorage, change: str) -> None:
    """One text for one entry: its digest is what the next one names."""
    data = memory.objects[head_name(1)]
    head, mark, signature = data.rpartition(b'"signature":"')
    memory.objects[head_name(1)] = {
        "upper case": head + mark + signature.upper(),
        "blank": data[:-1] + b" }",
        "escape": data.replace(b'"store"', b'"\\u0073tore"'),
    }[change]
    assert memory.objects[head_name(1)] != data

    with pytest.raises(CorruptObject, match=head_name(1)):
        Chain(store.context).read(1)


@pytest.mark.parametrize("which", [2, -1])
@pytest.mark.parametrize("how", ["damaged", "removed"])
def test_writing_goes_on_behind_a_broken_entry(store: Store, memory: MemoryStorage, which: int, how: str) -> None:
    for letter in "ABC":
        save(store, items(letter))
    name = head_name(which if which > 0 else len(heads(store)))
    if how == "damaged":
        memory.objects[name] = memory.objects[name][:-1]
    else:
        del memory.objects[name]

    commit = save(store, items("D"))

    assert store.points.find(commit).id == commit
    report = store.verify()
    assert report.damaged_points == []
    assert {finding.object for finding in report.findings if finding.object != "heads/"} <= {
        name,
        head_name(int(name[-12:]) + 1),
    }


def test_writing_goes_on_behind_an_entry_that_cannot_be_read(
    store: Store, memory: MemoryStorage, tmp_path: Path
) -> None:
    """A bad sector beneath the newest entry: backups go on, and all else is told of as ever. When it can be read again,
    the entry behind it still does not vouch for it."""
    gone = save(store, items("A"))
    name = head_name(len(heads(store)))
    behind = head_name(len(heads(store)) + 1)

    def fail(operation: str, asked: str) -> Exception | None:
        return StorageError(f"{asked}: Input/output error") if (operation, asked) == ("read", name) else None

    storage = MemoryStorage(store.context.env, objects=memory.objects, fail=fail)
    hurt = Store(store.context.env, storage, store.descriptor, store.keyring, tmp_path)
    assert {finding.object for finding in hurt.verify().findings} == {name}

    commit = save(hurt, items("B"))

    assert load(hurt, commit) == items("B")
    assert Chain(store.context).read(int(behind[-12:]))[0].previous == ""
    assert {finding.object for finding in hurt.verify().findings} == {name}
    mended = Store(store.context.env, memory, store.descriptor, store.keyring, tmp_path)
    assert [(finding.object, "does not name" in finding.message) for finding in mended.verify().findings] == [
        (behind, True)
    ]
    del memory.objects[f"commits/{gone}"]
    assert f"commits/{gone}" in {finding.object for finding in mended.verify().findings}


def test_an_older_entry_that_cannot_be_read_fails_no_backup(
    store: Store, memory: MemoryStorage, tmp_path: Path
) -> None:
    """It is the one that this machine remembers."""
    mine = Store(store.context.env, memory, store.descriptor, store.keyring, tmp_path)
    save(mine, items("A"))
    name = head_name(len(heads(store)))
    save(store, items("B"))  # by another machine

    def fail(operation: str, asked: str) -> Exception | None:
        return StorageError(f"{asked}: Input/output error") if (operation, asked) == ("read", name) else None

    storage = MemoryStorage(store.context.env, objects=memory.objects, fail=fail)
    commit = save(Store(store.context.env, storage, store.descriptor, store.keyring, tmp_path), items("C"))

    assert load(store, commit) == items("C")
    assert [other for other in memory.objects if other.startswith("leases/")] == []


# Against what is there


def test_what_was_purged_before_its_entry_was_written(store: Store, memory: MemoryStorage) -> None:
    """A point is purged in the moment between its cell and its head: the entry comes after the purge, and explains
    nothing away."""
    raced: list[str] = []

    def meanwhile(operation: str, name: str) -> Exception | None:
        if operation == "put" and name.startswith("heads/") and not raced:
            (point,) = store.points.list()
            raced.append(point.id)
            store.points.purge(point, now=True)
        return None

    storage = MemoryStorage(store.context.env, objects=memory.objects, fail=meanwhile)
    save(Store(store.context.env, storage, store.descriptor, store.keyring, None), items("A"))

    assert store.points.list(deleted=True) == []
    assert findings(store) == []


def test_every_absence_is_told(store: Store, memory: MemoryStorage) -> None:
    """Each point that vanishes without a purge is told, also one that was soft-deleted or undeleted before."""
    commits = [save(store, items(letter)) for letter in "ABCD"]
    for commit in commits[1:]:
        store.points.forget(store.points.find(commit))
    for commit in commits[2:]:
        store.points.undelete(store.points.find(commit, deleted=True))
    store.points.forget(store.points.find(commits[3]))
    assert findings(store) == []
    for commit in commits:
        kept = memory.objects.pop(f"commits/{commit}")
        assert any(f"commits/{commit}" in finding for finding in findings(store))
        memory.objects[f"commits/{commit}"] = kept


def test_purges_and_undeletes_are_explained(store: Store) -> None:
    commits = [save(store, items(letter)) for letter in "ABCD"]
    for commit in commits:
        store.points.forget(store.points.find(commit))
    store.points.undelete(store.points.find(commits[0], deleted=True))
    store.points.purge(store.points.find(commits[1], deleted=True), now=True)
    store.points.purge(store.points.find(commits[0]), now=True)

    assert findings(store) == []


def test_crash_between_the_two_steps(store: Store, memory: MemoryStorage) -> None:
    """A cell without its entry, an entry of a purge without the deletion: a crash leaves these, and verify does not
    cry."""

    class Gone(BaseException):
        pass

    def dying(start: str) -> Store:
        def fail(operation: str, name: str) -> Exception | None:
            if f"{operation} {name}".startswith(start):
                raise Gone
            return None

        storage = MemoryStorage(store.context.env, objects=memory.objects, fail=fail)
        return Store(store.context.env, storage, store.descriptor, store.keyring, None)

    with pytest.raises(Gone):
        save(dying("put heads/"), items("A"))
    (point,) = store.points.list()
    assert findings(store) == []
    with pytest.raises(Gone):
        dying("put heads/").points.forget(point)
    assert findings(store) == []
    with pytest.raises(Gone):
        dying("delete ").points.purge(point, now=True)
    assert findings(store) == []
    with pytest.raises(Gone):
        dying("delete deleted/").points.purge(point, now=True)
    assert findings(store) == []
    assert store.points.list(deleted=True) == []


def test_damage_is_an_error_of_the_tree(store: Store, memory: MemoryStorage) -> None:
    for at in range(len(memory.objects[head_name(1)])):
        data = bytearray(memory.objects[head_name(1)])
        data[at] ^= 1 << at % 8
        broken = replace(store.context, storage=MemoryStorage(store.context.env, objects={head_name(1): bytes(data)}))
        with pytest.raises(KeepstoneError):
            Chain(broken).read(1)
