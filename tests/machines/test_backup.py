# SPDX-License-Identifier: Apache-2.0
"""A machine is backed up while it runs, whole and by what changed, and every disk comes back to the byte."""

from __future__ import annotations

import contextlib
import filecmp
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from keepstone.errors import Conflict, NotFound, SourceFailed
from keepstone.workloads.kvm import Qemu
from keepstone.workloads.kvm.guard import Guard
from keepstone.workloads.kvm.qmp import Gone, Refused
from keepstone.workloads.machines import Level, Role
from tests.machines.guest import Guest, make_disk, monitor, until
from tests.machines.yard import Made, Yard, oracle

pytestmark = pytest.mark.vm

_FIRMWARE = Path("/usr/share/OVMF")
_MIB = 1 << 20


def same(restored: dict[str, Path], copies: dict[str, Path]) -> None:
    pairs = zip(sorted(restored.values()), sorted(copies.values()), strict=True)
    assert all(filecmp.cmp(one, other, shallow=False) for one, other in pairs)


def test_what_changed_makes_the_whole_of_the_same_moment(
    yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = yard.guest
    writing = "while [ ! -f /run/stop ]; do dd if=/dev/urandom of=/a/busy bs=64k count=32 2>/dev/null; sync; done"
    guest.sh(f"rm -f /run/stop; {writing}", wait=False)
    with oracle(monkeypatch, guest, tmp_path / "copies1") as copies:
        full = yard.backup(full=True)
    same(yard.restore(full, tmp_path / "one"), copies)

    guest.sh("dd if=/dev/urandom of=/a/old bs=64k seek=100 count=16 conv=notrunc 2>/dev/null; sync")
    with oracle(monkeypatch, guest, tmp_path / "copies2") as copies:
        changed = yard.backup()
    guest.sh("touch /run/stop")
    restored = yard.restore(changed, tmp_path / "two")

    same(restored, copies)
    assert full.report.read > 40 * _MIB
    assert changed.report.read < 16 * _MIB
    assert changed.warnings == []
    about = changed.machine.about
    assert about.consistency.level is Level.APPLICATION
    # the bar; where others take the processors for a moment, one of the two misses it
    stood = [made.machine.about.consistency.frozen for made in (full, changed)]
    assert 0 < min(stood) < 10**9
    for disk in restored.values():
        # Frozen and thawed in between, so there is nothing in the journal either.
        assert subprocess.run(["e2fsck", "-fn", disk], check=False, capture_output=True).returncode == 0
    assert yard.left() == yard.tokens(changed)
    assert yard.store.verify(deep=True).ok


def test_a_machine_that_does_nothing_costs_nothing(yard: Yard) -> None:
    yard.backup()
    quiet = yard.backup()

    assert quiet.report.read <= 2 * _MIB  # what the freeze writes
    assert quiet.point.record.added <= 2 * _MIB


def test_all_disks_are_of_one_moment(yard: Yard, tmp_path: Path) -> None:
    """The guest writes a number to the one disk, then to the other, and so on."""
    guest = yard.guest
    guest.sh("rm -f /run/stop; for d in a b; do dd if=/dev/zero of=/$d/n bs=4k count=1 2>/dev/null; done; sync")
    step = "printf 'number:%08d' $i | dd of=/$d/n conv=notrunc,fsync 2>/dev/null"
    guest.sh(f"i=0; while [ ! -f /run/stop ]; do i=$((i+1)); for d in a b; do {step}; done; done", wait=False)
    seen = set()
    for number in range(4):
        made = yard.backup(qemu=Qemu(guest.qmp))  # without the agent, so that nothing but the transaction holds them
        disks = yard.restore(made, tmp_path / str(number))
        first, second = (int(disks[name].read_bytes().partition(b"number:")[2][:8]) for name in sorted(disks))
        assert second in (first, first - 1)
        seen.add(first)
    guest.sh("touch /run/stop")
    assert len(seen) == 4
    assert made.machine.about.consistency.level is Level.CRASH
    assert made.machine.about.consistency.reason == "no guest agent was named"


def test_disks_that_are_left_out(yard: Yard, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no disk 'd7' to exclude; it has disk0, disk1"):
        yard.backup(exclude=["d7"])
    yard.backup()
    made = yard.backup(exclude=["d1"])

    assert made.machine.about.excluded == ["disk1"]
    assert list(yard.restore(made, tmp_path / "out")) == ["disk0"]
    assert yard.left() == yard.tokens(made)
    assert len(yard.tokens(made)) == 1
    again = yard.backup()
    assert [disk.name for disk in again.machine.about.disks] == ["disk0", "disk1"]


def test_it_says_of_what_the_machine_is_made(yard: Yard) -> None:
    about = yard.backup().machine.about

    told = json.loads(about.definition["qemu.json"])
    assert about.name == told["name"]["name"] == "little"
    assert [(disk.name, disk.size, disk.bus) for disk in about.disks] == [
        ("disk0", 96 * _MIB, "virtio-blk-pci"),
        ("disk1", 48 * _MIB, "virtio-blk-pci"),
    ]
    assert told["command"][0] == "qemu-system-x86_64"
    assert {"cpus-fast", "memory-size-summary", "block", "pci", "current-machine"} <= told.keys()


def test_nvram_belongs_to_the_machine(tmp_path: Path) -> None:
    """One with UEFI firmware that was never started: there is no agent that could freeze anything."""
    if not _FIRMWARE.is_dir():
        pytest.skip("needs the firmware of the package ovmf")
    variables = Path(shutil.copy(_FIRMWARE / "OVMF_VARS_4M.fd", tmp_path / "vars"))
    flash = ["-drive", f"if=pflash,format=raw,readonly=on,file={_FIRMWARE}/OVMF_CODE_4M.fd"]
    flash += ["-drive", f"if=pflash,format=raw,file={variables}"]
    legacy = [
        "-drive",
        f"file={make_disk(tmp_path / 'd1.qcow2', 16)},if=virtio",
        "-cdrom",
        str(_FIRMWARE / "OVMF_VARS.fd"),
    ]
    disks = [("d0", make_disk(tmp_path / "d0.qcow2", 16))]
    with Guest(tmp_path, disks, boots=False, extra=[*flash, *legacy]) as guest:
        yard = Yard(guest, tmp_path)
        yard.backup()
        made: Made = yard.backup()

    about = made.machine.about
    assert [(disk.name, disk.role) for disk in about.disks] == [
        ("pflash1", Role.NVRAM),
        ("virtio0", Role.DISK),
        ("disk0", Role.DISK),
    ]
    assert made.report.read == 0
    assert made.warnings == []
    assert about.consistency.level is Level.CRASH
    assert about.consistency.reason == "the machine does not run, it is in the state prelaunch"
    restored = yard.restore(made, tmp_path / "out")
    assert filecmp.cmp(restored["pflash1"], variables, shallow=False)


def test_a_moment_that_somebody_ends(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read afterwards is of another moment, though nothing fails."""
    before = yard.backup()
    plain = Guard.check

    def check(self: Guard) -> None:
        with contextlib.suppress(Refused):  # it is over already
            self._monitor.execute("job-cancel", id=self._jobs[-1])
        plain(self)

    with monkeypatch.context() as patched:
        patched.setattr(Guard, "check", check)
        with pytest.raises(SourceFailed, match="the moment of disk1 was lost while it was read"):
            yard.backup(full=True)

    assert yard.left() == yard.tokens(before)
    assert yard.backup().report.read < 2 * _MIB


def test_a_qemu_that_serves_somebody_else(yard: Yard) -> None:
    before = yard.backup()
    theirs = {"type": "unix", "data": {"path": str(yard.folder / "theirs")}}
    with monitor(yard.guest.qmp) as ask:
        ask("nbd-server-start", addr=theirs)
        ask("block-export-add", type="nbd", id="theirs", node_name="d1", name="theirs", writable=False)

    with pytest.raises(Conflict, match="serves disks to somebody else already"):
        yard.backup()

    assert yard.left() == yard.tokens(before)
    with monitor(yard.guest.qmp) as ask:
        assert [export["id"] for export in ask("query-block-exports")] == ["theirs"]
        ask("nbd-server-stop")
    assert yard.backup().warnings == []


def test_what_it_cannot_take_away_itself(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection to QEMU broke; a process of its own has another one."""
    yard.backup()
    plain = Guard.check

    def check(self: Guard) -> None:
        self._monitor.close()
        plain(self)

    with monkeypatch.context() as patched:
        patched.setattr(Guard, "check", check)
        with pytest.raises(Gone):
            yard.backup(full=True)

    until(lambda: not yard.left(bitmaps=False), "the end of what it had in QEMU", 10)
    assert yard.backup().warnings == []
