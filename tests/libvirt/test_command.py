# SPDX-License-Identifier: Apache-2.0
"""`keepstone store backup` and `restore` with `--machine libvirt:DOMAIN`, and `keepstone store machines`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import cli, made
from tests.cli.running import Cli
from tests.libvirt.daemon import Daemon, Little
from tests.libvirt.still import Still

__all__ = ["cli", "made"]

pytestmark = pytest.mark.vm


def test_from_a_domain_to_files(made: Cli, little: Little) -> None:
    connect = ("--connect", little.daemon.uri)
    listed = made.run("store", "machines", *connect, "--json").json["machines"]
    (one,) = [machine for machine in listed if machine["name"] == "little"]
    assert one["machine"] == "libvirt:little"
    assert [disk["target"] for disk in one["disks"]] == ["vda", "vdb"]
    assert "libvirt:little  running  bios  guest agent  " in made.run("store", "machines", *connect).out

    fleece = little.daemon.folder / "command"
    fleece.mkdir()
    machine = ("--machine", one["machine"], *connect, "--fleece", fleece)
    first = made.backup(*machine)
    second = made.backup(*machine, "--exclude-disk", "vdb")

    assert first["item"] == first["source"] == "libvirt:little"
    assert (first["kind"], first["files"], first["parent"]) == ("machine", 2, "")
    assert (second["files"], second["parent"]) == (1, first["id"])
    assert first["read_bytes"] > 40 << 20
    assert second["read_bytes"] < 4 << 20
    assert list(fleece.iterdir()) == []
    told = made("show", first["id"], "--json").json["machine"]
    assert told["consistency"]["level"] == "application"
    assert told["definition"]["domain.xml"].startswith("<domain type='qemu'")
    made("restore", first["id"], "--target", made.path / "all")
    assert sorted(path.name for path in (made.path / "all").iterdir()) == ["machine.json", "vda.raw", "vdb.raw"]


def test_back_into_the_domain(made: Cli, daemon: Daemon, tmp_path: Path) -> None:
    still = Still(daemon, tmp_path, "command")
    try:
        machine = ("--machine", "libvirt:command", "--connect", daemon.uri, "--fleece", str(daemon.folder))
        still.write("vda", "write -P 1 0 1M")
        first = made.backup(*machine)
        still.write("vda", "write -P 2 0 3M")
        back = ("restore", first["id"], *machine, "--in-place", "--yes")

        replaced = made(*back, "vda", "--json", code=4).json  # of the safety point: one disk is raw

        assert (replaced["machine"], replaced["running"], replaced["left"]) == ("libvirt:command", True, ["vdb"])
        assert replaced["disks"] == [{"name": "vda", "written_bytes": 3 << 20}]
        assert still.content(tmp_path / "first")["vda"] == bytes([1]) * (1 << 20) + bytes(23 << 20)
        safety = made.points()[-1]
        assert (safety["id"], safety["tags"], safety["item"]) == (replaced["safety_point"], ["safety"], first["item"])
        still.daemon.virsh("destroy", "command")
        said = made("restore", safety["id"], *back[2:], "--no-safety-point").out
        assert "the machine does not run, as before" in said
        assert still.content(tmp_path / "then")["vda"] == bytes([2]) * (3 << 20) + bytes(21 << 20)
    finally:
        still.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--machine", "libvirt:"], "libvirt: and the name of a domain"),
        (["--machine", "libvirt:a", "--agent", "/run/x"], "leave --agent out"),
        (["--machine", "qemu:/run/x", "--connect", "qemu:///system"], "--connect is for machines of libvirt"),
        (["--machine", "libvirt:a", "--connect", "qemu+ssh://b/system"], "is no libvirt of this machine"),
        (["/etc", "--connect", "qemu:///system"], "give --machine"),
    ],
)
def test_wrong_usage(made: Cli, arguments: list[str], said: str) -> None:
    assert said in made("backup", *arguments, code=2).err
