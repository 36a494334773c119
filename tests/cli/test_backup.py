# SPDX-License-Identifier: Apache-2.0
"""What a backup takes and leaves out, and what it says of that."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from keepstone.cli.mounts import mounted
from keepstone.env import FileSystem
from tests.cli.running import Cli, noise

pytestmark = pytest.mark.store

PROGRAM = [sys.executable, "-c", "import sys; from keepstone.cli import main; sys.exit(main())"]


@pytest.fixture
def tree(made: Cli) -> Path:
    """A few files in a few folders."""
    tree = made.path / "tree"
    for number, name in enumerate(("a.txt", "deep/b.txt", "deep/er/c.o")):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(noise(100 + number, number))
    return tree


def names(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


def leases(cli: Cli) -> list[str]:
    return [path.name for path in (cli.store / "leases").glob("*")]


# Bytes that are not UTF-8


def test_pattern_of_any_bytes_leaves_out_what_it_names(made: Cli, tree: Path) -> None:
    odd = os.fsdecode(b"odd\xff.txt")
    (tree / odd).write_text("odd")
    Path("patterns").write_bytes(b"deep/*\xfe\n")
    (tree / "deep" / os.fsdecode(b"x\xfe")).write_text("x")

    made("backup", tree, "--exclude", os.fsdecode(b"*\xff*"), "--exclude-from", "patterns")
    made("restore", "latest", "--target", "new")

    assert names(Path("new")) == {"a.txt", "deep/b.txt", "deep/er/c.o"}
    made("restore", "latest", "--in-place", "--delete")
    assert (tree / odd).exists()  # what was left out is no reason to remove it


def test_tag_that_is_not_utf_8_is_refused_before_anything_is_begun(made: Cli, tree: Path) -> None:
    ended = made("backup", tree, "--tag", os.fsdecode(b"a\xff"), "--json", code=2)

    assert ended.error == "BadRequest"
    assert leases(made) == []
    assert made.points() == []


# The store in its own source


@pytest.mark.parametrize("where", ["vault", "in/[odd] *na me?\\ !", "#x", os.fsdecode(b"by\xfftes")])
def test_store_in_the_source_is_left_out(cli: Cli, where: str) -> None:
    source = cli.path / "source"
    cli.store = source / where
    cli.store.parent.mkdir(parents=True)
    (source / "file").write_text("mine")
    (source / "vault-of-another").mkdir()
    (source / "vault-of-another" / "file").write_text("mine as well")
    cli.init()

    told = cli("backup", source)
    point = cli.backup(source)
    cli("restore", "latest", "--target", "new")

    assert (point["files"], point["warnings"], point["new_bytes"]) == (2, 0, 0)
    assert names(Path("new")) == {"file", "vault-of-another/file"}
    assert "is left out" in told.err
    cli("restore", "latest", "--in-place", "--delete")
    assert cli("verify", "--deep", "--json").json["ok"] is True
    assert cli("backup", source, "--dry-run", "--json").json["sources"][0]["files"] == 2


def test_link_to_the_store_is_no_way_around(made: Cli, tree: Path) -> None:
    """Neither named by a link nor where the source is one."""
    made.store.rename(tree / "store")
    made.store.symlink_to(tree / "store")
    Path("link").symlink_to(tree)

    assert made.backup("link")["files"] == 3


@pytest.mark.parametrize("source", ["store", "store/heads", "store/FORMAT.md"])
def test_store_is_no_source(made: Cli, source: str) -> None:
    assert "is in the store itself" in made("backup", source, code=2).err
    assert made.points() == []


# Trying


def test_dry_run_lists_what_would_be_taken(made: Cli, tree: Path) -> None:
    tried = made("backup", tree, "--dry-run", "--list", "--exclude", "*.o")
    told = made("backup", tree, "--dry-run", "--list", "--exclude", "*.o", "--json").json

    assert [line.split() for line in tried.out.splitlines()[:2]] == [
        ["100", f"{tree}/a.txt"],
        ["101", f"{tree}/deep/b.txt"],
    ]
    assert told["sources"][0]["entries"] == [
        {"path": f"{tree}/a.txt", "size": 100},
        {"path": f"{tree}/deep/b.txt", "size": 101},
    ]
    assert "entries" not in made("backup", tree, "--dry-run", "--json").json["sources"][0]
    assert "--dry-run" in made("backup", tree, "--list", code=2).err
    assert made.points() == []


def test_disk_takes_no_options_for_files(made: Cli) -> None:
    disk = made.disk()

    for options in (("--exclude", "*"), ("--include", "a"), ("--exclude-caches",), ("-x",)):
        assert "backed up whole" in made("backup", disk, *options, code=2).err
    assert made.points() == []


def test_pattern_is_relative_to_the_source(made: Cli, tree: Path) -> None:
    assert made.backup(tree, "--exclude", f"{tree}/deep")["files"] == 3
    assert made.backup(tree, "--exclude", "/deep")["files"] == 1


# Warnings


def test_quiet_backup_names_what_it_left_out(made: Cli, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A nightly run says what it could not take, as far as anybody reads; and the point knows how much it was."""
    for number in range(30):
        (tree / f"secret{number:02}").write_text("x")
    opened = FileSystem.open

    def denied(path: str | bytes, *more: int, **options: int) -> int:
        if b"secret" in os.fsencode(path):
            raise PermissionError(13, "Permission denied")
        return opened(path, *more, **options)

    monkeypatch.setattr(FileSystem, "open", staticmethod(denied))

    ended = made("backup", tree, "--quiet", code=4)

    lines = ended.err.splitlines()
    assert len(lines) == 21
    assert lines[0].startswith("keepstone: warning: ")
    assert f"{tree}/secret" in lines[0]
    assert "10 more warnings" in lines[-1]
    assert "30 warnings" in made("list").out
    assert "30" in made("show", "latest").out


