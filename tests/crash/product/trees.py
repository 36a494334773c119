# SPDX-License-Identifier: Apache-2.0
"""Points of a tiny tree of files, in two generations."""

from __future__ import annotations

import hashlib
import os
import stat
from functools import cache
from pathlib import Path

from keepstone.env import Env
from keepstone.store import LocalWriter, Point, Store
from keepstone.workloads.files import RestoreOptions, Selection, backup_files, restore_files
from keepstone.workloads.progress import Silent
from tests.crash.workload import scratch

__all__ = ["GENERATIONS", "KIND", "grow", "restore", "write"]

KIND = "files"
GENERATIONS = ("tree one", "tree two")
_TIME = 1_700_000_000_123_456_789  # ns


def _data(name: str, size: int) -> bytes:
    return hashlib.shake_128(name.encode()).digest(size)


_FILES: dict[str, dict[str, bytes]] = {
    "tree one": {"a": _data("a", 3000), "sub/b": b"b\n", "sub/empty": b"", "sub/deep/c": _data("c", 900)},
    "tree two": {"a": _data("A", 3000), "sub/b": b"b\n", "sub/empty": b"", "sub/deep/d": _data("c", 900)},
}


def grow(root: Path, generation: str) -> None:
    """Make the tree at `root` this generation; what is the same in both is not touched."""
    wanted = _FILES[generation]
    for path in [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]:
        if str(path.relative_to(root)) not in {*wanted, "sub/hard"}:
            path.unlink()
    for name, data in wanted.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)
            os.utime(path, ns=(_TIME, _TIME))
    if not (root / "sub/hard").exists():
        os.link(root / "sub/b", root / "sub/hard")
        os.symlink("../a", root / "sub/soft")


def _described(root: Path) -> dict[str, str]:
    """What can be said of everything below `root` that a restore must bring back."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            content = hashlib.sha256(path.read_bytes()).hexdigest() + f" {status.st_nlink} {status.st_mtime_ns}"
        else:
            content = ""
        found[str(path.relative_to(root))] = f"{stat.filemode(status.st_mode)} {content}"
    return found


def write(env: Env, writer: LocalWriter, root: Path) -> str:
    """Make a point of the tree; its id."""
    return backup_files(env, writer, root, Selection(), Silent()).commit


@cache
def _wanted() -> dict[str, dict[str, str]]:
    with scratch() as root:
        described = {}
        for generation in GENERATIONS:
            grow(root, generation)
            described[generation] = _described(root)
        return described


def restore(env: Env, store: Store, point: Point) -> str:
    """The generation that a point restores to; else what is wrong."""
    with scratch() as directory, store.reader(point) as reader:
        report = restore_files(env, reader, directory / "restored", RestoreOptions(), Silent())
        found = _described(directory / "restored")
    if report.failed:
        return f"incomplete: {report.failed}"
    for generation, wanted in _wanted().items():
        if wanted == found:
            return generation
    return f"wrong tree: {found}"
