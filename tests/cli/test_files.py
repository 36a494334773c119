# SPDX-License-Identifier: Apache-2.0
"""Folders and files through the command line: chosen, found, compared, restored."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from keepstone.env import FileSystem
from tests.cli.running import Cli, noise

pytestmark = pytest.mark.store


@pytest.fixture
def tree(made: Cli) -> Path:
    """A folder with a bit of everything."""
    tree = made.path / "tree"
    for name in ("docs/a.txt", "docs/deep/b.txt", "build/big.o", "cache/c"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(noise(3000, len(name)))
    (tree / "large.bin").write_bytes(noise(2 << 20))
    (tree / "docs/link").symlink_to("a.txt")
    (tree / "cache/CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n")
    return tree


def content(root: Path) -> dict[str, bytes | str]:
    """Every file and link beneath a folder."""
    return {
        str(path.relative_to(root)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in root.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def test_folder_comes_back(made: Cli, tree: Path) -> None:
    first = made.backup(tree)
    second = made.backup("tree/../tree/")

    restored = made("restore", "latest", "--target", "new", "--json").json

    assert (first["item"], first["kind"], first["files"]) == (str(tree), "files", 7)
    assert (second["item"], second["parent"], second["new_bytes"]) == (str(tree), first["id"], 0)
    assert (restored["point"], restored["files"], restored["failed"]) == (second["id"], 7, [])
    assert content(Path("new")) == content(tree)


def test_one_file_is_an_item(made: Cli, tree: Path) -> None:
    point = made.backup(tree / "docs/a.txt")

    made("restore", "latest", "--target", "new")

    assert (point["kind"], point["files"]) == ("files", 1)
    assert content(Path("new")) == {"a.txt": (tree / "docs/a.txt").read_bytes()}


def test_one_file_goes_back_to_its_place(made: Cli, tree: Path) -> None:
    """Where it was deleted and where it was changed; nothing beside it is touched."""
    path = tree / "docs/a.txt"
    made.backup(path)
    before = content(tree)
    path.unlink()

    restored = made("restore", "latest", "--in-place", "--json").json

    assert (restored["target"], restored["files"]) == (str(tree / "docs"), 1)
    assert content(tree) == before
    path.write_text("changed")
    made("restore", "latest", path, "--in-place", "--delete")
    assert content(tree) == before
    shutil.rmtree(tree / "docs")
    made("restore", "latest", "--in-place")
    assert content(tree / "docs") == {"a.txt": before["docs/a.txt"]}


def test_image_is_a_plain_file_where_it_is_called_one(made: Cli) -> None:
    assert made.backup(made.disk(), "--no-image")["kind"] == "files"


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (("--exclude", "*.o", "--exclude", "/cache"), {"docs/a.txt", "docs/deep/b.txt", "docs/link", "large.bin"}),
        (("--exclude-from", "patterns"), {"docs/a.txt", "docs/link", "cache/c", "cache/CACHEDIR.TAG"}),
        (("--include", "docs/**", "--exclude", "link"), {"docs/a.txt", "docs/deep/b.txt"}),
        (("--exclude-caches", "--exclude", "docs", "--exclude", "build", "-x"), {"large.bin", "cache/CACHEDIR.TAG"}),
    ],
)
def test_what_is_left_out(made: Cli, tree: Path, arguments: tuple[str, ...], left: set[str]) -> None:
    Path("patterns").write_text("deep\n*.o\n*.bin\n")

    dry = made("backup", tree, "--dry-run", "--json", *arguments).json
    assert made.points() == []
    point = made.backup(tree, *arguments)
    made("restore", "latest", "--target", "new")

    assert set(content(Path("new"))) == left
    assert dry["sources"][0]["files"] == point["files"] == len(left)


def test_unreadable_file_is_a_warning_and_the_point_is_good(
    made: Cli, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = FileSystem.open

    def refusing(path: Any, *given: Any, **named: Any) -> int:
        if os.fsencode(path).endswith(b"b.txt"):
            raise PermissionError(13, "Permission denied", path)
        return real(path, *given, **named)

    monkeypatch.setattr(FileSystem, "open", staticmethod(refusing))

    ended = made("backup", tree, "--json", code=4)

    assert ended.json["points"][0]["warnings"] == ended.json["warning_count"] == 1
    assert ended.json["warnings"][0]["path"].endswith("docs/deep/b.txt")
    assert "docs/deep/b.txt" in ended.err
    monkeypatch.undo()
    monkeypatch.chdir(made.path)
    monkeypatch.setenv("KEEPSTONE_HOME", str(made.home))
    assert made("show", "latest", "--json").json["doubtful"] == [
        {"path": "docs/deep/b.txt", "why": "could not be read"}
    ]
    assert "docs/deep/b.txt  could not be read" in made("show", "latest").out
    made("restore", "latest", "docs/a.txt", "large.bin", "--target", "new")
    assert set(content(Path("new"))) == {"docs/a.txt", "large.bin"}


@pytest.mark.parametrize("path", ["docs/deep", "./docs//deep/", "{tree}/docs/deep"])
def test_chosen_paths_are_restored(made: Cli, tree: Path, path: str) -> None:
    made.backup(tree)

    made("restore", "latest", path.format(tree=tree), "--target", "new")

    assert set(content(Path("new"))) == {"docs/deep/b.txt"}


@pytest.mark.parametrize(("path", "code"), [("nothing", 3), ("docs/nothing", 3), ("/etc/passwd", 3), ("../etc", 2)])
def test_path_that_the_point_does_not_have(made: Cli, tree: Path, path: str, code: int) -> None:
    made.backup(tree)

    made("restore", "latest", "build", path, "--target", "new", "--json", code=code)

    assert not Path("new").exists()


def test_target_with_something_in_it_is_left_alone(made: Cli, tree: Path) -> None:
    made.backup(tree)
    Path("new").mkdir()
    Path("new/mine").touch()

    assert made("restore", "latest", "--target", "new", "--json", code=1).error == "TargetExists"

    assert os.listdir("new") == ["mine"]


def test_in_place_writes_what_differs(made: Cli, tree: Path) -> None:
    made.backup(tree)
    before = content(tree)
    (tree / "docs/a.txt").write_text("changed")
    (tree / "docs/deep/b.txt").unlink()
    (tree / "extra").touch()

    restored = made("restore", "latest", "--in-place", "--json").json

    assert restored["target"] == str(tree)
    assert (restored["files"], restored["unchanged"]) == (2, 5)
    assert content(tree) == before | {"extra": b""}
    assert made("restore", "latest", "--in-place", "--delete", "--json").json["deleted"] == 1
    assert content(tree) == before


def test_conflicts_are_settled_as_asked(made: Cli, tree: Path) -> None:
    made.backup(tree)
    before = content(tree)
    changed = tree / "docs/a.txt"
    changed.write_text("changed")

    skipped = made("restore", "latest", "--target", tree, "--skip", "--json").json
    assert (skipped["skipped"], changed.read_text()) == (1, "changed")
    kept = made("restore", "latest", "--target", tree, "--keep-both", "--json").json
    assert kept["kept"] == [["docs/a.txt", "docs/a.txt.restored"]]
    assert (changed.read_text(), (tree / "docs/a.txt.restored").read_bytes()) == ("changed", before["docs/a.txt"])
    made("restore", "latest", "--target", tree, "--overwrite", "--delete")
    assert content(tree) == before


def test_same_size_and_time_needs_a_look_at_the_content(made: Cli, tree: Path) -> None:
    made.backup(tree)
    path = tree / "docs/a.txt"
    was, status = path.read_bytes(), path.stat()
    path.write_bytes(was[::-1])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    made("restore", "latest", "--in-place")
    assert path.read_bytes() == was[::-1]
    made("restore", "latest", "--in-place", "--compare-content")
    assert path.read_bytes() == was


def test_tar_to_the_standard_output_and_to_a_file(made: Cli, tree: Path) -> None:
    made.backup(tree)

    stream = made.raw("restore", "latest", "docs", "--tar", "-")
    made("restore", "latest", "--tar", "whole.tar")

    with tarfile.open(fileobj=io.BytesIO(stream)) as tar:
        assert {name for name in tar.getnames() if "." in name or "link" in name} == {
            "docs/a.txt",
            "docs/deep/b.txt",
            "docs/link",
        }
        member = tar.extractfile("docs/a.txt")
        assert member is not None
        assert member.read() == (tree / "docs/a.txt").read_bytes()
    with tarfile.open("whole.tar") as tar:
        tar.extractall("out", filter="data")
    assert content(Path("out")) == content(tree)
    assert made("restore", "latest", "--tar", "whole.tar", "--json", code=1).error == "TargetExists"
    assert made("restore", "latest", "--tar", "-", "--json", code=2).error == "BadRequest"
    made("restore", "latest", "nothing", "--tar", "other.tar", code=3)
    assert not Path("other.tar").exists()


def test_damaged_file_is_left_out_and_the_restore_says_so(made: Cli, tree: Path) -> None:
    made.backup(tree)
    (tree / "late").write_bytes(noise(5 << 20, 9))
    made.backup(tree)
    largest = made.packs()[0]
    largest.unlink()

    ended = made("restore", "latest", "--target", "new", "--json", code=4)

    assert ended.error == "RestoreIncomplete"
    assert [path for path, _ in ended.json["failed"]] == ["late"]
    assert set(content(Path("new"))) == set(content(tree)) - {"late"}


def test_failed_restore_says_what_it_leaves(made: Cli, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk and an interruption; a target in which nothing is goes again."""
    made.backup(tree)
    real = FileSystem.open

    def failing(error: BaseException, part: bytes) -> Any:
        def call(path: Any, flags: int, *given: Any, **named: Any) -> int:
            if not isinstance(path, int) and part in os.fsencode(path) and flags & os.O_CREAT:
                raise error
            return real(path, flags, *given, **named)

        return staticmethod(call)

    full = OSError(28, "No space left on device")
    for error, code, name in ((full, 1, "StorageFull"), (KeyboardInterrupt(), 130, "Interrupted")):
        target = made.path / name
        monkeypatch.setattr(FileSystem, "open", failing(error, b"large.bin"))
        ended = made("restore", "latest", "--target", target, "--json", code=code)
        monkeypatch.setattr(FileSystem, "open", staticmethod(real))

        assert ended.error == name
        if target.exists():
            assert "--in-place" in ended.err
            assert content(target).items() < content(tree).items()
        if code == 1:
            assert str(target / "large.bin") in ended.err
        made("restore", "latest", "--target", target, "--in-place", "--json")
        assert content(target) == content(tree)
    monkeypatch.setattr(FileSystem, "open", failing(full, b""))
    ended = made("restore", "latest", "large.bin", "--target", "gone", "--json", code=1)
    assert "--in-place" not in ended.err
    assert not Path("gone").exists()


