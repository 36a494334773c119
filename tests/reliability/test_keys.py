# SPDX-License-Identifier: Apache-2.0
"""Storage and recovery kit suffice: whatever happens to `keys/`, the kit opens the store, and nothing else does.

For each damage, done to every object in `keys/`: keys and passphrases are refused by an error that names the object and
the way out; the kit of another store is refused; this store's kit opens it, verify names what is broken and calls no
point damaged, every point restores its bytes; and a rotation by the kit makes the store one like any other.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from keepstone.crypto import Kit
from keepstone.errors import CorruptObject, KeepstoneError, ObjectMissing, StorageError, WrongKey
from keepstone.objects import FolderStorage, MemoryStorage
from keepstone.store import Store
from tests.reliability.full import NEW, OLD, Full, make
from tests.unit.store.known import Failing, Machine, items, kit_of, load, opener, save

pytestmark = pytest.mark.store

COMMAND = "keepstone store key rotate --kit KIT"
MENDED = opener(b"mended")

Damage = Callable[[bytes], bytes | None]


@cache
def strangers() -> tuple[Store, Kit]:
    """Another store, rotated once, with the same passphrases; and its kit."""
    machine = Machine(77)
    store = Store.init(machine, MemoryStorage(machine), [OLD])
    store.rekey([NEW])
    return store, kit_of(store)


def theirs(content: bytes) -> bytes:
    return strangers()[0].context.storage.read("keys/00000002")


def flipped(part: float) -> Damage:
    def damage(content: bytes) -> bytes:
        at = int(part * len(content))
        return content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :]

    return damage


DAMAGES: dict[str, Damage] = {
    "removed": lambda content: None,
    "emptied": lambda content: b"",
    "cut in the middle": lambda content: content[: len(content) // 2],
    "cut by a byte": lambda content: content[:-1],
    "longer": lambda content: content + b"\n",
    "too long": lambda content: content + bytes(1 << 20),
    "zeros": lambda content: bytes(len(content)),
    "zeros at the end": lambda content: content[:-400] + bytes(400),
    "another store's": theirs,
    "no keys object": lambda content: b"{}\n",
    **{f"flipped at {part}/40": flipped(part / 40) for part in range(40)},
}


@pytest.fixture(scope="module")
def full() -> Full:
    return make()


@pytest.fixture(scope="module")
def kit(full: Full) -> Kit:
    return kit_of(full.open())


def damaged(full: Full, damage: Damage) -> dict[str, bytes]:
    """The store's objects, those in `keys/` damaged."""
    objects = dict(full.objects)
    for name in [name for name in objects if name.startswith("keys/")]:
        content = damage(objects.pop(name))
        if content is not None:
            objects[name] = content
    return objects


def check_points(full: Full, store: Store) -> None:
    for commit, chunks in full.points.items():
        assert load(store, store.points.find(commit, deleted=commit in full.deleted)) == chunks


def check_refused(full: Full, storage: MemoryStorage) -> None:
    """Nothing but this store's kit opens it."""
    env = Machine(9, beside=full.machine)
    for providers in ([NEW], [OLD], [OLD, NEW], []):
        with pytest.raises((CorruptObject, ObjectMissing, StorageError)) as refused:
            Store.open(env, storage, providers)
        assert str(refused.value).startswith("keys/")
        assert str(refused.value).endswith(COMMAND)
    with pytest.raises(WrongKey, match="recovery kit is that of store"):
        Store.open_by_kit(env, storage, strangers()[1])


def check_mended(full: Full, kit: Kit, storage: MemoryStorage) -> None:
    """After a rotation by the kit it is a store like any other."""
    env = Machine(9, beside=full.machine)
    Store.open_by_kit(env, storage, kit).rekey([MENDED])

    assert sorted(name for name in storage.objects if name.startswith("keys/")) == ["keys/00000003"]
    store = Store.open(env, storage, [MENDED])
    assert store.verify(deep=True).findings == []
    check_points(full, store)
    assert load(store, save(store, items("after it"))) == items("after it")
    for provider in (OLD, NEW):
        with pytest.raises(WrongKey):
            Store.open(env, storage, [provider])
    assert Store.open_by_kit(env, storage, kit).keyring == store.keyring


