# SPDX-License-Identifier: Apache-2.0
"""Restoring a disk into an image of another format: only where it is asked for, only into a new file."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepstone.cli.formats import NAMES
from keepstone.disks.writing import FORMATS
from tests.cli.answering import Answering
from tests.cli.running import Cli
from tests.unit.disks_writing.images import QEMU, needs_qemu, qemu

pytestmark = pytest.mark.vm


@pytest.fixture
def disk(made: Cli) -> Path:
    """A disk of which there is a point."""
    disk = made.disk(3 << 20)
    made.backup(disk)
    return disk


def test_the_command_knows_all_formats() -> None:
    assert tuple(FORMATS) == NAMES


@needs_qemu
@pytest.mark.parametrize("name", NAMES)
def test_every_format(made: Cli, disk: Path, name: str) -> None:
    restored = made("restore", "latest", "--target", "new", "--format", name, "--json").json

    assert (restored["target"], restored["size"]) == ("new", 3 << 20)
    qemu("compare", "-f", "raw", "-F", QEMU.get(name, name), disk, "new")


def test_a_file_called_like_another_format_has_to_be_meant(made: Cli, disk: Path) -> None:
    for suffix in ("vhd", "vhdx", "vmdk", "qcow2", "QCOW2"):
        ended = made("restore", "latest", "--target", f"new.{suffix}", "--json", code=2)
        assert f"--format {suffix.lower()}" in ended.json["error"]["message"]
        assert not Path(f"new.{suffix}").exists()
    made("restore", "latest", "--target", "new.vhdx", "--format", "raw")
    assert Path("new.vhdx").read_bytes() == disk.read_bytes()


def test_in_a_folder_it_is_called_like_what_it_is(made: Cli, disk: Path) -> None:
    Path("folder").mkdir()
    made("restore", "latest", "--target", "folder", "--format", "vhdx")
    assert Path("folder/disk.vhdx").read_bytes()[:8] == b"vhdxfile"
    made("restore", "latest", "--target", "folder")
    assert Path("folder/disk.img").read_bytes() == disk.read_bytes()


def test_where_the_source_was_its_name_means_nothing(made: Cli) -> None:
    disk = made.path / "disk.qcow2"
    disk.write_bytes(b"bytes of some image" * 5000)
    made.backup(disk)
    before = disk.read_bytes()
    disk.write_bytes(bytes(len(before)))
    made("restore", "latest", "--in-place")
    assert disk.read_bytes() == before


@pytest.mark.parametrize("option", ["--in-place", "--overwrite"])
def test_an_image_goes_into_a_new_file_only(made: Cli, disk: Path, option: str) -> None:
    Path("new").write_bytes(b"mine")
    assert "new file" in made("restore", "latest", "--target", "new", "--format", "vhdx", option, code=2).err
    assert made("restore", "latest", "--target", "new", "--format", "vhdx", "--json", code=1).error == "TargetExists"
    assert Path("new").read_bytes() == b"mine"


def test_files_have_no_format(made: Cli) -> None:
    folder = made.path / "folder"
    folder.mkdir()
    (folder / "a").write_bytes(b"a")
    made.backup(folder)
    ended = made("restore", "latest", "--target", "back", "--format", "vhdx", code=2)
    assert "--format is for" in ended.err
    assert not Path("back").exists()


@needs_qemu
def test_through_a_service(service: Answering, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPSTONE_DATA", str(service.root))
    monkeypatch.setenv("KEEPSTONE_GROUP", "formats")
    monkeypatch.setenv("KEEPSTONE_VAULT", "formats")
    cli.run("group", "create", "-n", "formats")
    cli.run("vault", "create", "-n", "formats")
    disk = cli.disk(3 << 20)
    cli.run("protection", "enable", "--path", disk, "--disk")
    cli.run("protection", "backup-now", "-i", disk)
    restore = ("restore", "disk", "latest", "-i", disk)

    shown = cli.run(*restore, "--target", "new.vhdx", "--format", "vhdx", "--dry-run").out
    assert "vhdx" in shown
    cli.run(*restore, "--target", "new.vhdx", "--format", "vhdx")
    qemu("compare", "-f", "raw", "-F", "vhdx", disk, "new.vhdx")
    assert "--format vmdk" in cli.run(*restore, "--target", "new.vmdk", code=2).err
    assert "--in-place" in cli.run(*restore, "--in-place", "--yes", "--format", "vhdx", code=2).err
