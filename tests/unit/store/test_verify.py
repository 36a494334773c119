# SPDX-License-Identifier: Apache-2.0
"""What verify reports; tests/reliability breaks everything in every way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from keepstone.errors import StorageError
from keepstone.objects import MemoryStorage
from keepstone.store import Store, scrub
from keepstone.store.footer import DATA, METADATA, Footer
from keepstone.store.layout import pack_name
from keepstone.store.memory import Seen, recall
from keepstone.store.survey import Survey
from tests.unit.store.known import Machine, Recorded, heads, items, load, new_store, save, submit

pytestmark = pytest.mark.store


def pack_of(store: Store, commit: str, kind: int) -> str:
    survey = Survey(store.context)
    names = survey.packs_of(store.points.find(commit, deleted=True).record)
    (name,) = [
        pack_name(pack) for pack in survey.sizes if pack_name(pack) in names and survey.packs.footer(pack).kind == kind
    ]
    return name


def flip(memory: MemoryStorage, name: str, at: int) -> None:
    content = bytearray(memory.objects[name])
    content[at] ^= 1
    memory.objects[name] = bytes(content)


@pytest.mark.parametrize("threads", [0, 3])
def test_a_sound_store(threads: int) -> None:
    machine = Machine(threads=threads)
    store = new_store(machine)
    save(store, items("ABCDEFGH"))
    gone = save(store, items("xyz"), "other")
    store.points.forget(store.points.find(gone))
    storage = store.context.storage
    assert isinstance(storage, MemoryStorage)
    stored = sum(len(content) for name, content in storage.objects.items() if name.startswith("packs/"))

    shallow, deep = store.verify(), store.verify(deep=True)

    for report in (shallow, deep):
        assert report.ok
        assert (report.points, report.packs, report.stored_bytes) == (2, 4, stored)
        assert report.damaged_points == []
    assert (shallow.deep, shallow.bytes_read) == (False, 0)
    assert (deep.deep, deep.bytes_read > 1100) == (True, True)


def test_an_empty_store(store: Store) -> None:
    report = store.verify(deep=True)

    assert report.ok
    assert (report.points, report.packs, report.chunks, report.bytes_read) == (0, 0, 0, 0)


def test_tick(store: Store) -> None:
    for letter in "ABC":
        save(store, items(letter), letter)
    told: list[tuple[int, int]] = []
    report = store.verify(deep=True, tick=lambda done, whole: told.append((done, whole)))

    assert len(told) > 6  # packs, and spans of them
    assert len(told) > 6  # packs, and spans of them
    assert told == sorted(told)
    assert told[-1] == (report.stored_bytes, report.stored_bytes)


def test_verify_changes_nothing(store: Store, memory: MemoryStorage) -> None:
    commit = save(store, items("ABC"))
    flip(memory, pack_of(store, commit, DATA), 70)
    storage = Recorded(store.context.env, objects=memory.objects)
    before = dict(memory.objects)
    Store(store.context.env, storage, store.descriptor, store.keyring, None).verify(deep=True)

    assert memory.objects == before
    assert {line.split()[0] for line in storage.log} <= {"read", "read_into", "list", "size"}


def test_only_deep_reads_data(store: Store, memory: MemoryStorage) -> None:
    commit = save(store, items("ABC"))
    name = pack_of(store, commit, DATA)
    flip(memory, name, 70)

    assert store.verify().ok
    report = store.verify(deep=True)
    assert [finding.object for finding in report.findings] == [name]
    assert report.damaged_points == [commit]


def test_points_that_share_damage_and_points_that_do_not(store: Store, memory: MemoryStorage) -> None:
    first = save(store, items("ABCD"))
    second = save(store, items("ABXY"))
    third = save(store, items("0123"), "other")
    flip(memory, pack_of(store, first, DATA), 70)

    report = store.verify(deep=True)

    assert set(report.damaged_points) == {first, second}
    assert load(store, third) == items("0123")


def footer_of(store: Store, name: str) -> Footer:
    survey = Survey(store.context)
    return next(survey.packs.footer(pack) for pack in survey.sizes if pack_name(pack) == name)


def test_a_point_that_needs_nothing_of_what_is_damaged_in_its_pack(store: Store, memory: MemoryStorage) -> None:
    """Damage is told chunk by chunk: two points share a pack with one bad frame, and only one needs it."""
    first, second = save(store, items("0123456789")), save(store, items("456789"), "other")
    name = pack_of(store, first, DATA)
    assert pack_of(store, second, DATA) == name
    flip(memory, name, 70)

    report = store.verify(deep=True)

    assert [finding.object for finding in report.findings] == [name]
    assert report.damaged_points == [first]
    assert load(store, second) == items("456789")


@pytest.mark.parametrize("bad", [[0], [0, -1], [1, 2], range(-1, 2)])
def test_damage_does_not_end_the_reading_of_a_pack(store: Store, memory: MemoryStorage, bad: Sequence[int]) -> None:
    """All the rest is read and checked, so that a second damage does not hide behind the first."""
    whole = save(store, items("0123456789"))
    parts = {save(store, items(letter), letter): position for position, letter in enumerate("0123456789")}
    name = pack_of(store, whole, DATA)
    footer = footer_of(store, name)
    read = store.verify(deep=True).bytes_read
    broken = {frame % footer.frames for frame in bad}
    for frame in broken:
        flip(memory, name, footer.offsets[frame] + 3)

    report = store.verify(deep=True)

    hit = {commit for commit, position in parts.items() if footer.frame_of(position) in broken}
    lost = sum(footer.first_chunk[frame + 1] - footer.first_chunk[frame] for frame in broken)
    assert set(report.damaged_points) == {whole, *hit}
    assert report.bytes_read == read
    assert [finding.object for finding in report.findings] == [name]
    assert f"{lost} of its 10 chunks are lost" in report.findings[0].message


def test_a_sector_that_cannot_be_read(store: Store, memory: MemoryStorage) -> None:
    """It costs the frame that it lies in; those that are read together with it are read again, one by one."""
    first, rest = save(store, items("0123", 9000)), save(store, items("123", 9000), "rest")
    name = pack_of(store, first, DATA)

    class Disk(MemoryStorage):
        def read_into(self, asked: str, offset: int, buffer: memoryview) -> int:
            if asked == name and offset < 8192 and offset + len(buffer) > 4096:
                raise StorageError(f"{name}: Input/output error; check the disk that it lies on")
            return super().read_into(asked, offset, buffer)

    env = store.context.env
    report = Store(env, Disk(env, objects=memory.objects), store.descriptor, store.keyring, None).verify(deep=True)

    assert [(finding.object, finding.code) for finding in report.findings] == [(name, "StorageError")]
    assert report.damaged_points == [first]
    assert pack_of(store, rest, DATA) == name
    assert report.bytes_read > 27_000


def test_a_damaged_node(store: Store, memory: MemoryStorage) -> None:
    first, second = save(store, items("ABCD")), save(store, items("0123"), "other")
    name = pack_of(store, first, METADATA)
    flip(memory, name, 70)

    report = store.verify()

    assert report.damaged_points == [first]
    assert any(name in finding.message for finding in report.findings)
    assert load(store, second) == items("0123")


def test_damage_where_nobody_needs_it_damages_no_point(store: Store, memory: MemoryStorage) -> None:
    gone = save(store, items("xyz"), "other")
    name = pack_of(store, gone, DATA)
    save(store, items("ABC"))
    store.points.purge(store.points.find(gone), now=True)
    flip(memory, name, 70)

    report = store.verify(deep=True)

    assert [finding.object for finding in report.findings] == [name]
    assert report.damaged_points == []


def test_findings_say_what_to_do(store: Store, memory: MemoryStorage) -> None:
    commit = save(store, items("ABC"))
    flip(memory, f"commits/{commit}", 60)
    flip(memory, "FORMAT.md", 0)

    findings = {finding.object: finding for finding in store.verify().findings}

    assert set(findings) == {f"commits/{commit}", "FORMAT.md"}
    assert {finding.code for finding in findings.values()} == {"CorruptObject"}
    for name, finding in findings.items():
        assert name in finding.message
        assert "copy" in finding.message or "take it from" in finding.message


def test_a_disk_that_fails_while_it_verifies(store: Store, memory: MemoryStorage) -> None:
    """One sector cannot be read: that object is told, and the rest is looked at all the same."""
    good, bad = save(store, items("ABC")), save(store, items("0123"), "other")
    name = pack_of(store, bad, DATA)

    def fail(operation: str, asked: str) -> Exception | None:
        return StorageError(f"{asked}: Input/output error") if asked == name and operation.startswith("read") else None

    storage = MemoryStorage(store.context.env, objects=memory.objects, fail=fail)
    report = Store(store.context.env, storage, store.descriptor, store.keyring, None).verify(deep=True)

    assert {finding.object for finding in report.findings} >= {name}
    assert report.damaged_points == [bad]
    assert good not in report.damaged_points


@pytest.mark.parametrize("cached", [False, True])
def test_a_quick_look_does_not_forget_what_a_deep_one_found(tmp_path: Path, cached: bool) -> None:
    """A deep verify finds a damaged frame, a later one that reads no data finds another damage: backups build on
    neither."""
    store = new_store(cache=tmp_path if cached else None)
    storage = store.context.storage
    assert isinstance(storage, MemoryStorage)
    first, second = save(store, items("ABC")), save(store, items("0123"), "other")
    flip(storage, pack_of(store, first, DATA), 70)
    assert not store.verify(deep=True).ok
    name = pack_of(store, second, DATA)
    flip(storage, name, len(storage.objects[name]) - 100)
    assert [finding.object for finding in store.verify().findings if finding.object == name]
    if cached:
        store = Store(store.context.env, storage, store.descriptor, store.keyring, tmp_path)

    again = save(store, items("ABC0123"), "third")

    assert load(store, again) == items("ABC0123")
    assert store.verify(deep=True).damaged_points == [first, second]


@pytest.mark.parametrize("cached", [False, True])
def test_a_quick_look_tells_again_of_what_a_deep_one_found(tmp_path: Path, cached: bool) -> None:
    """It has not read the data, so it cannot call the store whole; nor does it say which points are damaged."""
    store = new_store(cache=tmp_path if cached else None)
    storage = store.context.storage
    assert isinstance(storage, MemoryStorage)
    commit = save(store, items("ABC"))
    name = pack_of(store, commit, DATA)
    flip(storage, name, 70)
    assert store.verify(deep=True).damaged_points == [commit]
    if cached:
        store = Store(store.context.env, storage, store.descriptor, store.keyring, tmp_path)

    for _ in range(2):
        report = store.verify()
        assert [(finding.object, finding.code) for finding in report.findings] == [(name, "CorruptObject")]
        assert "verify --deep" in report.findings[0].message
        assert report.damaged_points == []

    flip(storage, name, 70)
    assert not store.verify().ok  # it came back from a copy, and nobody has read it
    assert store.verify(deep=True).ok
    assert store.verify().ok


def test_a_quick_look_is_silent_about_what_is_gone(store: Store, memory: MemoryStorage) -> None:
    commit = save(store, items("ABC"))
    flip(memory, pack_of(store, commit, DATA), 70)
    assert not store.verify(deep=True).ok
    store.points.purge(store.points.find(commit), now=True)
    store.reclaim()

    assert store.verify().ok


def test_what_is_mended_counts_again(tmp_path: Path) -> None:
    """The pack came back from a copy: the next verify sees it, and backups refer to it."""
    store = new_store(cache=tmp_path)
    storage = store.context.storage
    assert isinstance(storage, MemoryStorage)
    commit = save(store, items("ABC"))
    name = pack_of(store, commit, DATA)
    flip(storage, name, 70)
    assert not store.verify(deep=True).ok
    flip(storage, name, 70)
    assert store.verify(deep=True).ok
    with store.writer("other", "known") as writing:
        submit(writing, items("ABC"))
        writing.drain()
        assert writing.new_bytes == 0


def test_it_remembers_what_it_saw(tmp_path: Path) -> None:
    store = new_store(cache=tmp_path)
    save(store, items("A"))
    store.verify()

    assert store.cache is not None
    seen = recall(store.context.env, store.cache)
    assert isinstance(seen, Seen)
    assert seen.sequence == len(heads(store))


def test_long_packs_are_read_in_spans(store: Store, memory: MemoryStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans of any length, over frames of any length."""
    commit = save(store, items("".join(chr(0x100 + number) for number in range(60))))
    name = pack_of(store, commit, DATA)
    size = len(memory.objects[name])
    for length in (1, 300, 1000, 5000, 1 << 20):
        monkeypatch.setattr(scrub, "_READ", length)
        assert store.verify(deep=True).ok
        for at in (70, size // 3, size // 2):
            flip(memory, name, at)
            assert [finding.object for finding in store.verify(deep=True).findings] == [name]
            flip(memory, name, at)
