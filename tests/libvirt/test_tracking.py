# SPDX-License-Identifier: Apache-2.0
"""What is not surely the record of what changed since the very last point, is none: then all is read, and said."""

from __future__ import annotations

import filecmp
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from keepstone.errors import Conflict, NotFound, SourceFailed, StorageFull
from keepstone.workloads.libvirt.checkpoints import checkpoint_of, token_of
from keepstone.workloads.libvirt.domains import DomainDisk
from keepstone.workloads.libvirt.guard import Guard
from keepstone.workloads.libvirt.sweep import abort
from keepstone.workloads.machines import Level, Role
from keepstone.workloads.machines.naming import prefix_of
from tests.libvirt.daemon import Daemon, Little
from tests.libvirt.yard import OWNER, Made, Yard, oracle, same
from tests.machines.guest import make_disk
from tests.unit.files.points import new_store

pytestmark = pytest.mark.vm

_MIB = 1 << 20
_WHOLE = 24 * _MIB  # and a little more has to be read


@pytest.fixture(scope="module")
def little(daemon: Daemon) -> Iterator[Little]:
    folder = daemon.folder / "tracked"
    folder.mkdir()
    disks = [("vda", make_disk(folder / "d0.qcow2", 48)), ("vdb", make_disk(folder / "d1.qcow2", 32))]
    little = Little(daemon, disks, "tracked")
    little.sh("dd if=/dev/urandom of=/a/old bs=1M count=24 2>/dev/null; sync")
    little.agent()
    yield little
    little.close()


