# SPDX-License-Identifier: Apache-2.0
"""The quickstart, at a small scale: it runs, runs again, spares what it did not make, and would see a difference."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

pytestmark = pytest.mark.store

SCRIPTS = Path(__file__).parents[2] / "scripts"


def _run(place: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / "quickstart.py"), "--folder", "4", "--image", "6"]
    environment = {**os.environ, "KEEPSTONE_QUICKSTART": str(place)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def _script(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module(name)


def _keepstone(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "import sys; from keepstone.cli import main; sys.exit(main())", *arguments]
    environment = {
        **os.environ,
        "KEEPSTONE_HOME": str(place / "home"),
        "KEEPSTONE_DATA": str(place / "service"),
        "KEEPSTONE_GROUP": "quickstart",
        "KEEPSTONE_VAULT": "vault1",
    }
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_it_runs_again_and_leaves_a_vault_to_go_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "here"
    vaults = set()
    quickstart = _script("quickstart", monkeypatch)
    try:
        for _ in range(2):
            done = _run(place)

            assert done.returncode == 0, done.stdout + done.stderr
            assert "Everything came back as it was" in done.stdout
            assert "disk image: second backup" in done.stdout
            assert "password" not in done.stdout
            (key,) = (place / "service" / "keys").iterdir()
            assert stat.S_IMODE(key.stat().st_mode) == 0o600
            vaults.add(key.stem)
        assert len(vaults) == 2
        assert (place / "folder").is_dir()
        assert (place / "disk.img").is_file()
        assert not (place / "restored").exists()
        listing = _keepstone(place, "item", "list", "--json")
        assert listing.returncode == 0, listing.stderr
        items = {item["properties"]["friendlyName"]: item["properties"] for item in json.loads(listing.stdout)}
        assert items[str(place / "folder")]["extendedInfo"]["recoveryPointCount"] == 2
        assert items["quickstart-machine"]["policyName"] == "HourlyMachines"
    finally:
        stopped = _keepstone(place, "down")
        quickstart.Quickstart(place, Console(), 0).dismiss()
    assert stopped.returncode == 0, stopped.stderr


def test_it_spares_a_folder_that_it_did_not_make(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")

    done = _run(tmp_path)

    assert done.returncode == 1
    assert "no quickstart made" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def _flip(path: Path) -> None:
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _gone(path: Path) -> Path:
    path.unlink()
    return path


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "byte": (lambda tree: _flip(tree / "a" / "file"), "'a/file' has other content"),
    "length": (lambda tree: os.truncate(tree / "a" / "file", 3), "'a/file' has other content"),
    "mode": (lambda tree: (tree / "a" / "file").chmod(0o600), "'a/file' has mode -rw-------, not -rw-r-----"),
    "mode of a folder": (lambda tree: (tree / "a").chmod(0o700), "'a' has mode drwx------, not drwxr-x---"),
    "time": (lambda tree: os.utime(tree / "a" / "file", ns=(1, 123_456_788)), "'a/file' has another time"),
    "time of a folder": (lambda tree: os.utime(tree / "a", ns=(1, 2)), "'a' has another time"),
    "time of the root": (lambda tree: os.utime(tree, ns=(1, 2)), "'' has another time"),
    "time of a link": (
        lambda tree: os.utime(tree / "link", ns=(1, 2), follow_symlinks=False),
        "'link' has another time",
    ),
    "missing": (lambda tree: (tree / "a" / "file").unlink(), "'a/file' is missing"),
    "too much": (lambda tree: (tree / "a" / "more").touch(), "'a/more' is too much"),
    "target": (lambda tree: _gone(tree / "link").symlink_to("b"), "'link' points elsewhere"),
    "type": (lambda tree: _gone(tree / "link").write_text("a"), "'link' is of another type"),
    "hard link": (lambda tree: shutil.copy2(tree / "two", _gone(tree / "one")), "other names are one file"),
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "a").mkdir(parents=True)
    (root / "a" / "file").write_text("content")
    (root / "a" / "file").chmod(0o640)
    os.utime(root / "a" / "file", ns=(1, 123_456_789))
    (root / "a").chmod(0o750)
    (root / "link").symlink_to("a")
    (root / "one").write_text("one")
    (root / "two").hardlink_to(root / "one")
    subprocess.run(["cp", "-a", str(root), str(tmp_path / "copy")], check=True)
    return root


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_comparison_sees(damage: str, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    differences = _script("difference", monkeypatch).differences
    copy = tree.with_name("copy")
    assert list(differences(str(tree), str(copy))) == []
    change, words = DAMAGES[damage]

    change(copy)

    assert words in list(differences(str(tree), str(copy)))


def test_the_comparison_sees_attributes(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    differences = _script("difference", monkeypatch).differences
    copy = tree.with_name("copy")
    try:
        os.setxattr(copy / "a" / "file", "user.more", b"1")
    except OSError as error:
        pytest.fail(f"this file system has no user attributes ({error}); set TMPDIR to one that has")

    assert list(differences(str(tree), str(copy))) == ["'a/file' has other extended attributes"]


def test_a_difference_fails_the_run(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quickstart = _script("quickstart", monkeypatch)
    copy = tree.with_name("copy")
    quickstart.compare(tree, copy)
    _flip(copy / "a" / "file")

    with pytest.raises(quickstart.Failed, match=r"'a/file' has other content"):
        quickstart.compare(tree, copy)
    with pytest.raises(quickstart.Failed, match="other content"):
        quickstart.compare(tree / "a" / "file", copy / "a" / "file")


def test_without_e2fsprogs_the_image_is_made_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    material = _script("material", monkeypatch)
    monkeypatch.setattr(material, "has_ext4", lambda: False)
    image, stage = tmp_path / "disk.img", tmp_path / "stage"
    material.make_image(image, stage, 4_000_000)
    before = image.read_bytes()
    first = next(path for path in sorted(stage.rglob("*")) if path.is_file() and not path.is_symlink())

    material.change_image(image, stage)

    after = image.read_bytes()
    blocks = range(0, len(before), 4096)
    changed = [at for at in blocks if before[at : at + 4096] != after[at : at + 4096]]
    assert before.startswith(first.read_bytes())
    assert len(after) == len(before) > 4_000_000
    assert 0 < len(changed) < len(blocks) // 50
