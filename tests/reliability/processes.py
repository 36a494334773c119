# SPDX-License-Identifier: Apache-2.0
"""What the processes of `test_processes` do to one store, each until its time is over: ROLE STORE SECONDS SEED.

A writer prints a line for every point that it was told is durable; a reader and a collector one for every round.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

from keepstone.crypto import Argon2Cost, PassphraseProvider
from keepstone.env import Env
from keepstone.errors import LeaseLost, ObjectMissing, PointNotFound
from keepstone.objects import FolderStorage
from keepstone.store import Chunks, Outcome, Point, Scratch, Store

__all__ = ["content", "main", "open_store", "restore"]

_SIZE = 20_000


def open_store(folder: str, *, create: bool = False) -> Store:
    """The store of the test."""
    env = Env()
    storage = FolderStorage(env, Path(folder), create=create)
    provider = PassphraseProvider(b"processes", cost=Argon2Cost(iterations=1, memory_kib=64, lanes=1), weak=True)
    return (Store.init if create else Store.open)(env, storage, [provider], cache=Path(folder + "-cache"))


def content(number: int) -> bytes:
    """The chunk of this number: half of it does not compress."""
    return random.Random(number).randbytes(_SIZE // 2) + bytes([number % 256]) * (_SIZE // 2)


def _back_up(store: Store, item: str, numbers: list[int]) -> str:
    with store.writer(item, "numbers") as writer:
        places: dict[int, int] = {}
        for index, number in enumerate(numbers):

            def read(scratch: Scratch, number: int = number) -> Chunks:
                scratch.view[:_SIZE] = content(number)
                return Chunks(scratch.view[:_SIZE], [_SIZE], [], None)

            def done(refs: list[int], _: object, index: int = index) -> None:
                places[index] = refs[0]

            writer.submit(read, done)
        writer.drain()
        body = " ".join(map(str, numbers)).encode()
        root = writer.put_node("numbers", [places[index] for index in range(len(numbers))], [], body)
        size = _SIZE * len(numbers)
        return writer.commit(
            Outcome(root=[root], detail=b"", source=b"/", logical=size, read=size, files=1, warnings=0)
        )


def restore(store: Store, point: Point) -> list[int]:
    """The numbers of a point, each chunk compared with what it must be."""
    with store.reader(point) as reader:
        node = reader.node(reader.root()[0])
        numbers = [int(number) for number in node.body.split()]
        found: dict[int, bytes] = {}
        requests = [(ref, index) for index, ref in enumerate(reader.chunk_refs(node))]
        reader.fetch(requests, lambda index, data: found.__setitem__(index, bytes(data)))
        if [found[index] for index in range(len(numbers))] != [content(number) for number in numbers]:
            raise AssertionError(f"point {point.id} has wrong bytes")
        return numbers


def _write(store: Store, rng: random.Random, item: str) -> None:
    numbers = [rng.randrange(60) for _ in range(rng.randrange(5, 25))]
    try:
        commit = _back_up(store, item, numbers)
    except LeaseLost:
        print("lost", flush=True)
    else:
        print("point", commit, *numbers, flush=True)


def _read(store: Store, rng: random.Random) -> None:
    points = store.points.list()
    if points:
        point = rng.choice(points)
        try:
            restore(store, point)
        except ObjectMissing:
            if any(other.id == point.id for other in store.points.list()):
                raise  # it was not purged meanwhile
        print("read", flush=True)


def _collect(store: Store, rng: random.Random) -> None:
    points = store.points.list()
    for point in points[:-4]:
        if rng.random() < 0.5:
            try:
                print("forget", point.id, flush=True)
                store.points.purge(point, now=True)
            except PointNotFound:
                continue
    done = store.reclaim()
    print("reclaim", done.packs_deleted, done.packs_compacted, flush=True)


def main(role: str, folder: str, seconds: float, seed: int) -> None:
    """See the module."""
    rng = random.Random(seed)
    store = open_store(folder)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if role == "write":
            _write(store, rng, f"item {seed}")
        elif role == "read":
            _read(store, rng)
        else:
            _collect(store, rng)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
