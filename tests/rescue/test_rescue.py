# SPDX-License-Identifier: Apache-2.0
"""The `rescue.py` that lies in a store restores it, in an environment without Keepstone and what it brings along."""

from __future__ import annotations

import ast
import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pyrage  # type: ignore[import-untyped]
import pytest

from keepstone.crypto import Argon2Cost, KeyProvider, PassphraseProvider, PlatformKeyProvider, make_kit
from keepstone.disks import RawSource
from keepstone.env import Env
from keepstone.objects import FolderStorage
from keepstone.store import Store
from keepstone.store.frame import FRAME_LIMIT
from keepstone.workloads import Silent
from keepstone.workloads.files.backup.run import backup_files
from keepstone.workloads.files.page import Extra
from keepstone.workloads.files.selection import Selection
from keepstone.workloads.images import backup_image
from tests.rescue.bare import Bare, make_bare
from tests.rescue.trees import make_tree, picture
from tests.unit.files.points import Builder, Item, detail, file, folder, make_point, symlink
from tests.unit.images.disk import CHUNK, noise, sparse

pytestmark = pytest.mark.store

PROFILES = ["blake3", "hmac-sha256"]
PASSPHRASE = "pässwort"
NEEDED = {"cryptography", "zstandard", "blake3"}
WELCOME = {"xxhash"}  # it does without


@dataclass
class Shelf:
    """A store in a folder with all that opens it."""

    folder: Path
    store: Store

    @property
    def place(self) -> Path:
        return self.folder / "store"

    @property
    def key(self) -> tuple[str, Path]:
        return "--key-file", self.folder / "key"

    def put_tree(self, source: Path, item: str = "tree") -> str:
        """A point of a tree; its id."""
        with self.store.writer(item, "files") as writer:
            report = backup_files(self.store.context.env, writer, source, Selection(), Silent())
        assert report.warnings == 0
        return self.store.points.find("latest", item=item).id

    def put_image(self, source: Path, item: str = "disk") -> str:
        """A point of an image; its id."""
        env = self.store.context.env
        with self.store.writer(item, "images") as writer:
            backup_image(env, writer, RawSource(env, source), Silent(), name=b"disk")
        return self.store.points.find("latest", item=item).id


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Bare:
    return make_bare(tmp_path_factory.mktemp("bare"), *NEEDED)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("source") / "tree"
    make_tree(place)
    return place


def new_shelf(place: Path, profile: str = "blake3") -> Shelf:
    env = Env()
    providers: list[KeyProvider] = [
        PlatformKeyProvider.create(env, place / "key"),
        PassphraseProvider(PASSPHRASE.encode(), cost=Argon2Cost(iterations=1, memory_kib=64, lanes=2), weak=True),
    ]
    storage = FolderStorage(env, place / "store", create=True)
    return Shelf(place, Store.init(env, storage, providers, hashing_name=profile))


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return new_shelf(tmp_path)


@pytest.fixture(scope="module", params=PROFILES)
def full(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tree: Path) -> Shelf:
    """A store of each profile with a tree, a second state of a part of it, and an image."""
    shelf = new_shelf(tmp_path_factory.mktemp("full"), request.param)
    shelf.put_tree(tree)
    data = {0: noise(1.5), 7 * CHUNK: b"text " * 60_000, 12 * CHUNK: noise(0.25, seed=1)}
    shelf.put_image(sparse(shelf.folder / "disk", 13 * CHUNK + 777, data))
    return shelf


def test_there_is_nothing_of_keepstone_in_the_bare_environment(bare: Bare) -> None:
    assert {name: bare.can_import(name) for name in ("keepstone", "msgspec", "numpy", "pyrage", *NEEDED)} == {
        "keepstone": False,
        "msgspec": False,
        "numpy": False,
        "pyrage": False,
        **dict.fromkeys(NEEDED, True),
    }