@pytest.mark.parametrize("how", DAMAGES)
def test_the_kit_replaces_the_keys(full: Full, kit: Kit, counts: Counter[str], how: str) -> None:
    env = Machine(9, beside=full.machine)
    objects = damaged(full, DAMAGES[how])
    before = dict(objects)
    storage = MemoryStorage(env, objects=objects)
    counts["keys lost"] += 1

    check_refused(full, storage)
    store = Store.open_by_kit(env, storage, kit)
    report = store.verify(deep=True)

    assert report.damaged_points == []
    assert {finding.object for finding in report.findings} >= {
        "keys/" if how == "removed" else "keys/00000002",
        "keys/00000002" if how == "removed" else "keys/00000001",
    }
    assert all(finding.object.startswith("keys/") for finding in report.findings)
    assert any(finding.message.endswith(COMMAND) for finding in report.findings)
    check_points(full, store)
    assert objects == before  # opening, verifying and restoring write nothing
    check_mended(full, kit, storage)


def test_the_kit_replaces_keys_that_the_disk_cannot_read(full: Full, kit: Kit, counts: Counter[str]) -> None:
    env = Machine(9, beside=full.machine)
    broken = Failing("read keys/", StorageError("keys/00000002: Input/output error; check the disk"))
    storage = MemoryStorage(env, objects=dict(full.objects), fail=broken)
    counts["keys lost"] += 1

    check_refused(full, storage)
    check_points(full, Store.open_by_kit(env, storage, kit))
    check_mended(full, kit, MemoryStorage(env, objects=storage.objects))


def test_a_kit_made_before_any_rotation_is_as_good(full: Full, counts: Counter[str]) -> None:
    """Kits of each age, after rotations, with `keys/` gone."""
    machine = Machine(3)
    objects: dict[str, bytes] = {}
    storage = MemoryStorage(machine, objects=objects)
    store = Store.init(machine, storage, [OLD])
    kits = [kit_of(store)]
    commit = save(store, items("ABC"))
    for number in range(4):
        store.rekey([opener(b"%d" % number)])
        kits.append(kit_of(store))
    for name in [name for name in objects if name.startswith("keys/")]:
        del objects[name]

    for number, kit in enumerate(kits):
        counts["keys lost"] += 1
        opened = Store.open_by_kit(machine, storage, kit)
        assert load(opened, commit) == items("ABC")
        opened.rekey([opener(b"again %d" % number)])
        opened = Store.open(machine, storage, [opener(b"again %d" % number)])
        assert opened.verify(deep=True).findings == []
        del objects[f"keys/{opened.keyring.sequence:08d}"]


@pytest.mark.parametrize("how", ["folder removed", "a file in its place", "a folder for the object"])
def test_the_folder_itself(full: Full, kit: Kit, counts: Counter[str], tmp_path: Path, how: str) -> None:
    env = Machine(9, beside=full.machine)
    place = tmp_path / "store"
    storage = FolderStorage(env, place, create=True)
    for name, content in full.objects.items():
        storage.put(name, content)
    shutil.rmtree(place / "keys")
    if how == "a file in its place":
        (place / "keys").write_bytes(b"?")
    elif how == "a folder for the object":
        (place / "keys" / "00000002" / "00000002").mkdir(parents=True)
    counts["keys lost"] += 1

    with pytest.raises(KeepstoneError):
        Store.open(env, FolderStorage(env, place), [NEW])
    store = Store.open_by_kit(env, FolderStorage(env, place), kit)
    check_points(full, store)
    assert not store.verify().ok
    if how == "a file in its place":  # only a person can say that nobody needs it
        with pytest.raises(StorageError):
            store.rekey([MENDED])
        (place / "keys").unlink()
    Store.open_by_kit(env, FolderStorage(env, place), kit).rekey([MENDED])

    mended = Store.open(env, FolderStorage(env, place), [MENDED])
    assert mended.verify(deep=True).findings == []
    check_points(full, mended)
