# SPDX-License-Identifier: Apache-2.0
"""`keepstone store backup --machine`, and what the other commands do with such a point."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from keepstone.disks import open_disk
from keepstone.env import Env
from tests.cli.conftest import cli, made
from tests.cli.running import Cli
from tests.machines.guest import Guest
from tests.machines.points import machine_point
from tests.rescue.test_rescue import new_shelf
from tests.unit.images.disk import CHUNK, noise, sparse

__all__ = ["cli", "made"]

pytestmark = pytest.mark.vm


def test_from_a_machine_that_runs_to_files(made: Cli, guest: Guest) -> None:
    machine = ("--machine", f"qemu:{guest.qmp}", "--agent", guest.qga, "--fleece", made.path)
    first = made.backup(*machine)
    second = made.backup(*machine, "--tag", "nightly", "--exclude-disk", "d1", "--item", first["item"])

    assert first["item"] == first["source"] == f"qemu:{guest.qmp}"
    assert (first["kind"], first["files"], first["parent"]) == ("machine", 2, "")
    assert (second["files"], second["parent"], second["tags"]) == (1, first["id"], ["nightly"])
    assert first["read_bytes"] > 40 << 20
    assert second["read_bytes"] < 4 << 20

    told = made("show", first["id"], "--json").json["machine"]
    assert told["consistency"]["level"] == "application"
    assert [(disk["name"], disk["role"]) for disk in told["disks"]] == [("disk0", "disk"), ("disk1", "disk")]
    shown = made("show", "latest").out
    assert "machine little at " in shown
    assert "application-consistent, it stood still for " in shown
    assert "disk0  96 MiB  disk  virtio-blk-pci" in shown
    assert "without disk1" in shown

    restored = made("restore", first["id"], "--target", made.path / "all", "--json").json
    assert sorted(path.name for path in (made.path / "all").iterdir()) == ["disk0.raw", "disk1.raw", "machine.json"]
    assert restored["disks"] == [str(made.path / "all/disk0.raw"), str(made.path / "all/disk1.raw")]
    assert json.loads((made.path / "all/machine.json").read_text()) == told
    made("restore", first["id"], "disk1", "--target", made.path / "one")
    assert (made.path / "one/disk1.raw").read_bytes() == (made.path / "all/disk1.raw").read_bytes()
    assert not (made.path / "one/disk0.raw").exists()


def test_nothing_is_overwritten(tmp_path: Path, cli: Cli) -> None:
    shelf = new_shelf(tmp_path)
    disks = {name: sparse(tmp_path / name, CHUNK, {0: noise(0.5)}) for name in ("sda", "sdb")}
    machine_point(shelf.store, disks)
    target = tmp_path / "out"
    target.mkdir()
    (target / "sdb.raw").write_text("mine")
    key = ("--key-file", tmp_path / "key")

    ended = cli("restore latest", "--target", target, *key, code=1)

    assert "sdb.raw" in ended.err
    assert "sda.raw is there and whole" in ended.err
    assert (target / "sdb.raw").read_text() == "mine"
    for options in (["--tar", "-"], ["--in-place"], ["--in-place", "--target", target]):
        cli("restore latest", *options, *key, code=2)


def test_disks_as_images_of_a_format(tmp_path: Path, cli: Cli) -> None:
    """Those that are disks; NVRAM is what the firmware takes, byte for byte."""
    shelf = new_shelf(tmp_path)
    disks = {name: sparse(tmp_path / name, CHUNK, {0: noise(0.5)}) for name in ("sda", "nvram")}
    machine_point(shelf.store, disks)

    cli("restore latest --format qcow2", "--target", tmp_path / "out", "--key-file", tmp_path / "key")

    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["machine.json", "nvram.raw", "sda.qcow2"]
    told = json.loads((tmp_path / "out/machine.json").read_text())
    assert [disk["file"] for disk in told["disks"]] == ["sda.qcow2", "nvram.raw"]
    assert (tmp_path / "out/nvram.raw").read_bytes() == disks["nvram"].read_bytes()
    with open_disk(Env(), tmp_path / "out/sda.qcow2") as disk:
        buffer = memoryview(bytearray(disk.size))
        disk.pread_into(buffer, 0)
        assert bytes(buffer) == disks["sda"].read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give a folder"),
        (["--machine", "vm1"], "give qemu: and the path"),
        (["--machine", "qemu:"], "give qemu: and the path"),
        (["--machine", "qemu:/run/x", "/etc"], "backed up by itself"),
        (["--machine", "qemu:/run/x", "--dry-run"], "backed up by itself"),
        (["--machine", "qemu:/run/x", "--exclude", "a"], "backed up by itself"),
        (["/etc", "--agent", "/run/x"], "give --machine"),
        (["/etc", "--full"], "give --machine"),
    ],
)
def test_wrong_usage(made: Cli, arguments: list[str], said: str) -> None:
    assert said in made("backup", *arguments, code=2).err


def test_no_machine_there(made: Cli) -> None:
    assert "is the machine running?" in made("backup", "--machine", "qemu:none.qmp", code=3).err
    assert made.points() == []
