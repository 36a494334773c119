# SPDX-License-Identifier: Apache-2.0
"""Looking into points of files: listings, entries, and bytes of files, with bounded memory, in damaged stores too."""

from __future__ import annotations

import random
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from keepstone.env import Env
from keepstone.errors import CorruptObject, FormatError, KeepstoneError, NotFound, UsageError
from keepstone.store import LocalReader, Node, Store
from keepstone.workloads.chunks import ChunkCache
from keepstone.workloads.files import Tree
from keepstone.workloads.files.page import UNREADABLE, Extra
from tests.unit.files.points import (
    DATE,
    Builder,
    Item,
    deep,
    detail,
    file,
    folder,
    make_point,
    symlink,
)

pytestmark = pytest.mark.store

Cookie = TypeVar("Cookie")
NAMES = [b"%03d" % number for number in range(10)] + [b"\xff\xfe", b"line\nbreak"]


class Watched:
    """A reader that notes which chunks are fetched. `broken`: nodes that cannot be read."""

    def __init__(self, reader: LocalReader) -> None:
        self._reader = reader
        self.point = reader.point
        self.fetched: list[int] = []
        self.pages = 0
        self.broken: set[int] = set()

    def root(self) -> list[int]:
        return self._reader.root()

    def node(self, ref: int) -> Node:
        self.pages += 1
        if ref in self.broken:
            raise CorruptObject(f"the page at {ref} is damaged")
        return self._reader.node(ref)

    def chunk_refs(self, node: Node) -> list[int]:
        return self._reader.chunk_refs(node)

    def child_refs(self, node: Node) -> list[int]:
        return self._reader.child_refs(node)

    def chunk_length(self, ref: int) -> int:
        return self._reader.chunk_length(ref)

    def chunk_id(self, ref: int) -> bytes:
        return self._reader.chunk_id(ref)

    def identify(self, chunk: bytes | memoryview) -> bytes:
        return self._reader.identify(chunk)

    def fetch(self, requests: Iterable[tuple[int, Cookie]], sink: Callable[[Cookie, memoryview], None]) -> None:
        wanted = list(requests)
        self.fetched += [ref for ref, _ in wanted]
        self._reader.fetch(wanted, sink)


@pytest.fixture
def look(env: Env) -> Iterator[Callable[..., Tree]]:
    """A tree over a point; `limit`: bytes of chunks in memory."""
    opened: list[ChunkCache] = []

    def make(reader: LocalReader | Watched, limit: int = 1 << 20) -> Tree:
        opened.append(ChunkCache(env, reader, limit))
        return Tree(reader, opened[-1])

    yield make
    for chunks in opened:
        chunks.close()


Look = Callable[..., Tree]


def test_listings_go_on_behind_any_name(store: Store, look: Look) -> None:
    tree = look(make_point(store, folder(b"d", *map(file, NAMES))))
    names = sorted(NAMES)

    assert [entry.name for entry in tree.listing(b"d")] == names
    for after in [b"", b"0000", b"zzz", b"\xff\xff", *names]:
        for limit in (1, 2, 3, 7, 100):
            expected = [name for name in names if name > after][:limit]
            assert [entry.name for entry in tree.listing(b"/d/", after=after, limit=limit)] == expected
    assert tree.listing(b"") == [tree.look(b"d")]


def test_a_walk_goes_on_behind_any_entry(store: Store, look: Look) -> None:
    """Names come again in other directories: what is passed over is what was seen, and nothing else."""
    inner = folder(b"b", file(b"b"), file(b"c"))
    tree = look(make_point(store, *(folder(name, file(b"a"), inner, file(b"c")) for name in (b"a", b"b")), file(b"c")))
    every = [found.path for found in tree.walk()]

    assert every[:7] == [b"a", b"a/a", b"a/b", b"a/b/b", b"a/b/c", b"a/c", b"b"]
    assert len(every) == 13
    for number, path in enumerate(every):
        assert [found.path for found in tree.walk(after=path)] == every[number + 1 :]
    below = [path for path in every if path.startswith(b"b/")]
    for number, path in enumerate(below):
        assert [found.path for found in tree.walk(b"b", after=path)] == below[number + 1 :]
    assert [found.path for found in tree.walk(b"/b/")] == below


