# SPDX-License-Identifier: Apache-2.0
"""From a log to the distinct states that a power loss may leave.

At each record boundary a policy chooses which of the undecided things reached the disk:

| policy       | names                     | data of each file                                             |
|--------------|---------------------------|---------------------------------------------------------------|
| `drop`       | durable ones only         | durable only                                                  |
| `keepall`    | all: what kill -9 leaves  | all                                                           |
| `meta`       | all                       | durable only                                                  |
| `metazero`   | all                       | new lengths, zeros instead of data                            |
| `data`       | durable ones only         | all                                                           |
| `prefdata`   | all                       | a random number of its changes, in order                      |
| `randprefix` | a random number, in order | each change whole, lost, or torn into 512-byte sectors        |
| `randsub`    | any of them               | as before                                                     |

A state is named by (record, policy, trial); with the same seed it is the same state in every process.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from tests.crash.model import Blob, Change, Entry, Inode, Model, patch
from tests.crash.oplog import Record

__all__ = ["MAPPED", "PROFILES", "Node", "Profile", "State", "final", "states"]

MAPPED = ("*-shm",)
"""Names of files stored into through a mapping, which no shim sees: SQLite's shared memory, rebuilt at each open."""

_SECTOR = 512  # bytes that a disk writes whole or not at all


@dataclass(frozen=True, slots=True)
class Profile:
    """A kind of file system: how names become durable, and the policies that its crashes can follow.

    `sampled` policies throw dice, so each runs `trials` times.
    """

    journal: bool
    certain: tuple[str, ...]
    sampled: tuple[str, ...] = ()


_CERTAIN = ("drop", "keepall", "meta", "metazero", "data")
PROFILES: Mapping[str, Profile] = {
    "kill": Profile(False, ("keepall",)),
    "posix": Profile(False, _CERTAIN, ("prefdata", "randprefix", "randsub")),
    "ext4": Profile(True, _CERTAIN, ("prefdata", "randprefix")),
}


@dataclass(frozen=True, slots=True)
class Node:
    """A file with its content, or a directory; `mode` is its permission bits."""

    mode: int
    blob: Blob | None


@dataclass(frozen=True, slots=True)
class State:
    """What the disk holds if the power fails after `record` records: its tree by path, and what was acknowledged."""

    record: int
    policy: str
    trial: int
    tree: dict[str, Node]
    acks: list[Any]

    def __str__(self) -> str:
        return f"record {self.record}, policy {self.policy}, trial {self.trial}"


def states(
    model: Model, records: Sequence[Record], profile: Profile, seed: int = 0, trials: int = 3
) -> Iterator[State]:
    """Each distinct state of replaying `records` on `model`, in the log's order."""
    seen: set[bytes] = set()
    choices = [(name, 0) for name in profile.certain]
    choices += [(name, trial) for name in profile.sampled for trial in range(trials)]
    for number in range(len(records) + 1):
        if number:
            model.apply(records[number - 1])
        for policy, trial in choices[:1] if model.settled else choices:
            tree = _tree(model, policy, random.Random(f"{seed}/{number}/{policy}/{trial}"))
            key = _key(tree, len(model.acks))
            if key not in seen:
                seen.add(key)
                yield State(number, policy, trial, tree, model.acks.copy())


def final(model: Model, records: Sequence[Record], policy: str = "keepall") -> dict[str, Node]:
    """The tree that `policy` leaves after all `records`; `keepall` is what the running system sees."""
    for record in records:
        model.apply(record)
    return _tree(model, policy, random.Random(0))


def _key(tree: Mapping[str, Node], acks: int) -> bytes:
    digest = hashlib.blake2b(b"%d" % acks, digest_size=16)
    for path in sorted(tree):
        node = tree[path]
        digest.update(b"%s\0%o\0" % (path.encode("utf-8", "surrogateescape"), node.mode))
        digest.update(node.blob.digest if node.blob else b"/")
    return digest.digest()


def _tree(model: Model, policy: str, dice: random.Random) -> dict[str, Node]:
    groups = model.groups
    match policy:
        case "drop" | "data":
            groups = []
        case "randprefix":
            groups = groups[: dice.randint(0, len(groups))]
        case "randsub":
            groups = [group for group in groups if dice.random() < 0.5]
    content = _CONTENT[policy]
    made: dict[Inode, Blob] = {}  # two names of one file show the same bytes
    changed = _overlay(groups)
    tree: dict[str, Node] = {}
    placed = {model.root}
    queue = [("", model.root)]
    while queue:
        prefix, directory = queue.pop()
        for name, inode in _names(directory, changed):
            if inode.names is not None:
                if inode not in placed:
                    placed.add(inode)
                    tree[prefix + name] = Node(inode.mode, None)
                    queue.append((f"{prefix}{name}/", inode))
            elif not any(fnmatch(name, pattern) for pattern in MAPPED):
                if inode not in made:
                    made[inode] = content(inode, dice) if inode.pending else inode.durable
                tree[prefix + name] = Node(inode.mode, made[inode])
    return tree


def _overlay(groups: Sequence[Sequence[Entry]]) -> dict[Inode, dict[str, Inode | None]]:
    changed: dict[Inode, dict[str, Inode | None]] = {}
    for group in groups:
        for entry in group:
            changed.setdefault(entry.directory, {})[entry.name] = entry.target
    return changed


def _names(directory: Inode, changed: Mapping[Inode, Mapping[str, Inode | None]]) -> Iterator[tuple[str, Inode]]:
    assert directory.names is not None
    new = changed.get(directory, {})
    for name, target in {**directory.names, **new}.items() if new else directory.names.items():
        if target:
            yield name, target


def _torn(inode: Inode, dice: random.Random) -> Blob:
    content = bytearray(inode.durable.data)
    for change in inode.pending:
        fate = dice.random()
        if change.data is None:
            if fate < 0.5:
                patch(content, change)
        elif fate < 0.4:
            patch(content, change)
        elif fate < 0.7:
            _tear(content, change.offset, change.data, dice)
    return Blob(bytes(content))


def _tear(content: bytearray, offset: int, data: bytes, dice: random.Random) -> None:
    at = offset
    while at < offset + len(data):
        end = min((at // _SECTOR + 1) * _SECTOR, offset + len(data))
        if dice.random() < 0.5:
            patch(content, Change(at, data[at - offset : end - offset]))
        at = end


_CONTENT: Mapping[str, Callable[[Inode, random.Random], Blob]] = {
    "drop": lambda inode, dice: inode.durable,
    "keepall": lambda inode, dice: inode.after(len(inode.pending)),
    "meta": lambda inode, dice: inode.durable,
    "metazero": lambda inode, dice: inode.zeroed(),
    "data": lambda inode, dice: inode.after(len(inode.pending)),
    "prefdata": lambda inode, dice: inode.after(dice.randint(0, len(inode.pending))),
    "randprefix": _torn,
    "randsub": _torn,
}
