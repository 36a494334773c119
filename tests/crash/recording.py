# SPDX-License-Identifier: Apache-2.0
"""One recorded run of a workload: what the disk held before, and the log of what happened to it.

A recording is refused where replaying it does not give, byte for byte, the directory that the run really left: then the
shim missed an operation, and no state made from the log could be trusted.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from tests.crash import oplog
from tests.crash.model import Blob, Inode, Model
from tests.crash.oplog import Record
from tests.crash.replay import MAPPED, Node, final
from tests.crash.runner import Runner
from tests.crash.shim import Fault
from tests.crash.workload import Workload

__all__ = ["Incomplete", "Recording", "load", "record"]


class Incomplete(AssertionError):
    """The log does not explain the directory: something changed it that the shim does not see."""


@dataclass(frozen=True, slots=True)
class Recording:
    """The recording kept in `directory`: `workload`, mutating `operations` of the run, and its `records`."""

    directory: Path
    workload: Workload
    operations: int
    records: list[Record]

    def model(self, journal: bool) -> Model:
        """The disk as it was before the first record."""
        description = json.loads((self.directory / "recording.json").read_text())
        root = Inode(0o755, {})
        inodes = {description["root"]: root}
        for path, number, mode, is_directory in description["base"]:
            source = self.directory / "base" / path
            blob = None if is_directory else Blob(source.read_bytes())
            # Two names of one file: keep one inode.
            inode = inodes.setdefault(number, Inode(mode, {} if is_directory else None, blob))
            names = inodes[_inode(description, str(Path(path).parent))].names
            assert names is not None
            names[source.name] = inode
        return Model(root, inodes, journal)


def _inode(description: Mapping[str, object], path: str) -> int:
    base = description["base"]
    assert isinstance(base, list)
    number = description["root"] if path == "." else next(entry[1] for entry in base if entry[0] == path)
    assert isinstance(number, int)
    return number


def record(runner: Runner, directory: Path, base: Path | None = None, fault: Fault | None = None) -> Recording:
    """Run the runner's workload on an empty disk, or on a copy of `base`, and keep the recording in `directory`.

    Raises RuntimeError where the run fails without a fault, Incomplete where the log misses something.
    """
    disk = directory / "disk"
    directory.mkdir(parents=True)
    if base:
        shutil.copytree(base, directory / "base", symlinks=True)
        shutil.copytree(base, disk, symlinks=True)
    else:
        disk.mkdir()
    description = {
        "script": str(runner.workload.script),
        "pythonpath": [str(path) for path in runner.workload.pythonpath],
        "root": disk.stat().st_ino,
        "base": [
            (path, (disk / path).stat().st_ino, node.mode, node.blob is None)
            for path, node in sorted(_walk(disk).items())
        ],
    }
    outcome = runner.run(disk, directory, fault, log=True)
    if outcome.hung or (outcome.status and not fault):
        how = "hung" if outcome.hung else f"ended with status {outcome.status}"
        raise RuntimeError(f"{runner.workload.script} {how} while it was recorded:\n{outcome.output}")
    description["operations"] = outcome.counters.operations
    (directory / "recording.json").write_text(json.dumps(description))
    made = load(directory)
    _compare(final(made.model(journal=False), made.records), _walk(disk))
    shutil.rmtree(disk)
    return made


def load(directory: Path) -> Recording:
    """The recording that `record` left in `directory`."""
    description = json.loads((directory / "recording.json").read_text())
    workload = Workload(Path(description["script"]), tuple(Path(path) for path in description["pythonpath"]))
    return Recording(directory, workload, description["operations"], oplog.read(directory / "log"))


def _walk(root: Path) -> dict[str, Node]:
    tree: dict[str, Node] = {}
    for parent, directories, files in os.walk(root):
        for name in directories + files:
            path = Path(parent, name)
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise Incomplete(f"{path} is neither file nor directory: add its kind to shim.c and model.py")
            if not any(fnmatch(name, pattern) for pattern in MAPPED):
                blob = None if path.is_dir() else Blob(path.read_bytes())
                tree[str(path.relative_to(root))] = Node(path.stat().st_mode & 0o7777, blob)
    return tree


def _compare(replayed: Mapping[str, Node], real: Mapping[str, Node]) -> None:
    for path in sorted(replayed.keys() | real.keys()):
        ours, theirs = replayed.get(path), real.get(path)
        if not ours or not theirs:
            raise Incomplete(f"{path} is {'only in the log' if ours else 'on the disk and not in the log'}")
        if (ours.blob and ours.blob.data) != (theirs.blob and theirs.blob.data):
            raise Incomplete(f"{path} on the disk has other bytes than the log gives it")