def test_every_entry_is_found_by_its_path(store: Store, look: Look) -> None:
    tree = look(make_point(store, folder(b"d", *map(file, NAMES), folder(b"e", symlink(b"s", b"\xff/x")))))

    for name in NAMES:
        assert tree.look(b"d/" + name).name == name
    assert stat.S_ISDIR(tree.look(b"d/e").mode)
    assert tree.look(b"d/e/s").extra.target == b"\xff/x"
    assert (tree.look(b"").mode, tree.look(b"").mtime) == (stat.S_IFDIR | 0o755, DATE)
    for missing in (b"x", b"d/0000", b"d/e/t", b"d/zzz"):
        with pytest.raises(NotFound):
            tree.look(missing)
    for wrong in (b"d/../d", b"d/000/x"):
        with pytest.raises(UsageError):
            tree.look(wrong)
    with pytest.raises(UsageError, match="no directory"):
        tree.listing(b"d/000")
    for unreadable in (b"d", b"", b"d/e/s"):
        with pytest.raises(UsageError, match="no regular file"):
            tree.read(unreadable, 0, 1)


def test_a_directory_that_was_seen_costs_a_page_for_a_name(store: Store, look: Look) -> None:
    reader = Watched(make_point(store, *(file(b"%06d" % number) for number in range(20_000)), page_entries=1000))
    tree = look(reader)
    tree.listing(b"", limit=20_000)
    seen = reader.pages
    chance = random.Random(1)

    for _ in range(50):
        name = b"%06d" % chance.randrange(20_000)
        assert tree.look(name).name == name
    assert reader.pages <= seen + 50


