# SPDX-License-Identifier: Apache-2.0
"""Files in the disks of points, of one disk and of machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepstone.env import Env
from keepstone.store import Reader
from keepstone.workloads import Silent
from keepstone.workloads.chunks import ChunkCache
from keepstone.workloads.files import RestoreOptions, restore_files
from keepstone.workloads.guestfiles.tree import GuestTree, guest_reader
from tests.machines.points import machine_point
from tests.unit.files.points import new_store
from tests.unit.guestfiles.filesystems import ext, fat, plain_tree

pytestmark = pytest.mark.vm


def paths(env: Env, reader: Reader, path: bytes) -> list[bytes]:
    with guest_reader(env, reader) as guest, ChunkCache(env, guest) as chunks:
        return [entry.name for entry in GuestTree(guest, chunks).listing(path)]


def test_a_machine(tmp_path: Path) -> None:
    env = Env(threads=2)
    tree = plain_tree(tmp_path / "tree")
    disks = {"sda": ext(tmp_path / "sda", tree), "sdb": fat(tmp_path / "sdb", tree / "folder" / "deep")}
    store = new_store(env)
    point = machine_point(store, disks)
    with store.reader(point) as reader:
        assert paths(env, reader, b"") == [b"sda", b"sdb"]
        assert paths(env, reader, b"sdb") == [b"0", b"disk.img"]
        with guest_reader(env, reader) as guest:
            options = RestoreOptions(paths=(b"sda/0/large.bin", b"sdb/0/deeper"), xattrs=False)
            report = restore_files(env, guest, tmp_path / "out", options, Silent())
    assert report.failed == []
    assert (tmp_path / "out" / "sda" / "0" / "large.bin").read_bytes() == (tree / "large.bin").read_bytes()
    deeper = tree / "folder" / "deep" / "deeper"
    assert (tmp_path / "out" / "sdb" / "0" / "deeper" / "x").read_bytes() == (deeper / "x").read_bytes()
