# SPDX-License-Identifier: Apache-2.0
"""A known machine, and the smallest workload: items that are lists of chunks.

`save` writes such an item as a tree of two floors (a root, leaves of `LEAF` chunks), `load` reads it back and compares
nothing: what it returns is what a restore would write.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from keepstone.crypto import Argon2Cost, Kit, PassphraseProvider, make_kit, open_kit
from keepstone.env import Env, FileSystem, Process
from keepstone.errors import KeepstoneError
from keepstone.objects import MemoryStorage
from keepstone.store import Chunks, LocalWriter, Node, Outcome, Point, Scratch, Store
from keepstone.store.chain import Chain, Head

__all__ = [
    "DAY",
    "FRAME",
    "LEAF",
    "Failing",
    "Machine",
    "Recorded",
    "finish",
    "heads",
    "items",
    "kit_of",
    "load",
    "new_store",
    "opener",
    "outcome",
    "piece",
    "save",
    "submit",
]

DAY = 86_400 * 10**9
LEAF = 4  # chunks of a leaf node
FRAME = 300  # bytes after which a frame is closed, so that small items have many

Fail = Callable[[str, str], Exception | None]


class Machine(Env):
    """Chance comes from a seed, the wall clock is `now` and a tick a look, work runs inline unless there are `threads`.

    Every machine is a process of its own; `dead` is shared by those that were made `beside` one another.
    """

    def __init__(
        self, seed: int = 0, *, threads: int = 0, beside: Machine | None = None, fs: FileSystem | None = None
    ) -> None:
        super().__init__(threads=threads, fs=fs)
        self._rng = random.Random(seed)
        self.now: int = 1_700_000_000 * 10**9 if beside is None else beside.now
        self.dead: set[int] = set() if beside is None else beside.dead
        self.pid = seed

    def wall_time(self) -> int:
        self.now += 1000
        return self.now

    def boot_time(self) -> int:
        return self.wall_time()

    def random(self, count: int) -> bytes:
        return self._rng.randbytes(count)

    def process(self) -> Process:
        return Process("machine", "boot", self.pid, 1)

    def is_running(self, process: Process) -> bool | None:
        return process.boot == "boot" and process.pid not in self.dead


class Recorded(MemoryStorage):
    """Writes down what was asked of it: "operation name", in order."""

    def __init__(self, env: Env, *, objects: dict[str, bytes] | None = None, fail: Fail | None = None) -> None:
        self.log: list[str] = []

        def note(operation: str, name: str) -> Exception | None:
            if not operation.endswith("reply"):
                self.log.append(f"{operation} {name}")
            return fail(operation, name) if fail is not None else None

        super().__init__(env, objects=objects, fail=note)


class Failing:
    """Fails the operations whose "operation name" starts with `start`, from the `after`-th on, `times` times."""

    def __init__(self, start: str, error: Exception, *, after: int = 0, times: int = 1 << 30) -> None:
        self.start, self.error, self.after, self.times = start, error, after, times

    def __call__(self, operation: str, name: str) -> Exception | None:
        if not f"{operation} {name}".startswith(self.start):
            return None
        self.after -= 1
        if self.after >= 0 or self.times <= 0:
            return None
        self.times -= 1
        return self.error


def opener(passphrase: bytes = b"correct horse") -> PassphraseProvider:
    """A passphrase that costs nothing to try."""
    return PassphraseProvider(passphrase, cost=Argon2Cost(iterations=1, memory_kib=64, lanes=1), weak=True)


def kit_of(store: Store) -> Kit:
    """The store's recovery kit, made and opened again."""
    import pyrage  # type: ignore[import-untyped]

    identity = pyrage.x25519.Identity.generate()
    kit = make_kit(Env(), store.keyring, "a kit", recipients=[str(identity.to_public())])
    return open_kit(kit, identity=str(identity))


