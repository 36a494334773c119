# SPDX-License-Identifier: Apache-2.0
"""Folders and files through the command line: chosen, found, compared, restored."""

from __future__ import annotations

import io
import os
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

    ended = made("restore", "latest", "--target", "new", "--json", code=1)

    assert ended.error == "RestoreIncomplete"
    assert [path for path, _ in ended.json["failed"]] == ["late"]
    assert set(content(Path("new"))) == set(content(tree)) - {"late"}


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
