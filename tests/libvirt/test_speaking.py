# SPDX-License-Identifier: Apache-2.0
"""What is said of a libvirt that is not there, does not answer, or refuses; and what it has."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from keepstone.errors import NotFound, SourceMissing, Unsupported, UsageError
from keepstone.workloads.libvirt import Virsh, domains, find
from keepstone.workloads.libvirt.virsh import Gone, Refused
from tests.libvirt.daemon import Daemon, Little

pytestmark = pytest.mark.vm

_FIRMWARE = Path("/usr/share/OVMF")
_MIB = 1 << 20


@pytest.mark.parametrize(
    "uri",
    [
        "qemu+ssh://host/system",
        "qemu+tcp://127.0.0.1/system",
        "qemu://host/system",
        "qemu:///embed?root=/tmp",
        "xen:///system",
        "qemu:///system?command=/bin/sh",
        "qemu:///system?socket=/a&netcat=/b",
        "qemu:///system?socket=relative",
        "test:///default",
        "--help",
        "",
    ],
)
def test_only_those_of_this_machine(uri: str) -> None:
    with pytest.raises(UsageError, match="is no libvirt of this machine"):
        Virsh(uri)


def test_no_daemon(tmp_path: Path) -> None:
    if shutil.which("virsh") is None:
        pytest.skip("needs virsh; scripts/tools.sh installs it")
    with pytest.raises(SourceMissing, match=r"there is no libvirt at .*; start it, or name another by --connect"):
        domains(Virsh(f"qemu:///session?socket={tmp_path}/none"))


def test_no_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unsupported, match="install it"):
        Virsh().uuids()


def test_a_program_that_hangs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "virsh"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(Gone, match="does not answer list within"):
        Virsh(timeout=0.3).uuids()


def test_what_it_has(little: Little, daemon: Daemon) -> None:
    virsh = Virsh(daemon.uri)
    found = {domain.name: domain for domain in domains(virsh)}["little"]

    assert found == find(virsh, "little") == find(virsh, found.uuid)
    assert (found.state, found.persistent, found.agent, found.os_type) == ("running", True, True, "hvm")
    assert (found.firmware, found.nvram, found.tpm) == ("bios", "", False)
    assert [(disk.target, disk.source, disk.format, disk.size, disk.bus) for disk in found.disks] == [
        ("vda", str(little.disks[0][1]), "qcow2", 96 * _MIB, "virtio"),
        ("vdb", str(little.disks[1][1]), "raw", 48 * _MIB, "virtio"),
    ]
    with pytest.raises(NotFound, match="has no machine '--all'; it has "):
        find(virsh, "--all")
    with pytest.raises(SourceMissing, match="no such machine any more"):
        virsh.ask("domstate", "11111111-2222-3333-4444-555555555555")
    with pytest.raises(Refused, match="libvirt refuses start: "):
        virsh.ask("start", found.uuid)