def new_store(
    env: Env | None = None, *, cache: Path | None = None, objects: dict[str, bytes] | None = None, **options: int | str
) -> Store:
    """A new store in memory."""
    env = env or Machine()
    return Store.init(env, MemoryStorage(env, objects=objects), [opener()], cache=cache, **options)  # type: ignore[arg-type]


def items(text: str, size: int = 100) -> list[bytes]:
    """One chunk a letter; the same letter gives the same chunk. Those of digits do not compress, the others do."""
    noise = {letter: random.Random(letter).randbytes(size if letter.isdigit() else size // 2) for letter in set(text)}
    return [(noise[letter] + letter.encode() * size)[:size] for letter in text]


def heads(store: Store) -> list[Head]:
    """What the chain says, entry by entry."""
    chain = Chain(store.context)
    return [chain.read(sequence)[0] for sequence in range(1, chain.last()[0] + 1)]


def outcome(root: list[int], logical: int = 0) -> Outcome:
    return Outcome(root=root, detail=b"", source=b"/", logical=logical, read=logical, files=1, warnings=0)


def piece(chunks: Sequence[bytes], hints: Sequence[int] = (), frame_limit: int = FRAME) -> Callable[[Scratch], Chunks]:
    """What reads these chunks into a worker's buffer."""

    def read(scratch: Scratch) -> Chunks:
        data = b"".join(chunks)
        scratch.view[: len(data)] = data
        return Chunks(scratch.view[: len(data)], [len(chunk) for chunk in chunks], list(hints), None, frame_limit)

    return read


def submit(writer: LocalWriter, chunks: Sequence[bytes], hints: Sequence[int] = ()) -> list[int]:
    """Queue a leaf's chunks; their places fill the list as they become known."""
    places: list[int] = []
    writer.submit(piece(chunks, hints), lambda refs, _: places.extend(refs))
    return places


def finish(writer: LocalWriter, leaves: Iterable[Sequence[int]], logical: int = 0) -> str:
    """Write the nodes and commit."""
    writer.drain()
    nodes = [writer.put_node("leaf", list(places), [], b"leaf") for places in leaves]
    root = writer.put_node("root", [], nodes, b"root %d" % logical)
    return writer.commit(outcome([root], logical))


def _parent_places(writer: LocalWriter) -> list[int]:
    """The places of the parent's chunks as far as it can be read and they may be used: what a workload hints at."""
    places: list[int] = []
    try:
        for root in writer.parent_root():
            for leaf in writer.child_refs(writer.node(root)):
                refs = writer.chunk_refs(writer.node(leaf))
                places += writer.usable(refs) or [-1] * len(refs)
    except KeepstoneError:
        return []
    return places


def save(
    store: Store, chunks: Sequence[bytes], item: str = "item", *, kind: str = "known", leaf: int = LEAF, **options: int
) -> str:
    """A recovery point of these chunks; everything is read, the parent only says where chunks may be already."""
    with store.writer(item, kind, level=1, **options) as writer:  # type: ignore[arg-type]
        hints = _parent_places(writer)
        hints = [*hints, *[-1] * len(chunks)][: len(chunks)]
        leaves = [submit(writer, chunks[at : at + leaf], hints[at : at + leaf]) for at in range(0, len(chunks), leaf)]
        return finish(writer, leaves, sum(map(len, chunks)))


def load(store: Store, point: Point | str) -> list[bytes]:
    """The chunks of a point."""
    if isinstance(point, str):
        point = store.points.find(point, deleted=True)
    with store.reader(point) as reader:
        nodes: list[Node] = [reader.node(ref) for ref in reader.root()]
        leaves = [reader.node(ref) for node in nodes for ref in reader.child_refs(node)]
        places = [ref for leaf in leaves for ref in reader.chunk_refs(leaf)]
        found: dict[int, bytes] = {}
        reader.fetch([(ref, index) for index, ref in enumerate(places)], lambda i, data: found.update({i: bytes(data)}))
        return [found[index] for index in range(len(places))]