def test_it_imports_the_standard_library_and_these_few() -> None:
    source = (Path(__file__).parents[2] / "src/keepstone/store/rescue.py").read_text()
    roots = set()
    for node in ast.walk(ast.parse(source, feature_version=(3, 11))):
        if isinstance(node, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add((node.module or "keepstone").partition(".")[0])

    assert roots - sys.stdlib_module_names == NEEDED | WELCOME


def kit_text(shelf: Shelf) -> bytes:
    """What `age --decrypt KIT` shows."""
    identity = pyrage.x25519.Identity.generate()
    kit = make_kit(Env(), shelf.store.keyring, "a kit", recipients=[str(identity.to_public())])
    return bytes(pyrage.decrypt(kit, [identity]))


def key_arguments(shelf: Shelf, kind: str) -> tuple[list[str | Path], bytes]:
    """(arguments, standard input) that open the store in this way."""
    if kind == "key file":
        return [*shelf.key], b""
    if kind == "passphrase":
        place = shelf.folder / "passphrase"
        place.write_text("pa\u0308sswort\n")  # as another keyboard makes it
        return ["--passphrase-file", place], b""
    return ["--kit-json", "-"], kit_text(shelf)


@pytest.mark.parametrize("kind", ["key file", "passphrase", "recovery kit"])
def test_a_tree_comes_back_as_it_was(bare: Bare, full: Shelf, tree: Path, tmp_path: Path, kind: str) -> None:
    point = full.store.points.find("latest", item="tree").id
    arguments, stdin = key_arguments(full, kind)

    done = bare.rescue(full.place, "restore", point, tmp_path / "out", *arguments, stdin=stdin)

    assert (done.returncode, done.stderr) == (0, "")
    assert picture(tmp_path / "out") == picture(tree)


def test_an_image_comes_back_as_it_was(bare: Bare, full: Shelf, tmp_path: Path) -> None:
    done = bare.rescue(full.place, "restore", "latest", tmp_path / "out", *full.key)

    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out").read_bytes() == (full.folder / "disk").read_bytes()
    assert (tmp_path / "out").stat().st_blocks * 512 < 6 * CHUNK


def test_a_single_file_comes_back(bare: Bare, shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "alone").write_bytes(noise(3))
    shelf.put_tree(tmp_path / "alone")

    done = bare.rescue(shelf.place, "restore", "latest", tmp_path / "out", *shelf.key)

    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {"alone": noise(3)}


def test_a_store_of_approved_functions_needs_no_blake3(shelf: Shelf, tmp_path: Path) -> None:
    fips = new_shelf(tmp_path / "fips", "hmac-sha256")
    fips.put_image(sparse(tmp_path / "disk", CHUNK, {0: b"x"}))
    bare = make_bare(tmp_path / "bare", *(NEEDED - {"blake3"}))

    done = bare.rescue(fips.place, "restore", "latest", tmp_path / "out", *fips.key)

    assert not bare.can_import("blake3")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out").read_bytes() == (tmp_path / "disk").read_bytes()


@pytest.mark.parametrize("profile", PROFILES)
def test_compacted_chunks_are_found_through_their_moves(bare: Bare, tmp_path: Path, tree: Path, profile: str) -> None:
    shelf = new_shelf(tmp_path / "shelf", profile)
    source = tmp_path / "source"
    for number in range(40):
        (source / f"folder {number % 4}").mkdir(parents=True, exist_ok=True)
        (source / f"folder {number % 4}" / f"{number}").write_bytes(noise(0.2, seed=number))
    first = shelf.put_tree(source)
    for number in range(40):
        if number % 4:
            (source / f"folder {number % 4}" / f"{number}").write_bytes(b"%d" % number)
    shelf.put_tree(source)
    shelf.store.points.purge(shelf.store.points.find(first), now=True)

    reclaimed = shelf.store.reclaim()
    again = shelf.store.reclaim()
    done = bare.rescue(shelf.place, "restore", "latest", tmp_path / "out", *shelf.key)
    checked = bare.rescue(shelf.place, "verify", *shelf.key)

    assert reclaimed.packs_compacted
    assert reclaimed.packs_deleted + again.packs_deleted
    assert (done.returncode, done.stderr) == (0, "")
    assert picture(tmp_path / "out") == picture(source)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_keys_rotated_out_do_not_open_and_a_kit_still_does(bare: Bare, shelf: Shelf, tmp_path: Path) -> None:
    shelf.put_image(sparse(tmp_path / "disk", CHUNK, {0: b"x"}))
    kit = kit_text(shelf)
    shelf.store.rekey([PlatformKeyProvider.create(Env(), tmp_path / "new key")])

    assert bare.rescue(shelf.place, "list", *shelf.key).returncode == 1
    assert bare.rescue(shelf.place, "list", "--key-file", tmp_path / "new key").returncode == 0
    assert bare.rescue(shelf.place, "list", "--kit-json", "-", stdin=kit).returncode == 0


def test_a_keys_object_counts_under_its_own_name_only(bare: Bare, shelf: Shelf) -> None:
    (shelf.place / "keys/00000001").rename(shelf.place / "keys/00000002")

    done = bare.rescue(shelf.place, "list", *shelf.key)

    assert done.returncode == 1
    assert done.stderr.startswith("rescue: keys/00000002 is not what was stored under that name; a recovery kit opens")


def test_list_shows_points_by_age_and_which_are_deleted(bare: Bare, shelf: Shelf, tmp_path: Path) -> None:
    disk = sparse(tmp_path / "disk", CHUNK, {})
    first, second = shelf.put_image(disk, "one\nline"), shelf.put_image(disk, "two")
    shelf.store.points.forget(shelf.store.points.find(first))

    done = bare.rescue(shelf.place, "list", *shelf.key)
    lines = done.stdout.splitlines()

    assert done.returncode == 0
    assert [line[:49] for line in lines] == [first, second]
    assert ["(deleted)" in line for line in lines] == [True, False]
    assert "'one\\nline'" in lines[0]


def test_verify_finds_nothing_where_nothing_is(bare: Bare, full: Shelf) -> None:
    done = bare.rescue(full.place, "verify", *full.key)

    assert (done.returncode, done.stderr) == (0, "")
    assert "2 points" in done.stdout


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.chmod(0o600)
    path.write_bytes(data)


@pytest.mark.parametrize("where", ["keepstone.json", "commits", "heads", "packs"])
@pytest.mark.parametrize("at", [0, 0.5, -1])
def test_verify_finds_a_flipped_bit(bare: Bare, shelf: Shelf, tmp_path: Path, where: str, at: float) -> None:
    shelf.put_image(sparse(tmp_path / "disk", 3 * CHUNK, {0: noise(2)}))
    place = shelf.place / where
    for path in sorted(path for path in [place, *place.rglob("*")] if path.is_file()):
        flip(path, int(path.stat().st_size * at))

        done = bare.rescue(shelf.place, "verify", *shelf.key)

        assert done.returncode in (1, 4), path
        assert done.stderr.startswith("rescue: ")
        assert "Traceback" not in done.stderr
        flip(path, int(path.stat().st_size * at))


def test_a_damaged_keys_object_is_not_taken_for_a_wrong_key(bare: Bare, shelf: Shelf) -> None:
    for at in range(0, (shelf.place / "keys/00000001").stat().st_size, 97):
        flip(shelf.place / "keys/00000001", at)

        done = bare.rescue(shelf.place, "list", *shelf.key)

        assert done.returncode == 1
        assert done.stderr.startswith("rescue: keys/00000001 does not match its checksum; a recovery kit opens")
        flip(shelf.place / "keys/00000001", at)


def lose_keys(shelf: Shelf, how: str) -> None:
    """Damage what is in `keys/`, or all of it."""
    place = shelf.place / "keys/00000001"
    data = place.read_bytes()
    place.unlink()
    if how == "folder":
        place.parent.rmdir()
    elif how == "truncated":
        place.write_bytes(data[: len(data) // 2])
    elif how == "zeros":
        place.write_bytes(bytes(len(data)))
    elif how == "another store's":
        other = new_shelf(shelf.folder / "other")
        place.write_bytes((other.place / "keys/00000001").read_bytes())


LOSSES = ["object", "folder", "truncated", "zeros", "another store's"]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("how", LOSSES)
def test_a_kit_restores_without_keys(bare: Bare, tmp_path: Path, tree: Path, how: str, profile: str) -> None:
    shelf = new_shelf(tmp_path / "shelf", profile)
    point = shelf.put_tree(tree)
    kit = kit_text(shelf)
    lose_keys(shelf, how)

    done = bare.rescue(shelf.place, "restore", point, tmp_path / "out", "--kit-json", "-", stdin=kit)
    checked = bare.rescue(shelf.place, "verify", "--kit-json", "-", stdin=kit)
    refused = bare.rescue(shelf.place, "list", *shelf.key)

    assert picture(tmp_path / "out") == picture(tree)
    for told in (done, checked):
        assert told.returncode == 4  # it is told, and nothing else is
        assert told.stderr.endswith("; going on with the keys in the kit\n")
        assert told.stderr.count("\n") == 1
    assert refused.returncode == 1
    assert "a recovery kit opens the store without it" in refused.stderr


def test_a_kit_restores_without_keys_and_descriptor(bare: Bare, shelf: Shelf, tmp_path: Path) -> None:
    shelf.put_image(sparse(tmp_path / "disk", CHUNK, {0: b"x"}))
    kit = kit_text(shelf)
    lose_keys(shelf, "folder")
    (shelf.place / "keepstone.json").unlink()

    done = bare.rescue(shelf.place, "restore", "latest", tmp_path / "out", "--kit-json", "-", stdin=kit)

    assert done.returncode == 4
    assert (tmp_path / "out").read_bytes() == (tmp_path / "disk").read_bytes()


@pytest.mark.parametrize("how", ["not at all", *LOSSES])
def test_the_kit_of_another_store_is_named(bare: Bare, shelf: Shelf, tmp_path: Path, how: str) -> None:
    foreign = new_shelf(tmp_path / "foreign")
    if how != "not at all":
        lose_keys(shelf, how)

    done = bare.rescue(shelf.place, "list", "--kit-json", "-", stdin=kit_text(foreign))

    ids = foreign.store.descriptor.store, shelf.store.descriptor.store
    assert (done.returncode, done.stderr) == (1, "rescue: the kit is of store {}, and this is store {}\n".format(*ids))


def test_a_kit_does_not_go_round_a_newer_keys_object(bare: Bare, shelf: Shelf) -> None:
    text = b'{\n  "format": "keepstone keys",\n  "version": 2,\n  "mac": "",\n'
    checksum = hashlib.sha256(text).hexdigest().encode()
    (shelf.place / "keys/00000002").write_bytes(text + b'  "checksum": "%b"\n}\n' % checksum)

    for key, stdin in ((shelf.key, b""), (("--kit-json", "-"), kit_text(shelf))):
        done = bare.rescue(shelf.place, "list", *key, stdin=stdin)

        assert (done.returncode, done.stderr) == (
            1,
            "rescue: keys/00000002 has version 2; take the rescue.py of a newer store\n",
        )


@pytest.mark.parametrize("text", [b"", b"-----BEGIN AGE ENCRYPTED FILE-----\n", b"[]", b"{}", b'{"format": "x"}'])
def test_what_is_no_text_of_a_kit_is_named(bare: Bare, shelf: Shelf, text: bytes) -> None:
    done = bare.rescue(shelf.place, "list", "--kit-json", "-", stdin=text)

    assert done.returncode == 1
    assert "is not the text of a recovery kit of version 1, which `age --decrypt KIT` shows" in done.stderr


def data_pack(shelf: Shelf) -> Path:
    """The only pack of data."""
    return next(path for path in (shelf.place / "packs").rglob("*") if path.is_file() and path.read_bytes()[28] == 0)


def test_only_what_is_damaged_is_left_out(bare: Bare, shelf: Shelf, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(8):
        (source / f"{number}").write_bytes(noise(4, seed=number))
    shelf.put_tree(source)
    flip(data_pack(shelf), 3 * 4 * CHUNK + CHUNK)

    done = bare.rescue(shelf.place, "restore", "latest", tmp_path / "out", *shelf.key)
    salvaged = bare.rescue(shelf.place, "restore", "latest", tmp_path / "all", *shelf.key, "--salvage")

    restored = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    lost = {path.name for path in source.iterdir()} - restored.keys()

    assert (done.returncode, salvaged.returncode) == (4, 4)
    assert 1 <= len(lost) <= 2  # a frame holds the chunks of one file, or the last of one and the first of the next
    assert all(f"'{name}' is left out: frame " in done.stderr for name in lost)
    assert all(content == (source / name).read_bytes() for name, content in restored.items())
    for name in lost:
        rescued, original = (tmp_path / "all" / name).read_bytes(), (source / name).read_bytes()
        wrong = [at for at in range(len(original)) if rescued[at] != original[at]]
        assert len(rescued) == len(original)
        assert len(wrong) < len(original)
        assert not any(rescued[at] for at in wrong)


def test_of_a_damaged_image_nothing_is_left_or_zeros_are_named(bare: Bare, shelf: Shelf, tmp_path: Path) -> None:
    shelf.put_image(sparse(tmp_path / "disk", 20 * CHUNK, {0: noise(20)}))
    flip(data_pack(shelf), 10 * CHUNK)

    done = bare.rescue(shelf.place, "restore", "latest", tmp_path / "out", *shelf.key)
    salvaged = bare.rescue(shelf.place, "restore", "latest", tmp_path / "all", *shelf.key, "--salvage")

    assert (done.returncode, salvaged.returncode) == (1, 4)
    assert not (tmp_path / "out").exists()
    assert "has zeros where bytes are lost" in salvaged.stderr
    chunks = [(tmp_path / "all").read_bytes()[at : at + CHUNK] for at in range(0, 20 * CHUNK, CHUNK)]
    originals = [noise(20)[at : at + CHUNK] for at in range(0, 20 * CHUNK, CHUNK)]
    assert {chunk for chunk, original in zip(chunks, originals, strict=True) if chunk != original} == {bytes(CHUNK)}
    assert sum(map(bytes.__ne__, chunks, originals)) <= FRAME_LIMIT // CHUNK


def test_without_a_descriptor_it_goes_on(bare: Bare, shelf: Shelf, tmp_path: Path) -> None:
    shelf.put_image(sparse(tmp_path / "disk", CHUNK, {0: b"x"}))
    (shelf.place / "keepstone.json").unlink()

    done = bare.rescue(shelf.place, "restore", "latest", tmp_path / "out", *shelf.key)

    assert done.returncode == 4
    assert "keepstone.json is lost" in done.stderr
    assert (tmp_path / "out").read_bytes() == (tmp_path / "disk").read_bytes()


def change_descriptor(shelf: Shelf, old: str, new: str) -> None:
    path = shelf.place / "keepstone.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "code", "says"),
    [
        ('"format": 1', '"format": 2', 1, "this is no Keepstone store of format 1, but 'keepstone store' 2"),
        ("keepstone store", "kopia store", 1, "this is no Keepstone store of format 1, but 'kopia store' 1"),
        ('"soft_delete_days": 14', '"soft_delete_days": 15', 4, "keepstone.json was changed"),
    ],
)
def test_another_descriptor_is_noticed(bare: Bare, shelf: Shelf, old: str, new: str, code: int, says: str) -> None:
    change_descriptor(shelf, old, new)

    done = bare.rescue(shelf.place, "list", *shelf.key)

    assert done.returncode == code
    assert says in done.stderr


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "key").write_bytes(bytes(32)), "does not open by this platform key"),
        (lambda folder: (folder / "key").write_bytes(b"x"), "is no key file of 32 bytes"),
        (lambda folder: (folder / "key").unlink(), "No such file"),
    ],
)
def test_a_wrong_key_is_said_to_be_one(bare: Bare, shelf: Shelf, spoil: Callable[[Path], object], says: str) -> None:
    spoil(shelf.folder)

    done = bare.rescue(shelf.place, "list", *shelf.key)

    assert done.returncode == 1
    assert says in done.stderr