# Devices that are in use

MOUNTS = """\
22 27 7:1 / /mnt/data\\040one rw,relatime shared:1 - ext4 /dev/loop1 rw,errors=continue
23 27 7:3 / /mnt/part rw,relatime - ext4 /dev/loop3p1 rw
24 27 7:2 / /mnt/fixed ro,relatime - ext4 /dev/loop2 ro
25 27 7:1 / /again rw,relatime - ext4 /dev/loop1 rw
26 27 7:9 / /other rw,relatime - ext4 /dev/loop9 rw
"""


@pytest.mark.parametrize(
    ("number", "places"),
    [(1, ["/mnt/data\\040one", "/again"]), (2, []), (4, ["/mnt/part"]), (5, [])],
)
def test_where_a_device_is_mounted(tmp_path: Path, number: int, places: list[str]) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTS)
    (tmp_path / "7:4/loop3p1").mkdir(parents=True)
    (tmp_path / "7:4/loop3p1/dev").write_text("7:3\n")

    assert mounted(os.makedev(7, number), devices=tmp_path, mounts=tmp_path / "mountinfo") == places
    assert mounted(os.makedev(7, number), devices=tmp_path, mounts=tmp_path / "missing") == []


# A standard output that takes nothing


@pytest.mark.parametrize("to", [">/dev/full", ">&-"])
@pytest.mark.parametrize("options", ["", "--json", "--json-progress"])
def test_output_that_is_full_or_closed(made: Cli, tree: Path, to: str, options: str) -> None:
    """One plain line says so; what was committed is, and is named."""
    command = f'exec "$@" {options} {to}'
    run = ["bash", "-c", command, "bash", *PROGRAM, "store"]

    backed_up = subprocess.run(
        [*run, "backup", "--store", "store", "tree", "--quiet"], stderr=subprocess.PIPE, text=True, check=False
    )
    listed = subprocess.run([*run, "list", "--store", "store"], stderr=subprocess.PIPE, text=True, check=False)

    (point,) = made.points()
    for ended in (backed_up, listed):
        assert ended.returncode == 1
        assert len(ended.stderr.splitlines()) == 1
        assert ended.stderr.startswith("keepstone: the standard output: ")
    assert point["short"] in backed_up.stderr
    assert leases(made) == []
