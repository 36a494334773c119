# SPDX-License-Identifier: Apache-2.0
"""What firmware and TPM keep belongs to the machine, and comes back to the byte."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from keepstone.workloads import Silent
from keepstone.workloads.libvirt import replace_domain
from keepstone.workloads.machines import Level, Role, machine_of
from tests.libvirt.daemon import Daemon, Defined
from tests.libvirt.yard import Yard
from tests.machines.guest import make_disk

pytestmark = pytest.mark.vm

_FIRMWARE = Path("/usr/share/OVMF")


def test_an_image_of_the_old_version(daemon: Daemon, tmp_path: Path) -> None:
    """It cannot keep a record of changes; that is no reason to fail."""
    disk = tmp_path / "old.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", "compat=0.10", disk, "16M"], check=True)
    daemon.define(f"""<domain type='qemu'><name>old</name><memory unit='MiB'>64</memory>
<os><type arch='x86_64' machine='q35'>hvm</type></os><devices><emulator>{shutil.which("qemu-system-x86_64")}</emulator>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{disk}'/>
<target dev='vda' bus='virtio'/></disk><memballoon model='none'/></devices></domain>""")
    daemon.virsh("start", "old", "--paused")
    yard = Yard(Defined(daemon, "old"), tmp_path)
    try:
        first = yard.backup()
        second = yard.backup()
    finally:
        daemon.virsh("destroy", "old")
        daemon.virsh("undefine", "old", "--checkpoints-metadata")

    assert first.warnings == []
    assert second.tokens == {}
    (warning,) = second.warnings
    assert "`qemu-img amend -o compat=1.1` lets it keep a record" in warning


def test_nvram_and_tpm(daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not _FIRMWARE.is_dir() or shutil.which("swtpm") is None:
        pytest.skip("needs ovmf and swtpm; scripts/tools.sh installs them")
    monkeypatch.setenv("XDG_CONFIG_HOME", daemon.environment["XDG_CONFIG_HOME"])
    disk, variables = make_disk(tmp_path / "d0.qcow2", 16), tmp_path / "vars.fd"
    daemon.define(f"""<domain type='qemu'><name>secure</name><memory unit='MiB'>64</memory>
<os><type arch='x86_64' machine='q35'>hvm</type>
<loader readonly='yes' type='pflash'>{_FIRMWARE}/OVMF_CODE_4M.fd</loader>
<nvram template='{_FIRMWARE}/OVMF_VARS_4M.fd'>{variables}</nvram></os><features><acpi/></features>
<devices><emulator>{shutil.which("qemu-system-x86_64")}</emulator>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{disk}'/>
<target dev='vda' bus='virtio'/></disk>
<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>
<memballoon model='none'/></devices></domain>""")
    daemon.virsh("start", "secure", "--paused")
    yard = Yard(Defined(daemon, "secure"), tmp_path)
    try:
        made = yard.backup()
        again = yard.backup()
        (state,) = (daemon.folder / "CONFIG_HOME/libvirt/qemu/swtpm").glob("*/tpm2/tpm2-00.permall")
        kept = state.read_bytes(), variables.read_bytes()
        daemon.virsh("destroy", "secure")
        state.write_bytes(b"another owner")
        variables.write_bytes(bytes(4096) + kept[1][4096:])
        owner = variables.stat().st_ino
        with yard.store.reader(again.point) as reader:
            done = replace_domain(yard.env, yard.virsh, "secure", machine_of(reader), progress := Silent())
        assert [put.disk.name for put in done.disks if put.changed] == ["nvram", "tpm2-00.permall"]
        assert (state.read_bytes(), variables.read_bytes(), variables.stat().st_ino) == (*kept, owner)
        variables.write_bytes(b"of another firmware")
        with yard.store.reader(again.point) as reader:
            replace_domain(yard.env, yard.virsh, "secure", machine_of(reader), progress, names=["nvram"])
        assert progress.warnings == [(b"nvram", "is not put back: its file has 19 bytes now")]
        assert variables.read_bytes() == b"of another firmware"
    finally:
        daemon._run("destroy", "secure")
        daemon.virsh("undefine", "secure", "--nvram", "--checkpoints-metadata")

    about = again.machine.about
    assert made.warnings == again.warnings == []
    assert [(disk.name, disk.role) for disk in about.disks] == [
        ("vda", Role.DISK),
        ("nvram", Role.NVRAM),
        ("tpm2-00.permall", Role.TPM),
    ]
    restored = yard.restore(again, tmp_path / "out")
    assert (restored["tpm2-00.permall"].read_bytes(), restored["nvram"].read_bytes()) == kept
    assert (about.consistency.level, about.consistency.reason) == (
        Level.CRASH,
        "the machine does not run, it is in the state paused",
    )
    told = json.loads(about.definition["libvirt.json"])
    assert (told["firmware"], told["nvram"]) == ("efi", str(variables))
    assert subprocess.run(["e2fsck", "-fn", restored["vda"]], check=False, capture_output=True).returncode == 0