def test_nothing_that_exists_is_touched(bare: Bare, full: Shelf, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "precious").write_text("x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("elsewhere")

    for point in full.store.points.list():
        for name in ("folder", "file", "link"):
            assert bare.rescue(full.place, "restore", point.id, tmp_path / name, *full.key).returncode == 1

    assert (tmp_path / "folder" / "precious").read_text() == (tmp_path / "file").read_text() == "x"
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    "arguments", [["restore"], ["restore", "latest"], ["list", "latest"], ["verify", "a", "b"], ["remove"]]
)
def test_wrong_usage_has_its_own_exit_code(bare: Bare, shelf: Shelf, arguments: list[str]) -> None:
    assert bare.rescue(shelf.place, *arguments, *shelf.key).returncode == 2
    assert bare.rescue(shelf.place, *arguments).returncode == 2


HOSTILE: dict[str, list[Item]] = {
    "upwards": [file(b"..", b"x")],
    "itself": [file(b".", b"x")],
    "empty": [file(b"", b"x")],
    "a path": [file(b"../escaped", b"x")],
    "an absolute path": [file(b"/tmp/escaped", b"x")],
    "twice": [file(b"a", b"x"), file(b"a", b"y")],
    "a link and then a folder": [symlink(b"a", b".."), folder(b"a", file(b"escaped", b"x"))],
    "out of order": [file(b"b", b"x"), file(b"a", b"x")],
    "over two pages": [file(b"a", b"x"), file(b"b", b"x"), file(b"c", b"x"), file(b"a", b"y")],
}