def checked(yard: Yard, place: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """A backup that is compared with a full read of the same moment."""
    yard.little.sh("dd if=/dev/urandom of=/a/old bs=64k seek=40 count=2 conv=notrunc 2>/dev/null; sync")
    with oracle(monkeypatch, place / "copies") as copies:
        made = yard.backup()
    same(yard.restore(made, place / "out"), copies)
    assert yard.left() == made.checkpoints
    return made


def monitor(yard: Yard, command: str, **arguments: str) -> str:
    question = json.dumps(
        {"execute": command, "arguments": {key.replace("_", "-"): arguments[key] for key in arguments}}
    )
    return yard.little.daemon.virsh("qemu-monitor-command", yard.little.name, question)


def test_an_image_that_lost_its_bitmap(yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that was put back from a copy: the other disk still has its own."""
    (token,) = yard.backup().checkpoints
    nodes = json.loads(yard.little.daemon.virsh("qemu-monitor-command", yard.little.name, '{"execute":"query-block"}'))
    node = nodes["return"][0]["inserted"]["node-name"]
    assert "error" not in monitor(yard, "block-dirty-bitmap-remove", node=node, name=token)

    made = checked(yard, tmp_path, monkeypatch)

    assert made.warnings == [
        "vda is read in full: its image has lost the record of what changed on it, or was replaced"
    ]
    assert _WHOLE < made.report.read < _WHOLE + 8 * _MIB
    assert token not in monitor(yard, "query-block")  # nor does the other disk keep what nobody needs


def test_a_checkpoint_that_somebody_deleted(yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (token,) = yard.backup().checkpoints
    yard.little.daemon.virsh("checkpoint-delete", yard.little.name, token)

    made = checked(yard, tmp_path, monkeypatch)

    assert made.warnings == [
        f"{name} is read in full: libvirt has lost the checkpoint of the point before" for name in ("vda", "vdb")
    ]
    assert made.report.read > _WHOLE


def test_what_is_not_ours_stays(yard: Yard) -> None:
    """Checkpoints of others, and those of another store that has the same machine; and a job of somebody else."""
    daemon, name = yard.little.daemon, yard.little.name
    yard.backup()
    daemon.virsh("checkpoint-create-as", name, "theirs")
    elsewhere = Yard(yard.little, yard.folder, store=new_store(yard.env))
    theirs = elsewhere.backup(owner="another store/vm")
    again = yard.backup()

    assert again.warnings == theirs.warnings == []
    assert again.report.read < 2 * _MIB
    assert yard.left() == again.checkpoints
    assert elsewhere.left("another store/vm") == theirs.checkpoints
    assert "theirs" in yard.little.checkpoints()
    job = daemon.folder / "theirs.xml"
    job.write_text(
        f"<domainbackup mode='pull'><server transport='unix' socket='{daemon.folder}/theirs'/></domainbackup>"
    )
    daemon.virsh("backup-begin", name, str(job))
    with pytest.raises(Conflict, match="somebody else backs tracked up by libvirt already"):
        yard.backup()
    assert yard.little.job()
    daemon.virsh("domjobabort", name)
    daemon.virsh("checkpoint-delete", name, "theirs")


def test_in_full_when_it_is_asked_for(yard: Yard) -> None:
    yard.backup()
    made = yard.backup(full=True)

    assert made.report.read > _WHOLE
    assert made.warnings == []
    assert made.point.record.added < _MIB  # and yet it is in the store already


def test_disks_that_are_left_out(yard: Yard, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no disk 'vdz' to exclude; it has vda, vdb"):
        yard.backup(exclude=["vdz"])
    made = yard.backup(exclude=["vda"])

    assert made.machine.about.excluded == ["vda"]
    assert list(yard.restore(made, tmp_path / "out")) == ["vdb"]
    again = yard.backup()
    assert list(again.tokens) == ["vda", "vdb"]
    assert again.report.read > _WHOLE  # what the point before does not have


def test_a_moment_that_somebody_ends(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    before = yard.backup()
    plain = Guard.check

    def check(self: Guard) -> None:
        abort(yard.env, yard.virsh, self._uuid, self._checkpoint)
        plain(self)

    with monkeypatch.context() as patched:
        patched.setattr(Guard, "check", check)
        with pytest.raises(SourceFailed):
            yard.backup(full=True)

    assert yard.left() == before.checkpoints
    assert yard.backup().report.read < 2 * _MIB


def test_no_room(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    before = yard.backup()
    with pytest.raises(StorageFull, match="MiB free for what the guest overwrites"):
        yard.backup(reserve=1 << 60)
    free = [1 << 40, 0]  # and then there is none any more
    monkeypatch.setattr("keepstone.workloads.machines.guard.Room._free", lambda room: free.pop(0) if free[1:] else 0)
    plain = Guard.check

    def check(self: Guard) -> None:
        self._end.wait(1)
        plain(self)

    monkeypatch.setattr(Guard, "check", check)
    with pytest.raises(StorageFull, match="there is no more room in "):
        yard.backup(full=True)

    assert yard.left() == before.checkpoints
    assert yard.little.daemon.virsh("domstate", yard.little.name).strip() == "running"


def test_two_at_once(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one does not take what the first has for what a dead one left."""
    plain = Guard.check
    told: list[str] = []

    def check(self: Guard) -> None:
        if not told:
            told.append("")
            with pytest.raises(Conflict, match="is being backed up to this item already"):
                yard.backup()
        plain(self)

    monkeypatch.setattr(Guard, "check", check)
    assert yard.backup(full=True).warnings == []
    assert told


def test_a_daemon_that_is_gone(yard: Yard, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its machines go on, and so does QEMU's job until somebody ends it: the next backup does."""
    before = yard.backup()
    plain = Guard.check
    told: list[str] = []

    def check(self: Guard) -> None:
        if not told:
            told.append("")
            daemon.stop()
        plain(self)

    with monkeypatch.context() as patched:
        patched.setattr(Guard, "check", check)
        with pytest.raises((SourceFailed, NotFound), match="libvirt"):
            yard.backup(full=True)
    yard.quiet()
    daemon.start()

    after = yard.backup()
    assert after.warnings == []
    assert after.report.read < 2 * _MIB
    assert yard.left() == after.checkpoints
    assert before.tokens != after.tokens


@pytest.mark.slow
def test_a_machine_that_ends_while_it_is_read(yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the backup had in its images goes as soon as it runs again."""
    before = yard.backup()
    plain = Guard.check

    def check(self: Guard) -> None:
        yard.little.destroy()
        plain(self)

    with monkeypatch.context() as patched:
        patched.setattr(Guard, "check", check)
        with pytest.raises(SourceFailed):
            yard.backup(full=True)
    yard.quiet()
    assert set(before.checkpoints) < set(yard.left())

    yard.little.start()
    yard.little.agent()
    made = checked(yard, tmp_path, monkeypatch)
    assert made.warnings == []
    assert made.report.read < 8 * _MIB
    kept = monitor(yard, "query-named-block-nodes")
    assert set(re.findall(rf'"name":"({prefix_of(OWNER)}[^"]*)"', kept)) == set(made.checkpoints)


def test_a_machine_that_is_off(yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its images are read; the record of what changed goes on, and is good for the next backup while it runs."""
    running = yard.backup()
    yard.little.sh("dd if=/dev/urandom of=/a/new bs=64k count=8 2>/dev/null; sync")
    yard.little.off()
    made = yard.backup()

    assert made.warnings == []
    assert (made.machine.about.consistency.level, made.machine.about.consistency.reason) == (
        Level.FILE_SYSTEM,
        "the guest has shut down",
    )
    assert made.tokens == running.tokens
    restored = yard.restore(made, tmp_path / "off")
    for name, image in yard.little.disks:
        raw = tmp_path / f"{name}.raw"
        subprocess.run(["qemu-img", "convert", "-O", "raw", image, raw], check=True)
        assert filecmp.cmp(raw, restored[name], shallow=False)
    yard.little.start()
    yard.little.agent()
    after = checked(yard, tmp_path, monkeypatch)
    assert after.warnings == []
    assert after.report.read < 8 * _MIB


def test_what_belongs_to_the_machine(yard: Yard) -> None:
    about = yard.backup().machine.about

    assert [(disk.name, disk.role, disk.bus) for disk in about.disks] == [
        ("vda", Role.DISK, "virtio"),
        ("vdb", Role.DISK, "virtio"),
    ]
    told = json.loads(about.definition["libvirt.json"])
    assert told["kernel"].rpartition("/")[2].startswith("vmlinuz")
    assert b"<name>tracked</name>" in about.definition["domain.xml"]
    assert about.name == "tracked"


def test_what_names_the_image_of_a_disk(yard: Yard, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("")
    other.write_text("")
    disk = DomainDisk("vda", str(one), "file", "qcow2", 0, "virtio", read_only=False)
    before = token_of(yard.env, "checkpoint", disk)

    assert before == token_of(yard.env, "checkpoint", disk) != token_of(yard.env, "other", disk)
    assert before != token_of(yard.env, "checkpoint", replace(disk, source=str(other)))
    one.rename(tmp_path / "place")
    other.rename(one)
    assert before != token_of(yard.env, "checkpoint", disk)
    assert checkpoint_of(before) == "checkpoint"


@pytest.mark.slow
def test_disks_that_changed_places(yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a bitmap of the right name, of the other disk."""
    yard.backup()
    yard.little.off()
    (_, one), (_, other) = yard.little.disks
    one.rename(tmp_path / "one")
    other.rename(one)
    (tmp_path / "one").rename(other)
    yard.little.start()
    yard.little.agent()

    made = checked(yard, tmp_path, monkeypatch)

    assert made.warnings == [
        f"{name} is read in full: it has another image than at the point before" for name in ("vda", "vdb")
    ]
