# SPDX-License-Identifier: Apache-2.0
"""What the replay calls durable, and that a stage shows exactly the state it is given."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.crash.model import PAGE, Blob, Inode, Model
from tests.crash.oplog import Kind, Record
from tests.crash.replay import PROFILES, Node, final, states
from tests.crash.stage import Stage

pytestmark = pytest.mark.store

ROOT, A, B = 1, 2, 3  # the watched directory, and two in it


def entry(kind: Kind, inode: int = 0, dir: int = 0, dir2: int = 0, **more: object) -> Record:
    fields = {"offset": 0, "flags": 0, "name": "", "name2": "", "data": b""} | more
    return Record(kind, 1, 1, inode, dir, dir2, **fields)  # type: ignore[arg-type]


def create(inode: int, dir: int, name: str) -> Record:
    return entry(Kind.CREATE, inode, dir, name=name, flags=0o600)


def write(inode: int, data: bytes, offset: int = 0, flags: int = 0) -> Record:
    return entry(Kind.WRITE, inode, offset=offset, data=data, flags=flags)


def sync(inode: int) -> Record:
    return entry(Kind.SYNC, inode)


def rename(inode: int, dir: int, name: str, dir2: int, name2: str, **more: int) -> Record:
    return entry(Kind.RENAME, inode, dir, dir2, name=name, name2=name2, **more)


def disk(journal: bool) -> Model:
    """An empty root with two durable, empty directories."""
    a, b = Inode(0o700, {}), Inode(0o700, {})
    root = Inode(0o700, {"a": a, "b": b})
    return Model(root, {ROOT: root, A: a, B: b}, journal)


def left(records: Sequence[Record], policy: str = "drop", profile: str = "posix") -> dict[str, bytes]:
    """Files that `policy` leaves after all `records`."""
    return files(final(disk(PROFILES[profile].journal), records, policy))


def files(tree: dict[str, Node]) -> dict[str, bytes]:
    return {path: node.blob.data for path, node in tree.items() if node.blob}


NEW = [create(9, A, "f"), write(9, b"data")]


@pytest.mark.parametrize(
    ("records", "policy", "posix", "ext4"),
    [
        (NEW, "drop", {}, {}),
        (NEW, "keepall", {"a/f": b"data"}, {"a/f": b"data"}),
        (NEW, "meta", {"a/f": b""}, {"a/f": b""}),
        (NEW, "metazero", {"a/f": bytes(4)}, {"a/f": bytes(4)}),
        (NEW, "data", {}, {}),
        ([*NEW, sync(9)], "drop", {}, {"a/f": b"data"}),
        ([*NEW, sync(A)], "drop", {"a/f": b""}, {"a/f": b""}),
        ([*NEW, sync(9), sync(A)], "drop", {"a/f": b"data"}, {"a/f": b"data"}),
        ([*NEW, sync(B)], "drop", {}, {}),
        ([*NEW, create(8, B, "g"), sync(B)], "drop", {"b/g": b""}, {"a/f": b"", "b/g": b""}),
        ([create(9, A, "f"), write(9, b"data", flags=1), sync(A)], "drop", {"a/f": b"data"}, {"a/f": b"data"}),
        ([*NEW, entry(Kind.SYNC_ALL)], "drop", {"a/f": b"data"}, {"a/f": b"data"}),
    ],
)
def test_what_an_fsync_makes_durable(
    records: list[Record], policy: str, posix: dict[str, bytes], ext4: dict[str, bytes]
) -> None:
    assert left(records, policy, "posix") == posix
    assert left(records, policy, "ext4") == ext4


DURABLE = [*NEW, sync(9), sync(A)]
MOVED = [*DURABLE, rename(9, A, "f", B, "g")]


@pytest.mark.parametrize(
    ("records", "posix", "ext4"),
    [
        (MOVED, {"a/f"}, {"a/f"}),
        ([*MOVED, sync(B)], {"a/f", "b/g"}, {"b/g"}),  # the old name may still be there
        ([*MOVED, sync(A)], {"b/g"}, {"b/g"}),  # but never neither
        ([*MOVED, sync(9)], {"a/f"}, {"b/g"}),
        ([*MOVED, sync(B), sync(A)], {"b/g"}, {"b/g"}),
        ([*DURABLE, entry(Kind.LINK, 9, 0, B, name2="g"), sync(B)], {"a/f", "b/g"}, {"a/f", "b/g"}),
        ([*DURABLE, entry(Kind.UNLINK, 9, A, name="f")], {"a/f"}, {"a/f"}),
        ([*DURABLE, entry(Kind.UNLINK, 9, A, name="f"), sync(A)], set(), set()),
        ([*DURABLE, rename(A, ROOT, "a", B, "inner"), sync(ROOT)], {"b/inner/f"}, {"b/inner/f"}),
    ],
)
def test_what_becomes_of_names(records: list[Record], posix: set[str], ext4: set[str]) -> None:
    assert left(records, profile="posix").keys() == posix
    assert left(records, profile="ext4").keys() == ext4


def test_exchange_never_loses_one_of_the_two() -> None:
    both = [*DURABLE, create(8, B, "g"), write(8, b"other"), sync(8), sync(B)]
    exchange = rename(9, A, "f", B, "g", flags=2, offset=8)

    assert left([*both, exchange]) == {"a/f": b"data", "b/g": b"other"}
    assert left([*both, exchange, sync(A)]) == {"a/f": b"other", "b/g": b"data"}


def test_failed_fsync_is_not_made_good_by_the_next() -> None:
    written = [create(9, A, "f"), sync(A), write(9, b"x" * PAGE + b"y" * PAGE), entry(Kind.SYNC_FAILED, 9)]
    again = write(9, b"z", PAGE + 10)

    retried = left([*written, sync(9)])["a/f"]
    rewritten = left([*written, again, sync(9)])["a/f"]
    assert retried == bytes(2 * PAGE)
    assert rewritten == bytes(PAGE) + b"y" * 10 + b"z" + b"y" * (PAGE - 11)  # only the page that was touched again
    assert left([*written, again, sync(9)], "keepall")["a/f"][:PAGE] == b"x" * PAGE


def test_write_is_lost_torn_by_sectors_or_whole() -> None:
    data = bytes(range(1, 5)) * 512
    records = [create(9, A, "f"), sync(A), write(9, data)]

    found = {files(s.tree).get("a/f") for s in states(disk(False), records, PROFILES["posix"], trials=50)} - {None}
    sectors = [{content[at : at + 512] for at in range(0, len(content), 512)} for content in found if content]
    assert {b"", data} < found
    assert {data[:512], bytes(512)} in sectors
    assert all(pieces <= {data[:512], bytes(512)} for pieces in sectors)


def test_file_larger_than_memory_should_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="make the workload smaller"):
        left([create(9, A, "f"), write(9, b"at the end of a huge hole", 2**40)], "keepall")


def test_unknown_file_is_named() -> None:
    with pytest.raises(ValueError, match="RENAME of g: inode 77"):
        disk(False).apply(rename(77, 0, "", A, "g"))


# create, write, truncate, exchange ("m"), rename, link, unlink; fsync a file ("s", or "f": it fails), a directory, all
_STEP = st.tuples(st.sampled_from("cwtmrlusfSg"), st.integers(0, 3), st.integers(0, 5))


class World:
    """A file system without power losses, to compare with: two levels of directories, each with a few names."""

    def __init__(self) -> None:
        self.names: dict[tuple[int, str], int] = {}  # (directory, name) → inode
        self.files: dict[int, bytearray] = {}
        self.next = 10

    def record(self, what: str, x: int, y: int) -> Record | None:
        """Do one step; its record, or None where it cannot be done."""
        here, there = ((A, B)[x % 2], str(x // 2)), ((A, B)[y % 2], str(y // 2))
        inode, other = self.names.get(here), self.names.get(there)
        if what == "c" and inode is None:
            self.next += 1
            self.names[here], self.files[self.next] = self.next, bytearray()
            return create(self.next, *here)
        if what == "g":
            return entry(Kind.SYNC_ALL)
        if what == "S":
            return sync(here[0])
        if inode is None:
            return None
        match what:
            case "w":
                self.files[inode] = self.files[inode].ljust(y, b"\0")  # a hole reads as zeros
                self.files[inode][y : y + 3] = b"%03d" % (x + self.next)
                return write(inode, b"%03d" % (x + self.next), y)
            case "t":
                self.files[inode] = self.files[inode][:y].ljust(y, b"\0")
                return entry(Kind.SIZE, inode, offset=y)
            case "s" | "f":
                return sync(inode) if what == "s" else entry(Kind.SYNC_FAILED, inode)
            case "u":
                del self.names[here]
                return entry(Kind.UNLINK, inode, here[0], name=here[1])
            case "r" if inode != other:
                self.names[there] = self.names.pop(here)
                return rename(inode, *here, *there)
            case "m" if other not in (None, inode):
                self.names[here], self.names[there] = self.names[there], inode
                return rename(inode, *here, *there, flags=2, offset=other or 0)
            case "l" if other is None:
                self.names[there] = inode
                return entry(Kind.LINK, inode, 0, there[0], name2=there[1])
        return None


@pytest.mark.parametrize("profile", ["posix", "ext4"])
@settings(max_examples=200, deadline=None)
@given(steps=st.lists(_STEP, min_size=20, max_size=60))
def test_keeping_all_is_what_the_running_system_sees(profile: str, steps: list[tuple[str, int, int]]) -> None:
    world, model = World(), disk(PROFILES[profile].journal)
    seen: dict[str, bytes] = {}
    for step in steps:
        made = world.record(*step)
        if made:
            seen = {f"{'ab'[d - A]}/{n}": bytes(world.files[i]) for (d, n), i in world.names.items()}
            assert files(final(model, [made])) == seen
    if not any(what == "f" for what, _, _ in steps):
        assert files(final(model, [entry(Kind.SYNC_ALL)], "drop")) == seen


def test_states_are_distinct_and_follow_from_the_seed() -> None:
    records = [*NEW, write(9, b"x" * 2000, 4), rename(9, A, "f", B, "g"), create(8, A, "h"), write(8, b"y" * 1500)]

    def found(seed: int) -> list[str]:
        return [
            f"{state} {[(p, n.blob and n.blob.digest) for p, n in sorted(state.tree.items())]}"
            for state in states(disk(False), records, PROFILES["posix"], seed)
        ]

    trees = [text.split(" ", 6)[-1] for text in found(1)]
    assert found(1) == found(1) != found(2)
    assert len(trees) == len(set(trees)) > 20


def read(root: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(root)): None if p.is_dir() else p.read_bytes() for p in root.rglob("*")}


@pytest.mark.parametrize("seed", range(5))
def test_stage_shows_exactly_the_tree_whatever_was_done_to_it(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    stage = Stage(tmp_path / "stage")
    for _ in range(40):
        tree: dict[str, Node] = {}
        for name in dice.sample("abcd", 2):
            tree[name] = Node(0o755, None)
            tree |= {f"{name}/{n}": Node(0o644, Blob(bytes([dice.randrange(3)]) * 5)) for n in dice.sample("efgh", 2)}
        if dice.random() < 0.3:
            tree["a"] = Node(0o600, Blob(b"a file where a directory was"))
            tree = {path: node for path, node in tree.items() if not path.startswith("a/")}

        stage.show(tree)

        assert read(stage.root) == {path: node.blob and node.blob.data for path, node in tree.items()}
        _disturb(stage.root, dice)


def _disturb(root: Path, dice: random.Random) -> None:
    """What a check may do: rewrite with the same length, swap files of one length, add, remove, make directories."""
    files = [path for path in root.rglob("*") if path.is_file()]
    with (victim := dice.choice(files)).open("r+b") as file:
        file.write(bytes(victim.stat().st_size))
    first, second = dice.choices(files, k=2)
    os.rename(first, root / "swap")
    if first != second:
        os.rename(second, first)
    os.rename(root / "swap", second)
    dice.choice(files).unlink()
    (root / "new").mkdir()
    (root / "new/file").touch()
