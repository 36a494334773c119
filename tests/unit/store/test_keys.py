# SPDX-License-Identifier: Apache-2.0
"""Which keys object counts, the way round it by the recovery kit, and back. Every damage: reliability/test_keys.py."""

from __future__ import annotations

import re

import pytest

from keepstone.crypto import Kit, PassphraseProvider, create_keyring, open_keyring
from keepstone.errors import (
    AccessDenied,
    CorruptObject,
    ObjectMissing,
    StorageError,
    UnsupportedFormat,
    UsageError,
    WrongKey,
)
from keepstone.objects import MemoryStorage
from keepstone.store import Store
from keepstone.store.keys import last_number, newest_number
from tests.unit.store.known import Failing, Machine, heads, items, kit_of, load, new_store, opener, save

pytestmark = pytest.mark.store

COMMAND = "keepstone store key rotate --kit KIT"


def keys_of(memory: MemoryStorage) -> list[str]:
    return sorted(name for name in memory.objects if name.startswith("keys/"))


def test_the_highest_number_counts(machine: Machine, memory: MemoryStorage, store: Store) -> None:
    assert newest_number(memory) == last_number(store.context) == 1
    old = memory.objects["keys/00000001"]
    store.rekey([opener(b"new")])
    memory.objects["keys/00000001"] = old  # a crash before it was removed

    assert newest_number(memory) == last_number(store.context) == 2
    assert Store.open(machine, memory, [opener(b"new")]).keyring.sequence == 2
    with pytest.raises(WrongKey):
        Store.open(machine, memory, [opener()])


def test_what_is_called_like_no_keys_object_does_not_count(machine: Machine, memory: MemoryStorage) -> None:
    provider = opener()
    Store.init(machine, memory, [provider])
    for name in ("keys/README", "keys/2", "keys/100000000", "keys/00000002.bak"):
        memory.objects[name] = b"not ours"

    assert newest_number(memory) == 1
    assert Store.open(machine, memory, [provider]).keyring.sequence == 1


def test_a_store_without_keys_names_the_folder_and_the_way_out(
    machine: Machine, memory: MemoryStorage, store: Store, provider: PassphraseProvider
) -> None:
    del memory.objects["keys/00000001"]

    with pytest.raises(ObjectMissing, match=rf"^keys/ is empty: .*{COMMAND}$"):
        Store.open(machine, memory, [provider])


def test_damaged_keys_are_named_with_the_way_out(
    machine: Machine, memory: MemoryStorage, store: Store, provider: PassphraseProvider
) -> None:
    memory.objects["keys/00000001"] = memory.objects["keys/00000001"][:-1]

    with pytest.raises(CorruptObject, match=rf"^keys/00000001 is damaged or forged: its checksum .*{COMMAND}$"):
        Store.open(machine, memory, [provider])


@pytest.mark.parametrize("error", [StorageError("keys/00000001: Input/output error"), ObjectMissing("keys/00000001")])
def test_keys_that_cannot_be_read_are_named_with_the_way_out(
    machine: Machine, memory: MemoryStorage, store: Store, provider: PassphraseProvider, error: Exception
) -> None:
    broken = MemoryStorage(machine, objects=memory.objects, fail=Failing("read keys/", error))

    with pytest.raises(type(error), match=rf"^keys/00000001.*{COMMAND}$"):
        Store.open(machine, broken, [provider])


def test_an_older_object_under_the_newest_name_is_refused(
    machine: Machine, memory: MemoryStorage, store: Store, provider: PassphraseProvider
) -> None:
    old = memory.objects["keys/00000001"]
    store.rekey([opener(b"new")])
    memory.objects["keys/00000002"] = old

    with pytest.raises(CorruptObject, match=r"^keys/00000002 .*it is keys object 1 under another name"):
        Store.open(machine, memory, [provider])


# The kit


@pytest.fixture
def kit(store: Store) -> Kit:
    return kit_of(store)


def test_the_kit_opens_what_its_keys_open(machine: Machine, memory: MemoryStorage, store: Store, kit: Kit) -> None:
    commit = save(store, items("ABC"))
    store.rekey([opener(b"new")])

    opened = Store.open_by_kit(machine, memory, kit)

    assert opened.keyring == store.keyring
    assert opened.keyring.sequence == 2
    assert load(opened, commit) == items("ABC")
    assert opened.verify(deep=True).findings == []


