# SPDX-License-Identifier: Apache-2.0
"""Restoring disks: whole, in place, onto nothing that was not meant."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from keepstone.disks import RawSink
from keepstone.errors import StorageFull
from tests.cli.running import Cli, noise

pytestmark = pytest.mark.store


@pytest.fixture
def disk(made: Cli) -> Path:
    """A disk of which there is a point, and which has changed since."""
    disk = made.disk(3 << 20)
    made.backup(disk)
    return disk


def test_disk_comes_back(made: Cli, disk: Path) -> None:
    restored = made("restore", "latest", "--target", "new", "--json").json

    assert restored["target"] == "new"
    assert Path("new").read_bytes() == disk.read_bytes()


def test_folder_as_target_gets_the_disk_under_its_name(made: Cli, disk: Path) -> None:
    Path("folder").mkdir()

    made("restore", "latest", "--target", "folder")

    assert Path("folder/disk.img").read_bytes() == disk.read_bytes()


def test_existing_file_is_left_alone_unless_told(made: Cli, disk: Path) -> None:
    Path("new").write_bytes(b"mine")

    assert made("restore", "latest", "--target", "new", "--json", code=1).error == "TargetExists"

    assert Path("new").read_bytes() == b"mine"
    made("restore", "latest", "--target", "new", "--overwrite")
    assert Path("new").read_bytes() == disk.read_bytes()


def test_in_place_goes_back_to_the_source(made: Cli, disk: Path) -> None:
    content = disk.read_bytes()
    disk.write_bytes(noise(100, 1) + content[100 : 2 << 20])

    restored = made("restore", "latest", "--in-place", "--json").json

    assert disk.read_bytes() == content
    assert restored["target"] == str(disk)
    assert (restored["size"], restored["written_bytes"]) == (3 << 20, (256 << 10) + (1 << 20))


def test_older_point_is_chosen_by_its_id(made: Cli, disk: Path) -> None:
    content = disk.read_bytes()
    old = made.points()[0]["short"]
    disk.write_bytes(noise(1000, 1))
    made.backup(disk)
    made.backup(disk, "--item", "other")

    made("restore", old, "--target", "old")
    made("restore", "latest", "--target", "new", "--item", str(disk))

    assert Path("old").read_bytes() == content
    assert Path("new").read_bytes() == noise(1000, 1)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--target", "new", "--delete"),
        ("--target", "new", "--skip"),
        ("--target", "new", "--keep-both"),
        ("--tar", "-"),
        ("--tar", "new", "--target", "new"),
        ("--target", "new", "--in-place", "--compare-content"),
    ],
)
def test_what_makes_no_sense_for_a_disk(made: Cli, disk: Path, arguments: tuple[str, ...]) -> None:
    assert made("restore", "latest", *arguments, "--json", code=2).error == "BadRequest"
    assert not Path("new").exists()


def test_damaged_store_restores_everything_else(made: Cli, disk: Path) -> None:
    pack = made.packs()[0]
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 4
    pack.chmod(0o600)
    pack.write_bytes(data)

    ended = made("restore", "latest", "--target", "new", "--json", code=4)

    assert ended.error == "RestoreIncomplete"
    (lost,) = ended.json["failed"]
    expected = bytearray(disk.read_bytes())
    expected[lost["offset"] : lost["offset"] + lost["length"]] = bytes(lost["length"])
    assert Path("new").read_bytes() == expected
    assert f"bytes {lost['offset']} to {lost['offset'] + lost['length'] - 1} are not restored" in ended.err


def test_overwritten_disk_is_said_to_be_neither(made: Cli, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new file is removed, of which there is nothing to say."""

    def full(*_: object) -> None:
        raise StorageFull("no room")

    Path("old").write_bytes(noise(3 << 20, 1))
    monkeypatch.setattr(RawSink, "finish", full)

    for target, options, said in (("old", ("--overwrite",), True), ("old", ("--in-place",), True), ("new", (), False)):
        ended = made("restore", "latest", "--target", target, *options, "--json", code=1)
        assert ended.error == "StorageFull"
        assert ("neither what it was" in ended.err) is said
    assert not Path("new").exists()
    monkeypatch.undo()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a loop device")
def test_device_is_overwritten_only_when_told_to(made: Cli, disk: Path) -> None:
    backing = made.path / "backing"
    backing.write_bytes(bytes(4 << 20))
    attached = subprocess.run(["losetup", "--find", "--show", backing], capture_output=True, text=True, check=False)
    if attached.returncode:
        pytest.skip("there is no loop device")
    device = attached.stdout.strip()
    try:
        assert made("restore", "latest", "--target", device, "--json", code=1).error == "TargetExists"
        try:
            Path(device).write_bytes(bytes(512))
        except PermissionError:
            pytest.skip("nobody may write to a loop device here")
        made("restore", "latest", "--target", device, "--overwrite")
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
    assert backing.read_bytes() == disk.read_bytes() + bytes(1 << 20)


def test_target_in_no_folder_is_not_found(made: Cli, disk: Path) -> None:
    ended = made("restore", "latest", "--target", "no/new", "--json", code=3)

    assert "no/new" in ended.err
