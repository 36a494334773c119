# SPDX-License-Identifier: Apache-2.0
"""The toy's workload: five points that share chunks, two of them forgotten, two reclaims."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.crash.toy import Toy
else:
    from toy import Toy  # by its own name, so that a mutated copy on PYTHONPATH takes its place


def _data(seed: int, length: int) -> bytes:
    return hashlib.shake_128(b"%d" % seed).digest(length)


_A, _B, _C = _data(1, 10_000), _data(2, 9_000), _data(3, 5_000)
_POINTS = {"one": _A, "two": _A[:8192] + _B, "three": _C, "four": _C[:4096] + _data(4, 3_000), "five": _A}


def _promise(**promised: Any) -> None:
    with Path(os.environ["FS_ACK"]).open("a") as acks:
        acks.write(json.dumps(promised) + "\n")


def _backup(store: Toy, name: str) -> None:
    store.backup(name, _POINTS[name], lambda: _promise(point=name))


def _forget(store: Toy, name: str) -> None:
    _promise(forgetting=name)  # from here on it may be there or not
    store.forget(name)
    _promise(forgotten=name)


def check(disk: Path, acks: list[Any]) -> list[str]:
    """Acknowledged points restore, forgotten ones stay away, whatever shows restores, a new point can be made."""
    promised = {ack["point"] for ack in acks if "point" in ack}
    undecided = {ack["forgetting"] for ack in acks if "forgetting" in ack}
    gone = {ack["forgotten"] for ack in acks if "forgotten" in ack}
    try:
        store = Toy(disk)
        points = store.points()
    except (OSError, ValueError) as error:
        return [f"CLOSED: {error}"]
    violations = [f"LOST: {name}" for name in promised - undecided - set(points)]
    violations += [f"BACK: {name}" for name in gone & set(points)]
    for name in points:
        violations += _restored(store, name, _POINTS[name])
    return violations + again(disk)


def again(disk: Path) -> list[str]:
    """A new point, made of old chunks and a new one."""
    data = _A + _data(9, 100)
    try:
        store = Toy(disk)
        if "new" in store.points():
            store.forget("new")
        store.backup("new", data, lambda: None)
    except (OSError, ValueError) as error:
        return [f"UNUSABLE: {error}"]
    violations = _restored(store, "new", data)
    store.forget("new")
    return violations


def _restored(store: Toy, name: str, data: bytes) -> list[str]:
    try:
        return [] if store.restore(name) == data else [f"WRONG: {name}"]
    except (OSError, ValueError) as error:
        return [f"BROKEN: {name}: {error}"]


if __name__ == "__main__":
    toy = Toy(Path(sys.argv[1]))
    _backup(toy, "one")
    _backup(toy, "two")
    _backup(toy, "three")
    _forget(toy, "three")
    toy.reclaim()
    _backup(toy, "four")
    _forget(toy, "one")
    toy.reclaim()
    _backup(toy, "five")
