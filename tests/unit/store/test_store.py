# SPDX-License-Identifier: Apache-2.0
"""Making, opening and rekeying a store, over each backend."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from keepstone.crypto import Keyring, PassphraseProvider, PlatformKeyProvider
from keepstone.env import FileSystem
from keepstone.errors import (
    AccessDenied,
    CorruptObject,
    ObjectExists,
    ObjectMissing,
    StorageError,
    StorageFull,
    StoreExists,
    StoreMissing,
    UnsupportedFormat,
    UsageError,
    WrongKey,
)
from keepstone.objects import FolderStorage, MemoryStorage, ObjectStorage
from keepstone.store import Store
from tests.unit.store.known import Failing, Machine, Recorded, heads, items, kit_of, load, opener, save

pytestmark = pytest.mark.store


def test_made_written_opened_read(machine: Machine, storage: ObjectStorage, provider: PassphraseProvider) -> None:
    made = Store.init(machine, storage, [provider])
    commit = save(made, items("ABC"))
    opened = Store.open(machine, storage, [provider])

    assert load(opened, commit) == items("ABC")
    assert opened.descriptor.store == made.descriptor.store
    assert opened.context.keys == made.context.keys
    assert opened.verify(deep=True).ok


def test_what_every_store_carries(store: Store, memory: MemoryStorage) -> None:
    assert {name for name in memory.objects if not name.startswith("heads/")} == {
        "keepstone.json",
        "FORMAT.md",
        "rescue.py",
        "keys/00000001",
    }
    assert {head.event for head in heads(store)} >= {"init"}
    assert b"SPDX" in memory.objects["rescue.py"]


def test_the_descriptor_comes_last(machine: Machine, provider: PassphraseProvider) -> None:
    """A store that has one is complete."""
    storage = Recorded(machine)
    Store.init(machine, storage, [provider])

    puts = [line.split()[1] for line in storage.log if line.startswith("put ")]
    assert puts[-1] == "keepstone.json"
    assert puts.index("keys/00000001") < puts.index("keepstone.json")


@pytest.mark.parametrize("hashing", ["blake3", "hmac-sha256"])
def test_profiles(machine: Machine, storage: ObjectStorage, provider: PassphraseProvider, hashing: str) -> None:
    """The whole life of a store in each profile."""
    store = Store.init(machine, storage, [provider], hashing_name=hashing)
    gone, kept = save(store, items("ABCDEFGH")), save(store, items("AB"))
    store.points.purge(store.points.find(gone), now=True)
    store.reclaim()
    store.rekey([opener(b"another")])
    store = Store.open(machine, storage, [opener(b"another")])
    again = save(store, items("ABXY"))

    assert store.descriptor.hashing == store.context.hashing.name == hashing
    assert load(store, kept) == items("AB")
    assert load(store, again) == items("ABXY")
    assert store.verify(deep=True).findings == []
    assert store.rebuild_index() == 4


def test_profiles_do_not_mix(machine: Machine, memory: MemoryStorage, provider: PassphraseProvider) -> None:
    with pytest.raises(UnsupportedFormat, match="md5"):
        Store.init(machine, memory, [provider], hashing_name="md5")
    assert memory.objects == {}


# Places where there is something already


@pytest.mark.parametrize("name", ["keepstone.json", "photo.jpg", "packs/00/x", "keys/00000001"])
def test_init_where_something_is(
    machine: Machine, storage: ObjectStorage, provider: PassphraseProvider, name: str
) -> None:
    storage.put(name, b"not yours")

    with pytest.raises(StoreExists, match=r"choose an empty place"):
        Store.init(machine, storage, [provider])
    assert [info.name for info in storage.list()] == [name]
    assert storage.read(name) == b"not yours"


@pytest.mark.parametrize("name", ["a photo.jpg", ".hidden", "größe", "x" * 255])
def test_init_in_a_folder_of_other_things(
    machine: Machine, tmp_path: Path, provider: PassphraseProvider, name: str
) -> None:
    """Also files that can be no object make a folder not empty."""
    (tmp_path / name).write_text("mine")

    with pytest.raises(StoreExists):
        Store.init(machine, FolderStorage(machine, tmp_path), [provider])
    assert [entry.name for entry in tmp_path.iterdir() if entry.name != "tmp"] == [name]


def test_init_twice(machine: Machine, storage: ObjectStorage, provider: PassphraseProvider) -> None:
    store = Store.init(machine, storage, [provider])
    commit = save(store, items("A"))

    with pytest.raises(StoreExists):
        Store.init(machine, storage, [provider])
    assert load(Store.open(machine, storage, [provider]), commit) == items("A")


@pytest.mark.parametrize("providers", [0, 17])
def test_init_with_too_few_or_many_keys(machine: Machine, memory: MemoryStorage, providers: int) -> None:
    with pytest.raises(UsageError):
        Store.init(machine, memory, [opener()] * providers)
    assert memory.objects == {}


@pytest.mark.parametrize("step", ["put keys/", "put FORMAT.md", "put rescue.py", "put heads/", "put keepstone.json"])
def test_init_that_fails(machine: Machine, provider: PassphraseProvider, step: str) -> None:
    """Nothing is left, and a second try at the same place succeeds; also where the reply to the last step was lost."""
    for failing in (step, step.replace("put", "put reply")):
        storage = MemoryStorage(machine, fail=Failing(failing, StorageFull("full"), times=1))
        with pytest.raises(StorageFull):
            Store.init(machine, storage, [provider])
        if failing == "put reply keys/":
            continue  # whose keys they are cannot be told

        assert storage.objects == {}
        with pytest.raises(StoreMissing, match="make one with"):
            Store.open(machine, storage, [provider])
        assert Store.init(machine, storage, [provider]).verify().ok


def test_init_that_loses_against_another_one(machine: Machine, provider: PassphraseProvider) -> None:
    storage = MemoryStorage(machine, fail=Failing("put keys/", ObjectExists("taken"), times=1))

    with pytest.raises(StoreExists, match="somebody else is making a store there"):
        Store.init(machine, storage, [provider])


def test_init_whose_kit_cannot_be_made(machine: Machine, provider: PassphraseProvider) -> None:
    """It is made while there is no store yet, and without it there is none."""
    storage = MemoryStorage(machine)

    def ready(keyring: Keyring) -> None:
        assert "keepstone.json" not in storage.objects
        assert keyring.sequence == 1
        raise StorageFull("no room for the kit")

    with pytest.raises(StorageFull, match="kit"):
        Store.init(machine, storage, [provider], ready=ready)

    assert storage.objects == {}


def test_init_in_a_folder_of_empty_folders(machine: Machine, provider: PassphraseProvider, tmp_path: Path) -> None:
    """As an `init` leaves it that failed."""
    for name in ("keys", "heads", "tmp"):
        (tmp_path / name).mkdir()

    assert Store.init(machine, FolderStorage(machine, tmp_path), [provider]).verify().ok


# Opening


def test_open_nothing(machine: Machine, storage: ObjectStorage, provider: PassphraseProvider) -> None:
    with pytest.raises(StoreMissing, match="there is no Keepstone store"):
        Store.open(machine, storage, [provider])


def test_wrong_passphrase(
    machine: Machine, storage: ObjectStorage, provider: PassphraseProvider, tmp_path: Path
) -> None:
    Store.init(machine, storage, [provider])

    with pytest.raises(WrongKey, match="passphrase"):
        Store.open(machine, storage, [opener(b"wrong")])
    with pytest.raises(WrongKey):
        Store.open(machine, storage, [])
    with pytest.raises(WrongKey, match="platform"):
        Store.open(machine, storage, [PlatformKeyProvider.create(machine, tmp_path / "other.key")])


def test_several_keys(machine: Machine, storage: ObjectStorage, provider: PassphraseProvider, tmp_path: Path) -> None:
    platform = PlatformKeyProvider.create(machine, tmp_path / "store.key")
    store = Store.init(machine, storage, [platform, provider])
    commit = save(store, items("A"))

    for keys in ([platform], [provider], [opener(b"wrong"), platform]):
        assert load(Store.open(machine, storage, keys), commit) == items("A")  # type: ignore[arg-type]


def test_keys_that_are_gone(machine: Machine, memory: MemoryStorage, provider: PassphraseProvider) -> None:
    Store.init(machine, memory, [provider])
    del memory.objects["keys/00000001"]

    with pytest.raises(ObjectMissing, match="recovery kit"):
        Store.open(machine, memory, [provider])


def test_a_newer_store(machine: Machine, memory: MemoryStorage, provider: PassphraseProvider) -> None:
    Store.init(machine, memory, [provider])
    memory.objects["keepstone.json"] = memory.objects["keepstone.json"].replace(b'"format": 1', b'"format": 2')

    with pytest.raises(UnsupportedFormat, match="format 2"):
        Store.open(machine, memory, [provider])


def test_the_keys_of_another_store(machine: Machine, memory: MemoryStorage, provider: PassphraseProvider) -> None:
    Store.init(machine, memory, [provider])
    other = MemoryStorage(machine)
    Store.init(machine, other, [provider])
    memory.objects["keys/00000001"] = other.objects["keys/00000001"]

    with pytest.raises(CorruptObject):
        Store.open(machine, memory, [provider])


class Closed(FileSystem):
    """Refuses to open a store's descriptor, as the system does to all but root where it is another user's."""

    @staticmethod
    def open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if str(path).endswith("keepstone.json"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return os.open(path, flags, mode, dir_fd=dir_fd)


def test_a_folder_that_cannot_be_read(machine: Machine, tmp_path: Path, provider: PassphraseProvider) -> None:
    Store.init(machine, FolderStorage(machine, tmp_path / "store", create=True), [provider])
    outside = Machine(fs=Closed())

    with pytest.raises(AccessDenied, match=r"keepstone\.json"):
        Store.open(outside, FolderStorage(outside, tmp_path / "store"), [provider])


# Rotation


def test_rekey(machine: Machine, storage: ObjectStorage, provider: PassphraseProvider) -> None:
    store = Store.init(machine, storage, [provider])
    commit = save(store, items("A"))
    kit = kit_of(store)
    store.rekey([opener(b"new")])

    assert [info.name for info in storage.list("keys/")] == ["keys/00000002"]
    with pytest.raises(WrongKey):
        Store.open(machine, storage, [provider])
    for opened in (Store.open(machine, storage, [opener(b"new")]), Store.open_by_kit(machine, storage, kit)):
        assert load(opened, commit) == items("A")
        assert opened.verify(deep=True).ok
    assert store.verify().ok
    again = save(store, items("AB"))  # what was opened before goes on
    assert load(Store.open(machine, storage, [opener(b"new")]), again) == items("AB")


def test_rekey_many_times(machine: Machine, storage: ObjectStorage, provider: PassphraseProvider) -> None:
    store = Store.init(machine, storage, [provider])
    for number in range(12):
        store.rekey([opener(b"%d" % number)])
        store = Store.open(machine, storage, [opener(b"%d" % number)])

    assert store.keyring.sequence == 13
    assert store.verify().ok


def test_two_that_rekey(store: Store, memory: MemoryStorage, machine: Machine, provider: PassphraseProvider) -> None:
    other = Store.open(machine, memory, [provider])
    store.rekey([opener(b"first")])

    with pytest.raises(UsageError, match="open the store again"):
        other.rekey([opener(b"second")])
    assert Store.open(machine, memory, [opener(b"first")]).keyring.sequence == 2


@pytest.mark.parametrize("step", ["put keys/", "put heads/", "delete_many keys/"])
def test_rekey_that_fails_is_repeated(
    store: Store, memory: MemoryStorage, machine: Machine, provider: PassphraseProvider, step: str
) -> None:
    """The store stays open to somebody at every moment, and the same call works when the storage does."""
    commit = save(store, items("A"))
    fault = Failing(step, StorageError("broken"), times=1)
    mine = Store.open(machine, MemoryStorage(machine, objects=memory.objects, fail=fault), [provider])
    with pytest.raises(StorageError):
        mine.rekey([opener(b"new")])
    opened = 0
    for keys in (provider, opener(b"new")):
        try:
            opened += load(Store.open(machine, memory, [keys]), commit) == items("A")
        except WrongKey:
            continue
    assert opened >= 1

    mine.rekey([opener(b"new")])

    assert load(Store.open(machine, memory, [opener(b"new")]), commit) == items("A")
    with pytest.raises(WrongKey):
        Store.open(machine, memory, [provider])
    assert len([name for name in memory.objects if name.startswith("keys/")]) == 1
    assert mine.verify().ok


def test_a_rekey_without_keys_changes_nothing(
    store: Store, memory: MemoryStorage, machine: Machine, provider: PassphraseProvider
) -> None:
    before = dict(memory.objects)
    with pytest.raises(UsageError):
        store.rekey([])

    assert memory.objects == before
    store.rekey([opener(b"new")])
    assert Store.open(machine, memory, [opener(b"new")]).keyring.sequence == 2


# Figures


def test_stat(store: Store) -> None:
    save(store, items("ABCD"))
    save(store, items("ABXY"), "other")
    gone = save(store, items("0123"))
    store.points.forget(store.points.find(gone))
    found = store.stat()

    assert (found.points, found.deleted_points, found.items) == (2, 1, 2)
    assert (found.packs, found.chunks) == (6, 10)
    assert (found.logical_bytes, found.unique_bytes, found.dead_bytes) == (1200, 1000, 0)
    assert found.deduplication == pytest.approx(1.2)
    store.points.purge(store.points.find(gone, deleted=True), now=True)
    assert store.stat().dead_bytes == 400


def test_stat_of_an_empty_store(store: Store) -> None:
    found = store.stat()

    assert (found.points, found.chunks, found.stored_bytes, found.deduplication) == (0, 0, 0, 1.0)