@pytest.mark.parametrize("items", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_name_ends_it(bare: Bare, shelf: Shelf, tmp_path: Path, items: list[Item]) -> None:
    builder = Builder(shelf.store)
    builder.commit(builder.pages([folder(b"f", *items)]), detail())
    before = sorted(tmp_path.rglob("*"))

    done = bare.rescue(shelf.place, "restore", "latest", tmp_path / "out" / "put", *shelf.key)
    (tmp_path / "out").mkdir()
    done = bare.rescue(shelf.place, "restore", "latest", tmp_path / "out" / "put", *shelf.key)

    assert done.returncode == 1
    assert "no name that a folder can hold" in done.stderr
    assert {path for path in tmp_path.rglob("*") if path not in before} <= {
        tmp_path / "out",
        *(tmp_path / "out").rglob("put*"),
        *(tmp_path / "out" / "put").rglob("*"),
    }
    assert not Path("/tmp/escaped").exists()


def test_no_link_is_followed(bare: Bare, shelf: Shelf, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o750)
    make_point(
        shelf.store,
        symlink(b"a", os.fsencode(outside), mtime=1),
        file(b"b", b"x", extra=Extra(link=(1, 2)), inode=5),
        file(b"c", extra=Extra(link=(1, 2)), inode=5),
    )
    before = outside.stat()

    done = bare.rescue(shelf.place, "restore", "latest", tmp_path / "out", *shelf.key)

    assert (done.returncode, done.stderr) == (0, "")
    assert os.readlink(tmp_path / "out" / "a") == str(outside)
    assert (tmp_path / "out" / "a").lstat().st_mtime_ns == 1
    assert (outside.stat().st_mtime_ns, outside.stat().st_mode) == (before.st_mtime_ns, before.st_mode)
    assert (tmp_path / "out" / "b").samefile(tmp_path / "out" / "c")


FORGED: dict[str, tuple[Item, str]] = {
    "too long for its size": (file(b"x", b"12345", size=4), "does not fit its extents"),
    "too short": (file(b"x", b"12345", size=6), "is shorter than its extents"),
    "extents overlap": (file(b"x", b"1234", size=9, extra=Extra(extents=[(0, 2), (1, 2)])), "does not fit its extents"),
    "extents beyond": (file(b"x", b"1234", size=9, extra=Extra(extents=[(6, 4)])), "does not fit its extents"),
    "extents empty": (file(b"x", b"1234", size=9, extra=Extra(extents=[(0, 0), (0, 4)])), "does not fit its extents"),
    "extents negative": (file(b"x", b"1234", size=9, extra=Extra(extents=[(-4, 4)])), "does not fit its extents"),
    "chunks missing": (file(b"x", b"1234", count=2, size=8), "is shorter than its extents"),
    "unreadable": (file(b"x", size=9, extra=Extra(flags=2)), "could not be read when it was backed up"),
    "a kind that is none": (Item(b"x", 0o070644), "left out"),
}


@pytest.mark.parametrize(("item", "says"), FORGED.values(), ids=FORGED)
def test_an_entry_that_makes_no_sense_is_left_out(
    bare: Bare, shelf: Shelf, tmp_path: Path, item: Item, says: str
) -> None:
    make_point(shelf.store, file(b"before", b"good"), item, folder(b"z", file(b"after", b"good")))

    done = bare.rescue(shelf.place, "restore", "latest", tmp_path / "out", *shelf.key)

    assert done.returncode == 4
    assert "'x' is left out: " in done.stderr
    assert says in done.stderr
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == ["after", "before", "z"]
    assert (tmp_path / "out" / "z" / "after").read_bytes() == b"good"


def test_a_folder_within_itself_ends(bare: Bare, shelf: Shelf, tmp_path: Path) -> None:
    builder = Builder(shelf.store)
    own = builder.node([], [], b"") + 1
    body = msgspec.msgpack.decode(_page_of(shelf, folder(b"f", count=1)))
    builder.node([], [own], msgspec.msgpack.encode(body))
    builder.commit([own], detail())

    done = bare.rescue(shelf.place, "restore", "latest", tmp_path / "out", *shelf.key)
    checked = bare.rescue(shelf.place, "verify", *shelf.key)

    assert done.returncode == 1
    assert "a folder within itself" in done.stderr
    assert checked.returncode == 0


def _page_of(shelf: Shelf, item: Item) -> bytes:
    """The body of a page with this entry."""
    with make_point(shelf.store, item) as reader:
        return reader.node(reader.root()[0]).body