def sparse(chance: random.Random) -> tuple[Item, bytes]:
    """A file of data and holes, and its bytes."""
    content = bytearray()
    stream = b""
    extents = []
    for _ in range(chance.randrange(1, 6)):
        content += bytes(chance.randrange(0, 5000))
        data = chance.randbytes(chance.randrange(1, 9000))
        extents.append((len(content), len(data)))
        content += data
        stream += data
    content += bytes(chance.randrange(0, 3000))
    cuts = sorted(chance.sample(range(1, len(stream)), min(len(stream) - 1, 4)))
    chunks = [stream[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    return file(b"f", *chunks, size=len(content), extra=Extra(extents=extents)), bytes(content)


@pytest.mark.parametrize("seed", range(8))
def test_any_bytes_of_a_file_can_be_read(store: Store, look: Look, seed: int) -> None:
    chance = random.Random(seed)
    item, content = sparse(chance)
    whole = chance.randbytes(30_000)
    dense = file(b"g", *(whole[at : at + 7000] for at in range(0, len(whole), 7000)))
    tree = look(make_point(store, item, dense, file(b"hole", size=70_000, extra=Extra(extents=[]))))

    for path, expected in ((b"f", content), (b"g", whole), (b"hole", bytes(70_000))):
        assert tree.read(path, 0, 1 << 30) == expected
        for _ in range(60):
            offset, length = chance.randrange(len(expected) + 10), chance.randrange(4000)
            assert tree.read(path, offset, length) == expected[offset : offset + length]


def test_holes_and_data_are_where_they_are(store: Store, look: Look) -> None:
    item, content = sparse(random.Random(3))
    tree = look(make_point(store, item))
    found = tree.find(b"f")
    assert found is not None
    layout = tree.content(found).map
    data = [False] * len(content)
    for offset, length in item.extra.extents or ():
        data[offset : offset + length] = [True] * length

    for offset in range(0, len(content), 97):
        after = [at for at in range(offset, len(content)) if data[at]]
        assert layout.data(offset) == (after[0] if after else None)
        assert layout.hole(offset) == next((at for at in range(offset, len(content)) if not data[at]), len(content))


def test_only_the_chunks_that_are_needed_are_fetched(store: Store, look: Look) -> None:
    chunks = [random.Random(number).randbytes(100_000) for number in range(30)]
    reader = Watched(make_point(store, file(b"f", *chunks)))
    tree = look(reader, 8 << 20)

    assert tree.read(b"f", 1_550_000, 10) == chunks[15][50_000:50_010]
    assert tree.read(b"f", 1_599_995, 10) == chunks[15][-5:] + chunks[16][:5]
    assert len(reader.fetched) == 2
    assert tree.read(b"f", 1_500_000, 100_000) == chunks[15]
    assert len(reader.fetched) == 2


def test_who_reads_on_finds_the_rest_fetched_once(store: Store, look: Look) -> None:
    chunks = [random.Random(number).randbytes(200_000) for number in range(100)]
    reader = Watched(make_point(store, file(b"f", *chunks)))
    tree = look(reader, 64 << 20)

    read = b"".join(tree.read(b"f", at, 100_000) for at in range(0, 20_000_000, 100_000))

    assert read == b"".join(chunks)
    assert sorted(reader.fetched) == sorted(set(reader.fetched))
    assert len(reader.fetched) == 100


def test_small_files_of_a_directory_are_fetched_together(store: Store, look: Look) -> None:
    items = [file(b"%03d" % number, random.Random(number).randbytes(3000)) for number in range(200)]
    reader = Watched(make_point(store, *items, page_entries=500))
    tree = look(reader)

    assert tree.read(b"000", 0, 10_000) == items[0].chunks[0]
    assert len(reader.fetched) == 200
    for item in items:
        assert tree.read(item.name, 0, 10_000) == item.chunks[0]
    assert len(reader.fetched) == 200


def test_memory_is_bounded(env: Env, store: Store) -> None:
    chunks = [random.Random(number).randbytes(250_000) for number in range(60)]
    reader = make_point(store, file(b"f", *chunks))
    with ChunkCache(env, reader, 2_000_000) as cache:
        tree = Tree(reader, cache)
        for at in range(0, 15_000_000, 131_072):
            tree.read(b"f", at, 131_072)
            assert cache.size <= 2_000_000
        assert cache.size > 1_000_000


def test_the_names_of_one_file_are_one(store: Store, look: Look) -> None:
    one, other = Extra(link=(5, 2)), Extra(link=(6, 2))
    items = (
        file(b"a", b"1", inode=7, extra=one),
        folder(b"d", file(b"b", b"1", inode=7, extra=one), file(b"elsewhere", b"2", inode=7, extra=other), inode=2),
        folder(b"mounted", folder(b"d", inode=2), inode=2),
        file(b"alone", b"1", inode=7),
    )

    def inodes(tree: Tree) -> dict[bytes, int]:
        paths = (b"a", b"d", b"d/b", b"d/elsewhere", b"mounted", b"mounted/d", b"alone")
        return {path: tree.inode(found) for path in paths if (found := tree.find(path)) is not None}

    found = inodes(look(make_point(store, *items)))
    assert found[b"a"] == found[b"d/b"]
    assert len(set(found.values())) == 6
    assert inodes(look(make_point(store, file(b"new"), *items))) == found


def test_many_read_at_the_same_time(store: Store, look: Look) -> None:
    contents = {b"%d" % number: random.Random(number).randbytes(700_000) for number in range(6)}
    items = [
        file(name, *(whole[at : at + 90_000] for at in range(0, 700_000, 90_000))) for name, whole in contents.items()
    ]
    tree = look(make_point(store, *items), 1 << 20)

    def read(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(80):
            name = chance.choice(list(contents))
            offset, length = chance.randrange(700_000), chance.randrange(1, 200_000)
            assert tree.read(name, offset, length) == contents[name][offset : offset + length]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(8)))


def test_a_damaged_page_costs_its_entries_only(store: Store, look: Look) -> None:
    reader = Watched(make_point(store, *(file(b"%02d" % number, b"%d" % number) for number in range(12))))
    reader.broken = {reader.root()[1]}
    readable = [b"%02d" % number for number in range(12) if number not in (3, 4, 5)]
    told: list[tuple[bytes, KeepstoneError]] = []

    for name in readable:
        assert look(reader).look(name).name == name
    tree = look(reader)
    for name in readable:
        assert tree.read(name, 0, 10) == b"%d" % int(name)
    for lost in (b"03", b"04x", b"05"):
        with pytest.raises(CorruptObject):
            tree.look(lost)
    with pytest.raises(CorruptObject):
        tree.listing(b"")
    found = tree.listing(b"", lost=lambda path, error: told.append((path, error)))
    assert [entry.name for entry in found] == readable
    assert [path for path, _ in told] == [b""]
    listed = []
    with pytest.raises(CorruptObject):
        for child in tree.children(tree.root):
            listed.append(child.entry.name)
    assert listed == readable


@pytest.mark.parametrize(
    "item",
    [
        file(b"f", b"12345", size=6),
        file(b"f", b"12345", size=4),
        file(b"f", b"12345", b"6", size=5),
        file(b"f", b"12345", b"6", size=7),
        file(b"f", size=7),
        file(b"f", size=7, extra=Extra(flags=UNREADABLE)),
        file(b"f", b"1", size=7, extra=Extra(extents=[(0, 2)])),
        file(b"f", b"1", size=7, extra=Extra(extents=[(0, 0)])),
        file(b"f", b"123", size=7, extra=Extra(extents=[(2, 1), (0, 2)])),
        file(b"f", b"123", size=7, extra=Extra(extents=[(5, 3)])),
    ],
)
def test_an_impossible_file_cannot_be_read(store: Store, look: Look, item: Item) -> None:
    tree = look(make_point(store, item, file(b"good", b"good")))

    with pytest.raises(CorruptObject):
        tree.read(b"f", 0, 100)
    assert tree.read(b"good", 0, 100) == b"good"


@pytest.mark.parametrize("name", [b"..", b".", b"", b"a/b", b"/etc/passwd", b"x\0y"])
def test_no_hostile_name_is_shown(store: Store, look: Look, name: bytes) -> None:
    tree = look(make_point(store, folder(b"d", file(b"!"), Item(name, stat.S_IFREG | 0o644))))

    with pytest.raises(FormatError):
        tree.listing(b"d")
    with pytest.raises(FormatError):
        list(tree.children(tree.enter(tree.find(b"d"))))  # type: ignore[arg-type] # it is there


def test_names_that_come_twice_are_refused(store: Store, look: Look) -> None:
    builder = Builder(store)
    page = builder.page([file(b"a", b"1")])
    tree = look(store.reader(builder.commit([page, page], detail())))

    with pytest.raises(FormatError, match="twice"):
        tree.listing(b"")


def test_a_directory_within_itself_is_not_entered(store: Store, look: Look) -> None:
    reader = Watched(make_point(store, folder(b"a", folder(b"b", file(b"c")))))
    tree = look(reader)
    found = tree.find(b"a/b")
    assert found is not None

    with pytest.raises(CorruptObject, match="within itself"):
        tree.enter(found._replace(refs=reader.root()))


def test_a_very_deep_tree(store: Store, look: Look) -> None:
    builder = Builder(store)
    tree = look(store.reader(builder.commit(deep(builder, 300, file(b"f", b"at the bottom")), detail())))

    assert tree.read(b"d/" * 300 + b"f", 3, 3) == b"the"