def test_the_kit_of_another_store_is_a_wrong_key(machine: Machine, memory: MemoryStorage, store: Store) -> None:
    other = new_store(Machine(9))
    of_both = rf"store {other.descriptor.store} \('a kit'\), and this is store {store.descriptor.store}; take the kit"
    for keys in ("there", "gone"):
        if keys == "gone":
            del memory.objects["keys/00000001"]

        with pytest.raises(WrongKey, match=of_both):
            Store.open_by_kit(machine, memory, kit_of(other))


def test_a_forged_kit_of_this_store_opens_nothing(machine: Machine, memory: MemoryStorage, store: Store) -> None:
    """Who knows the recipient can seal a kit, but not one with the keys of the store."""
    keyring, _ = create_keyring(Machine(7), store.context.hashing, store.context.store_id, [opener()])
    forged = Kit(keyring=keyring, description="forged", made_at="")

    with pytest.raises(CorruptObject, match=r"keepstone\.json"):
        Store.open_by_kit(machine, memory, forged)


def test_a_newer_keys_object_is_not_gone_round(machine: Machine, memory: MemoryStorage, store: Store, kit: Kit) -> None:
    """A store may be upgraded in place, and the keys object is where everybody sees it."""
    import hashlib

    text = b'{\n  "format": "keepstone keys",\n  "version": 2,\n  "mac": "%b",\n' % (b"0" * 64)
    checksum = hashlib.sha256(text).hexdigest().encode()
    memory.objects["keys/00000002"] = text + b'  "checksum": "%b"\n}\n' % checksum

    with pytest.raises(UnsupportedFormat, match="version 2; upgrade"):
        Store.open_by_kit(machine, memory, kit)


def test_no_store_is_no_store_for_a_kit_as_well(machine: Machine, kit: Kit) -> None:
    from keepstone.errors import StoreMissing

    with pytest.raises(StoreMissing):
        Store.open_by_kit(machine, MemoryStorage(machine), kit)


@pytest.mark.parametrize(
    "error", [StorageError("Input/output error"), AccessDenied("Permission denied")], ids=["disk", "access"]
)
@pytest.mark.parametrize("operation", ["read keys/", "list keys/"])
def test_keys_that_cannot_be_read_do_not_hinder_the_kit(
    machine: Machine, memory: MemoryStorage, store: Store, kit: Kit, operation: str, error: Exception
) -> None:
    commit = save(store, items("AB"))
    broken = MemoryStorage(machine, objects=memory.objects, fail=Failing(operation, error))

    assert load(Store.open_by_kit(machine, broken, kit), commit) == items("AB")


# Back to a key


@pytest.mark.parametrize("lost", ["keys", "keys and heads", "the last object of three"])
def test_new_keys_have_a_number_that_was_never_used(
    machine: Machine, memory: MemoryStorage, store: Store, kit: Kit, lost: str
) -> None:
    commit = save(store, items("AB"))
    first = memory.objects["keys/00000001"]
    store.rekey([opener(b"2")])
    store.rekey([opener(b"3")])
    del memory.objects["keys/00000003"]
    if lost == "the last object of three":
        memory.objects["keys/00000001"] = first
    if lost == "keys and heads":
        for name in [name for name in memory.objects if name.startswith("heads/")]:
            del memory.objects[name]

    Store.open_by_kit(machine, memory, kit).rekey([opener(b"new")])

    number = 1 if lost == "keys and heads" else 4
    assert keys_of(memory) == [f"keys/{number:08d}"]
    opened = Store.open(machine, memory, [opener(b"new")])
    assert load(opened, commit) == items("AB")
    assert [head.object for head in heads(opened) if head.event == "keys"][-1] == f"keys/{number:08d}"
    assert load(opened, save(opened, items("BC"))) == items("BC")
    if lost != "keys and heads":
        assert opened.verify(deep=True).findings == []
        assert opened.reclaim().waiting == []


def test_a_damaged_object_goes_when_there_is_a_new_one(
    machine: Machine, memory: MemoryStorage, store: Store, kit: Kit, provider: PassphraseProvider
) -> None:
    memory.objects["keys/00000001"] = bytes(1000)

    opened = Store.open_by_kit(machine, memory, kit)
    opened.rekey([opener(b"new")])

    assert keys_of(memory) == ["keys/00000002"]
    assert opened.verify().findings == []
    assert Store.open(machine, memory, [opener(b"new")]).verify(deep=True).ok
    with pytest.raises(WrongKey):
        Store.open(machine, memory, [provider])


