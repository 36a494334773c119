# SPDX-License-Identifier: Apache-2.0
"""Makes the golden stores: what format 1 looked like when it was published, one store of each hash profile.

    python -m tests.data.golden [FOLDER]

Beside each store lie the keys that open it, and what its points restore to. They are committed, and never made again
once the format is published: every later version must read them. They hold every kind of object: a compaction's moves,
a rotation of keys, a soft-deleted point, an aborted commit, a backup that still runs, a tombstone that waits for it and
one with its verdict.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any

from keepstone.crypto import Argon2Cost, KeyProvider, PassphraseProvider, PlatformKeyProvider, kit_text
from keepstone.disks import RawSource
from keepstone.env import Env, Process
from keepstone.objects import FolderStorage
from keepstone.store import Point, Store
from keepstone.store.leases import Tomb, Tombs
from keepstone.workloads import Silent
from keepstone.workloads.files.backup.run import backup_files
from keepstone.workloads.files.selection import Selection
from keepstone.workloads.images import backup_image

__all__ = ["GOLDEN", "KEY", "PASSPHRASE", "PROFILES", "GoldenEnv", "make", "restored"]

GOLDEN = Path(__file__).parent / "golden-format-1"
PROFILES = ("blake3", "hmac-sha256")
KEY = bytes.fromhex("11" * 32)
PASSPHRASE = "golden"
_CHUNK = 256 << 10
_DATE = 1_700_000_000_123_456_789


class GoldenEnv(Env):
    """Chance is SHAKE-256 of a counter, each look at a clock a millisecond later, and its processes run for ever."""

    def __init__(self, profile: str) -> None:
        super().__init__(threads=0)
        self._draws = 0
        self._now = 1_790_000_000 * 10**9
        self._profile = profile

    def random(self, count: int) -> bytes:
        self._draws += 1
        return hashlib.shake_256(f"golden {self._profile} {self._draws}".encode()).digest(count)

    def wall_time(self) -> int:
        self._now += 10**6
        return self._now

    def boot_time(self) -> int:
        return self.wall_time()

    def process(self) -> Process:
        return Process("golden", "5f1c1b1e-0000-4000-8000-000000000001", 1, 1)

    def is_running(self, process: Process) -> bool | None:
        return process == self.process()


def make(folder: Path, profile: str) -> None:
    """One golden store with all that belongs to it, in the new folder."""
    folder.mkdir(parents=True)
    (folder / "key").write_bytes(KEY)
    (folder / "key").chmod(0o600)
    (folder / "passphrase").write_text(PASSPHRASE + "\n")
    env = GoldenEnv(profile)
    cheap = PassphraseProvider(PASSPHRASE.encode(), cost=Argon2Cost(iterations=1, memory_kib=64, lanes=1), weak=True)
    providers: list[KeyProvider] = [PlatformKeyProvider(folder / "key"), cheap]
    storage = FolderStorage(env, folder / "store", create=True)
    store = Store.init(env, storage, providers, hashing_name=profile, store_id=b"golden store #01")
    with tempfile.TemporaryDirectory() as scratch:
        expected = _fill(store, Path(scratch), providers)
    (folder / "kit.json").write_bytes(kit_text(env, store.keyring, "a golden store"))
    (folder / "expected.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")
    shutil.rmtree(folder / "store" / "tmp")
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # as a version control has them


def _fill(store: Store, scratch: Path, providers: list[KeyProvider]) -> dict[str, Any]:
    """What each point of the finished store restores to, by its id."""
    disk = scratch / "disk"
    disk.touch()
    os.truncate(disk, 3 * _CHUNK + 1000)
    with disk.open("r+b") as file:
        os.pwrite(file.fileno(), b"The first words of the second chunk.\n" * 40, _CHUNK)
        os.pwrite(file.fileno(), b"the end", 3 * _CHUNK + 993)
    expected = {_image(store, disk).id: restored(disk)}

    for number in range(30):
        _write(scratch / "purged" / f"{number}", _noise(number, 1500))
    purged = _files(store, scratch / "purged")
    _tree(scratch / "home")
    expected[_files(store, scratch / "home").id] = restored(scratch / "home")
    _write(scratch / "home" / "second generation", b"more words\n")
    os.utime(scratch / "home", ns=(_DATE, _DATE))
    expected[_files(store, scratch / "home").id] = restored(scratch / "home")
    _write(scratch / "deleted" / "file", b"soft-deleted\n")
    deleted = _files(store, scratch / "deleted")
    expected[deleted.id] = restored(scratch / "deleted")
    store.points.forget(deleted)
    store.points.purge(purged, now=True)
    assert store.reclaim().packs_compacted

    store.rekey(providers)
    aborted = store.writer("aborted", "files")
    assert store.commits.abort(aborted.commit_id)
    aborted.abort()
    for number in range(4):
        _write(scratch / "gone" / f"{number}", _noise(100 + number, 300))
    store.points.purge(_files(store, scratch / "gone"), now=True)
    store.writer("running", "files")  # and never ended
    assert store.reclaim().waiting
    tombs = Tombs(store.context)
    decided = tombs.publish(Tomb(packs=[], moves=[]))
    tombs.wait_for(decided, [])
    tombs.decide(decided, Tomb(packs=[], moves=[]))  # and never carried out
    return expected


def _noise(seed: int, size: int) -> bytes:
    return hashlib.shake_256(b"noise %d" % seed).digest(size)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(_DATE, _DATE))


def _tree(root: Path) -> None:
    root.mkdir()
    for number in (3, 7, 11):  # what is left of the pack that is compacted
        _write(root / f"of the first pack {number}", _noise(number, 1500))
    _write(root / "words", b"some words that repeat\n" * 50)
    _write(root / "empty", b"")
    _write(root / "folder" / "words again", b"some words that repeat\n" * 50)
    os.link(root / "words", root / "folder" / "hard link")
    (root / "link").symlink_to("folder/words again")
    os.mkfifo(root / "pipe", 0o640)
    _write(Path(os.fsdecode(os.fsencode(root) + b"/not UTF-8 \xff")), b"x")
    with (root / "sparse").open("wb") as file:
        file.truncate(1 << 20)
        os.pwrite(file.fileno(), _noise(50, 1000), 512 << 10)
    _write(root / "program", b"#!/bin/sh\n")
    (root / "program").chmod(0o755)
    os.setxattr(root / "program", "user.note", b"an attribute\0")
    for path in [*root.rglob("*"), root]:
        os.utime(path, ns=(_DATE, _DATE), follow_symlinks=False)


def _files(store: Store, source: Path) -> Point:
    with store.writer(source.name, "files") as writer:
        backup_files(store.context.env, writer, source, Selection(), Silent())
    return store.points.find("latest", item=source.name)


def _image(store: Store, source: Path) -> Point:
    with store.writer(source.name, "images") as writer:
        backup_image(store.context.env, writer, RawSource(store.context.env, source), Silent(), name=b"disk")
    return store.points.find("latest")


def restored(root: Path) -> dict[str, dict[str, Any]]:
    """What is at `root` and beneath, as far as a restore by anybody brings it back."""
    found: dict[str, dict[str, Any]] = {}
    for path in [root, *root.rglob("*")] if root.is_dir() else [root]:
        status = path.lstat()
        entry: dict[str, Any] = {"mode": oct(status.st_mode), "mtime": status.st_mtime_ns, "links": status.st_nlink}
        if stat.S_ISREG(status.st_mode):
            entry |= {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "size": status.st_size}
            entry["xattrs"] = {name: os.getxattr(path, name).hex() for name in os.listxattr(path)}
        elif stat.S_ISLNK(status.st_mode):
            entry["target"] = os.readlink(path)
        elif stat.S_ISDIR(status.st_mode):
            del entry["links"]
        found["" if path == root else str(path.relative_to(root))] = entry
    if root.is_file():
        del found[""]["mode"], found[""]["mtime"]
    return found


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN
    for name in PROFILES:
        shutil.rmtree(target / name, ignore_errors=True)
        make(target / name, name)
