# SPDX-License-Identifier: Apache-2.0
"""Backing up disks that are in images of other programs: the point has the bytes of the disk."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from keepstone.cli.store.backup import FORMATS
from keepstone.disks import FORMATS as FORMATS_OF_DISKS
from tests.cli.running import Cli
from tests.unit.disks.foreign import MIB, Vhdx, noise, qemu_image, scattered

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-img (apt install qemu-utils)"),
]


@pytest.mark.parametrize(
    ("name", "format"), [("disk.VHDX", "vhdx"), ("disk.vhd", "vpc"), ("disk.vmdk", "vmdk"), ("d.qcow2", "qcow2")]
)
def test_the_point_has_the_disk(made: Cli, name: str, format: str) -> None:
    content = scattered(made.path / "disk.raw", 9 * MIB)
    image = qemu_image(made.path / "disk.raw", made.path / name, format, "force_size=on" if format == "vpc" else "")

    tried = made("backup", image, "--dry-run", "--json").json["sources"][0]
    assert made.backup("disk.raw", "--item", "other")["new_bytes"] > 0
    point = made.backup(image)
    made("restore", point["id"], "--target", "new")

    assert (tried["kind"], tried["bytes"]) == ("images", 9 * MIB)
    assert 0 < tried["data_bytes"] < 9 * MIB
    assert point["new_bytes"] == 0  # chunk by chunk what was in the raw one
    assert (point["kind"], point["logical_bytes"]) == ("images", 9 * MIB)
    assert Path("new").read_bytes() == content


def test_the_command_knows_all_formats() -> None:
    assert FORMATS == FORMATS_OF_DISKS


def test_an_image_under_another_name_is_raw_unless_somebody_says_so(made: Cli) -> None:
    content = scattered(made.path / "disk.raw", 2 * MIB)
    image = qemu_image(made.path / "disk.raw", made.path / "disk", "vhdx")
    shutil.copy(image, made.path / "copy.img")

    assert made.backup("copy.img")["logical_bytes"] == image.stat().st_size
    assert made.backup(image)["kind"] == "files"
    assert made.backup(image, "--format", "raw")["logical_bytes"] == image.stat().st_size
    assert made.backup(image, "--format", "vhdx", "--item", "disk")["logical_bytes"] == 2 * MIB
    made("restore", "latest", "--item", "disk", "--target", "new")
    assert Path("new").read_bytes() == content


def test_what_makes_no_sense(made: Cli) -> None:
    disk = made.disk(MIB)
    (made.path / "folder").mkdir()
    assert "no VHDX image" in made("backup", disk, "--format", "vhdx", code=2).err
    assert "leave --no-image out" in made("backup", disk, "--format", "vhdx", "--no-image", code=2).err
    assert "leave --image and --format out" in made("backup", "folder", "--format", "raw", code=2).err
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", disk, "-F", "raw", "disk.qcow2"], check=True)
    assert "qemu-img convert" in made("backup", "disk.qcow2", code=2).err
    assert made.backup("disk.qcow2", "--no-image")["kind"] == "files"
    damaged = Vhdx(MIB, {}).write(made.path / "disk.vhdx")
    damaged.write_bytes(damaged.read_bytes()[: 150 << 10])
    assert made("backup", damaged, "--json", code=1).error == "SourceFailed"


def test_parents_are_where_they_are_said_to_be(made: Cli) -> None:
    id = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
    (made.path / "parents").mkdir()
    Vhdx(2 * MIB, {1: (6, noise(MIB))}, id=id).write(made.path / "parents/base.vhdx")
    child = Vhdx(2 * MIB, {0: (6, noise(MIB, 1))}, parent=("..\\base.vhdx", id)).write(made.path / "child.avhdx")

    ended = made("backup", child, "--json", code=3)
    assert ended.error == "SourceMissing"
    assert "its parent is missing, base.vhdx; put it beside the image" in ended.json["error"]["message"]
    made.backup(child, "--parents", "parents")
    made("restore", "latest", "--target", "new")
    assert Path("new").read_bytes() == noise(MIB, 1) + noise(MIB)