def test_tar_that_cannot_be_written_is_named(made: Cli, tree: Path) -> None:
    made.backup(tree)
    Path("file").touch()

    for place, code, error in (
        ("missing/a.tar", 3, "ResourceNotFound"),
        ("file/a.tar", 3, "ResourceNotFound"),
        (".", 1, "TargetExists"),
        ("/proc/a.tar", 3, "ResourceNotFound"),
    ):
        ended = made("restore", "latest", "--tar", place, "--json", code=code)
        assert ended.error == error
        assert place in ended.err


def test_tar_on_a_full_disk_is_named_and_removed(made: Cli, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made.backup(tree)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    ended = made("restore", "latest", "--tar", "a.tar", "--json", code=1)

    assert ended.error == "StorageFull"
    assert "a.tar" in ended.err
    assert not Path("a.tar").exists()


def test_deleted_point_is_restored_and_searched_by_its_id(made: Cli, tree: Path) -> None:
    kept = made.backup(tree)
    (tree / "docs/new").touch()
    deleted = made.backup(tree)
    made("forget", deleted["id"])

    made("restore", deleted["short"], "--target", "by id")
    made("restore", "latest", "--target", "latest")

    assert content(Path("by id")) == content(tree)
    assert made("show", "latest", "--json").json["point"]["id"] == kept["id"]
    assert "docs/new" not in content(Path("latest"))
    assert made("find", "new", "--point", deleted["id"], "--json").json["found"][0]["path"] == "docs/new"
    made("find", "new", code=3)
    assert "undelete" in made("forget", deleted["id"], code=3).err
    made("forget", kept["id"])
    assert "all recovery points are deleted" in made("restore", "latest", "--target", "none", code=3).err


def test_item_that_is_not_there_is_named(made: Cli, tree: Path) -> None:
    made.backup(tree)

    for verb, more in (("restore", ("--target", "new")), ("show", ())):
        for name in ("latest", "abc"):
            ended = made(verb, name, "--item", "nope", *more, code=3)
            assert "item 'nope'" in ended.err
            assert "yet" not in ended.err


NAMES = [
    b"bad\xff",
    b"bad\\xff",
    b"back\\slash",
    b"new\nline",
    b"\x1b[2J",
    "\u00a0nbsp".encode(),
    "\u200b\U000e0001".encode(),
    b"\xc3",
]


def test_paths_are_taken_as_they_are_shown(made: Cli, tree: Path) -> None:
    """By find, for people and for programs; each name alone comes back."""
    odd = os.fsencode(tree / "odd")
    os.mkdir(odd)
    for name in NAMES:
        with open(os.path.join(odd, name), "wb") as file:
            file.write(name)
    point = made.backup(tree)

    shown = [entry["path"] for entry in made("find", "odd/*", "--json").json["found"]]
    lines = made("find", "odd/*").out.splitlines()[1:]

    assert [line.rpartition("  ")[2] for line in lines] == shown
    assert len(set(shown)) == len(NAMES)
    restored = set()
    for number, path in enumerate(shown):
        made("restore", point["id"], path, "--target", f"{number}")
        ((_, data),) = content(Path(f"{number}")).items()
        restored.add(data)
    assert restored == set(NAMES)
    for number, name in enumerate(NAMES):
        if name != b"bad\\xff":  # which is the other one's form
            made("restore", point["id"], os.fsdecode(b"odd/" + name), "--target", f"as it is {number}")
            assert [*content(Path(f"as it is {number}")).values()] == [name]
    made("restore", point["id"], os.fsdecode(odd + b"/bad\xff"), "--target", "whole path")
    assert [*content(Path("whole path")).values()] == [b"bad\xff"]


def test_item_named_after_a_path_that_is_no_text(made: Cli) -> None:
    source = os.fsdecode(os.fsencode(made.path) + b"/i\xff")
    os.mkdir(source)
    point = made.backup(source)

    for name in (source, point["item"]):
        assert made("restore", "latest", "--item", name, "--target", f"new {len(name)}", "--json").json["point"]
        assert len(made("list", "--item", name, "--json").json["points"]) == 1
        assert made("show", "latest", "--item", name, "--json").json["point"]["id"] == point["id"]
        shutil.rmtree(f"new {len(name)}")


def test_find_searches_all_points(made: Cli, tree: Path) -> None:
    first = made.backup(tree)
    (tree / "docs/a.txt").unlink()
    second = made.backup(tree)
    made.backup(made.disk())

    everywhere = made("find", "*.txt", "--json").json["found"]
    inside = made("find", "docs/*", "--point", second["short"], "--json").json["found"]

    assert [(entry["point"], entry["path"]) for entry in everywhere] == [
        (second["id"], "docs/deep/b.txt"),
        (first["id"], "docs/a.txt"),
        (first["id"], "docs/deep/b.txt"),
    ]
    assert {entry["path"]: entry["kind"] for entry in inside} == {
        "docs/deep": "directory",
        "docs/deep/b.txt": "file",
        "docs/link": "symlink",
    }
    lines = made("find", "*.txt").out.splitlines()
    assert lines[0].split()[0] == second["short"]
    assert lines[1].endswith("docs/deep/b.txt")
    nothing = made("find", "nothing", "--json", code=3)
    assert nothing.json == {"found": []}


def test_diff_of_folders(made: Cli, tree: Path) -> None:
    first = made.backup(tree)
    (tree / "docs/a.txt").write_text("changed")
    (tree / "build/big.o").unlink()
    (tree / "new").touch()
    (tree / "large.bin").chmod(0o600)
    second = made.backup(tree)

    changes = made("diff", first["short"], second["short"], "--json").json["changes"]

    assert {change["path"]: change["difference"] for change in changes} == {
        "build/big.o": "removed",
        "docs/a.txt": "content",
        "large.bin": "metadata",
        "new": "added",
    }
    lines = made("diff", first["short"], second["short"]).out.splitlines()
    assert lines[:4] == ["- build/big.o", "M docs/a.txt", "m large.bin", "+ new"]
    made.backup(made.disk())
    assert made("diff", first["short"], "latest", "--json", code=2).error == "BadRequest"
    assert made("diff", first["short"], first["short"], "--json").json["changes"] == []


def test_hostile_characters_do_not_reach_the_terminal(made: Cli, tree: Path) -> None:
    (tree / "\x1b[2Jevil\n").touch()
    made.backup(tree)

    for ended in (made("find", "*evil*"), made("show", "latest"), made("list")):
        assert "\x1b" not in ended.out
    assert r"\x1b[2Jevil\n" in made("find", "*evil*").out