def test_the_same_root_key_may_open_it_again(
    machine: Machine, memory: MemoryStorage, store: Store, kit: Kit, provider: PassphraseProvider
) -> None:
    memory.objects.pop("keys/00000001")

    Store.open_by_kit(machine, memory, kit).rekey([provider])

    keyring = open_keyring(memory.objects["keys/00000002"], store.context.store_id, [provider])
    assert (keyring.keys, keyring.domain) == (store.keyring.keys, store.keyring.domain)


@pytest.mark.parametrize(
    ("keys", "step"),
    [
        ("gone", "put keys/"),
        ("gone", "put heads/"),
        ("damaged", "put keys/"),
        ("damaged", "put heads/"),
        ("damaged", "delete_many keys/"),
    ],
)
def test_writing_keys_anew_may_fail_anywhere(
    machine: Machine, memory: MemoryStorage, store: Store, kit: Kit, step: str, keys: str
) -> None:
    """At every moment the kit opens the store, and the same call works when the storage does."""
    commit = save(store, items("A"))
    del memory.objects["keys/00000001"]
    if keys == "damaged":
        memory.objects["keys/00000001"] = b"damage"
    fault = Failing(step, StorageError("broken"), times=1)
    mine = Store.open_by_kit(machine, MemoryStorage(machine, objects=memory.objects, fail=fault), kit)
    with pytest.raises(StorageError):
        mine.rekey([opener(b"new")])
    assert load(Store.open_by_kit(machine, memory, kit), commit) == items("A")

    mine.rekey([opener(b"new")])

    opened = Store.open(machine, memory, [opener(b"new")])
    assert load(opened, commit) == items("A")
    assert opened.verify(deep=True).findings == []
    assert len(keys_of(memory)) == 1


def test_two_that_write_keys_anew(machine: Machine, memory: MemoryStorage, store: Store, kit: Kit) -> None:
    del memory.objects["keys/00000001"]
    one, other = (Store.open_by_kit(machine, memory, kit) for _ in range(2))
    one.rekey([opener(b"one")])

    with pytest.raises(UsageError, match="open the store again"):
        other.rekey([opener(b"other")])
    assert Store.open(machine, memory, [opener(b"one")]).keyring.sequence == 2


def test_a_foreign_object_with_the_last_number_is_named(
    machine: Machine, memory: MemoryStorage, store: Store, kit: Kit
) -> None:
    memory.objects["keys/99999999"] = b"not ours"
    opened = Store.open_by_kit(machine, memory, kit)

    with pytest.raises(UsageError, match="99999999"):
        opened.rekey([opener(b"new")])
    assert keys_of(memory) == ["keys/00000001", "keys/99999999"]
    del memory.objects["keys/99999999"]
    Store.open_by_kit(machine, memory, kit).rekey([opener(b"new")])
    assert Store.open(machine, memory, [opener(b"new")]).verify().ok


# Verify


def test_verify_names_what_is_gone_and_the_way_out(
    machine: Machine, memory: MemoryStorage, store: Store, kit: Kit
) -> None:
    save(store, items("AB"))
    del memory.objects["keys/00000001"]

    for opened, name in ((store, "keys/00000001"), (Store.open_by_kit(machine, memory, kit), "keys/")):
        report = opened.verify(deep=True)

        messages = [finding.message for finding in report.findings if finding.object == name]
        assert re.search(rf"the keys object is gone.*{COMMAND}$", messages[0])
        assert {finding.object for finding in report.findings} == {name, "keys/00000001"}
        assert {finding.code for finding in report.findings} == {"ObjectMissing"}
        assert report.damaged_points == []


def test_verify_names_what_is_damaged_and_the_way_out(
    machine: Machine, memory: MemoryStorage, store: Store, kit: Kit
) -> None:
    save(store, items("AB"))
    memory.objects["keys/00000001"] = memory.objects["keys/00000001"].replace(b"blake3", b"blake4")

    for opened in (store, Store.open_by_kit(machine, memory, kit)):
        report = opened.verify(deep=True)

        assert {finding.object for finding in report.findings} == {"keys/00000001"}
        assert COMMAND in report.findings[0].message
        assert report.damaged_points == []
