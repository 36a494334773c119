# SPDX-License-Identifier: Apache-2.0
"""Sealed points: they come back as they were, and the service reads nothing of them."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from keepstone.crypto import open_keyring
from keepstone.env import Env
from keepstone.errors import WrongKey
from keepstone.remote import sealed
from keepstone.remote.sealed import CHUNK, store_id
from keepstone.store import Node, Reader, Store
from keepstone.workloads import Silent
from keepstone.workloads.files import RestoreOptions, restore_files
from tests.unit.files.backed import World
from tests.unit.files.trees import make_tree, snapshot
from tests.unit.images.disk import CHUNK as BLOCK
from tests.unit.images.disk import noise, patch, sparse

from .sealing import SealedFar, keys_of, opener, sealed_store

pytestmark = pytest.mark.agents


def restored(env: Env, reader: Reader, target: Path) -> dict[bytes, dict[str, object]]:
    progress = Silent()
    report = restore_files(env, reader, target, RestoreOptions(), progress)
    assert (report.failed, report.warnings, progress.warnings) == ([], [], [])
    return snapshot(target)


def a_tree(root: Path) -> None:
    root.mkdir()
    for number in range(40):
        (root / f"folder {number % 4}").mkdir(exist_ok=True)
        (root / f"folder {number % 4}" / f"{number}").write_bytes(b"%d " % number * (number * 50))
    (root / "long").write_bytes(random.Random(1).randbytes(5 * CHUNK + 77))
    (root / "empty").touch()


@pytest.mark.skipif(os.geteuid() != 0, reason="owners, devices and capabilities can only be made by root")
@pytest.mark.parametrize("threads", [0, 2])
def test_everything_comes_back(tmp_path: Path, threads: int) -> None:
    env = World(threads=threads)
    make_tree(tmp_path / "source")
    far = SealedFar(env, sealed_store(env)[0])

    report = far.back_up(tmp_path / "source")

    assert restored(env, far.reader(report.commit), tmp_path / "target") == snapshot(tmp_path / "source")
    assert far.point(report.commit).record.kind == "sealed-files"
    assert far.store.verify(deep=True).ok


@pytest.mark.parametrize("threads", [0, 2])
def test_a_disk_comes_back(tmp_path: Path, threads: int) -> None:
    env = World(threads=threads)
    disk = sparse(tmp_path / "disk", 3 * (1 << 30) + 5000, {0: noise(3, 1), 1 << 30: noise(4.5, 2), 3 << 30: b"end"})
    far = SealedFar(env, sealed_store(env)[0])

    report = far.back_up_image(disk)

    from keepstone.disks import RawSink
    from keepstone.workloads.images import image_size, restore_image

    reader = far.reader(report.commit)
    with RawSink(env, tmp_path / "target", image_size(reader)) as sink:
        assert restore_image(env, reader, sink, Silent()) == []
    for at in (0, 1 << 30, (1 << 30) + 4 * BLOCK, (3 << 30)):
        with disk.open("rb") as one, (tmp_path / "target").open("rb") as other:
            one.seek(at)
            other.seek(at)
            assert one.read(2 * BLOCK) == other.read(2 * BLOCK)

    patch(disk, {(1 << 30) + BLOCK: noise(1, 9)})
    again = far.back_up_image(disk)
    assert BLOCK < far.direct.sent < 1.1 * BLOCK  # one chunk and the leaf around it
    assert far.store.verify(deep=True).ok
    assert again.commit != report.commit


def test_what_has_not_changed_is_not_sent_again(tmp_path: Path) -> None:
    env = World()
    a_tree(tmp_path / "source")
    far = SealedFar(env, sealed_store(env)[0])
    first = far.back_up(tmp_path / "source")
    assert far.direct.sent > 5 * CHUNK

    far.back_up(tmp_path / "source")
    assert far.direct.sent < 10_000

    for path in (tmp_path / "source").rglob("*"):  # read again, and found by their ids in the nodes of the last point
        os.utime(path)
    (tmp_path / "source" / "long").rename(tmp_path / "source" / "folder 1" / "renamed")
    with (tmp_path / "source" / "folder 1" / "renamed").open("r+b") as file:
        file.seek(2 * CHUNK + 5)
        file.write(b"!")
    report = far.back_up(tmp_path / "source")
    assert CHUNK < far.direct.sent < 1.2 * CHUNK
    assert far.direct.count("known") == far.direct.count("ids") == 0
    assert restored(env, far.reader(report.commit), tmp_path / "target") == snapshot(tmp_path / "source")
    assert restored(env, far.reader(first.commit), tmp_path / "first").keys() != snapshot(tmp_path / "source").keys()


def test_another_item_has_other_blobs(tmp_path: Path) -> None:
    """Nobody sees that two items have the same content."""
    env = World()
    a_tree(tmp_path / "source")
    store, _ = sealed_store(env)
    one, other = SealedFar(env, store, "one"), SealedFar(env, store, "other")
    one.back_up(tmp_path / "source")
    other.back_up(tmp_path / "source")
    added = [point.record.added for point in store.points.list()]
    assert added[0] == added[1] > 5 * CHUNK


def test_long_columns_lie_in_nodes_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (sealed, __import__("keepstone.remote.manifest", fromlist=["SLICE"])):
        monkeypatch.setattr(module, "SLICE", 3)
    env = World()
    a_tree(tmp_path / "source")
    far = SealedFar(env, sealed_store(env)[0])
    report = far.back_up(tmp_path / "source")
    reader = far.reader(report.commit)
    kinds = {node.kind for node in _nodes(far, report.commit)}
    assert kinds == {"files/page", "files/page/columns"}
    assert restored(env, reader, tmp_path / "target") == snapshot(tmp_path / "source")
    (tmp_path / "source" / "new").write_bytes(b"new")
    report = far.back_up(tmp_path / "source")
    assert far.direct.sent < 20_000
    assert restored(env, far.reader(report.commit), tmp_path / "again") == snapshot(tmp_path / "source")


def _nodes(far: SealedFar, commit: str) -> list[Node]:
    reader = far.store.reader(far.point(commit), sealed=True)
    pending, found = reader.root(), []
    while pending:
        node = reader.node(pending.pop())
        found.append(node)
        pending += reader.child_refs(node)
    return found


@pytest.mark.parametrize("profile", ["blake3", "hmac-sha256"])
def test_another_machine_with_the_passphrase_restores(tmp_path: Path, profile: str) -> None:
    env = World()
    a_tree(tmp_path / "source")
    keyring, kept = keys_of(env, "tree", profile=profile)
    far = SealedFar(env, sealed_store(env)[0], keyring=keyring)
    report = far.back_up(tmp_path / "source")

    elsewhere = far.with_keys(open_keyring(kept, store_id("tree"), [opener()]))
    assert restored(env, elsewhere.reader(report.commit), tmp_path / "target") == snapshot(tmp_path / "source")
    with pytest.raises(WrongKey, match="passphrase"):
        open_keyring(kept, store_id("tree"), [opener(b"a wrong passphrase")])


def test_who_has_the_store_alone_is_told_who_can_restore(tmp_path: Path) -> None:
    env = World()
    a_tree(tmp_path / "source")
    far = SealedFar(env, sealed_store(env)[0])
    point = far.point(far.back_up(tmp_path / "source").commit)
    with pytest.raises(WrongKey, match="agent has that passphrase"):
        far.store.reader(point)


CANARIES = ["a-name-seen-nowhere", "a-folder-of-this-name", "user.attribute-seen-nowhere", "link-to-nowhere-else"]
CONTENT = b"content that only this machine may read. "


def canaries(root: Path) -> dict[str, bytes]:
    """A tree full of what must be seen nowhere; these things by their names."""
    name, folder, attribute, link = CANARIES
    (root / folder).mkdir(parents=True)
    (root / folder / name).write_bytes(CONTENT * 5000)
    noise = random.Random(3).randbytes(1_234_567)
    (root / folder / "noise").write_bytes(noise)
    os.setxattr(root / folder / name, attribute, b"value-seen-nowhere")
    os.symlink(link, root / "symlink")
    found = {text: text.encode() for text in (*CANARIES, "value-seen-nowhere")}
    found["content"] = CONTENT
    found["noise"] = noise[1000:1032]
    for label, size in (("size of a file", 1_234_567), ("size of another", len(CONTENT) * 5000)):
        found[label] = size.to_bytes(8, "little")
    for label, path in (("mtime", root / folder / name), ("mtime of the folder", root / folder)):
        found[label] = path.stat().st_mtime_ns.to_bytes(8, "little")
    return found


def keep(parts: list[bytes], chunk: memoryview) -> None:
    parts.append(bytes(chunk))


def seen_by_the_service(far: SealedFar, store: Store) -> bytes:
    """All that came through the wire, and all that the store can open of what it keeps."""
    parts = [part for _, request, answer in far.direct.said for part in (request, answer)]
    for point in store.points.list():
        parts += [point.record.detail, point.record.root]
        reader = store.reader(point, sealed=True)
        pending = reader.root()
        while pending:
            node = reader.node(pending.pop())
            parts += [node.kind.encode(), node.body]
            pending += reader.child_refs(node)
            reader.fetch([(ref, parts) for ref in reader.chunk_refs(node)], keep)
    return b"\0\0".join(parts)


def test_the_service_sees_no_canary(tmp_path: Path) -> None:
    env = World()
    wanted = canaries(tmp_path / "source")
    store, storage = sealed_store(env)
    far = SealedFar(env, store)
    report = far.back_up(tmp_path / "source")
    restored(env, far.reader(report.commit), tmp_path / "target")
    seen = seen_by_the_service(far, store) + b"".join(storage.objects.values())
    assert not [label for label, canary in wanted.items() if canary in seen]


def test_the_search_for_canaries_finds_them_where_they_are(tmp_path: Path) -> None:
    """Without a veil everything is there: else the test before this one tests nothing."""
    from .far import Far

    env = World()
    wanted = canaries(tmp_path / "source")
    store, _ = sealed_store(env)
    far = Far(env, store)
    far.back_up(tmp_path / "source")
    seen = seen_by_the_service(far, store)  # type: ignore[arg-type]
    assert [label for label, canary in wanted.items() if canary not in seen] == []
