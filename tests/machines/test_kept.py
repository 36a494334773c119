# SPDX-License-Identifier: Apache-2.0
"""Snapshots that stay in QEMU after the backup: what they hold, what they cost the guest, and how they go."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from keepstone.agent.configuration import Configuration
from keepstone.agent.job import Order, Report
from keepstone.agent.snapshots import look as agent_look
from keepstone.agent.system import folders
from keepstone.errors import SourceFailed, UsageError
from keepstone.remote.wire import Work
from keepstone.workloads import Silent
from keepstone.workloads.images import PointDisk
from keepstone.workloads.kvm import Keep, Qemu, kept_by
from keepstone.workloads.kvm.guard import Guard
from keepstone.workloads.kvm.keeping import MOST
from keepstone.workloads.kvm.kept import forget, named
from keepstone.workloads.kvm.late import Late
from keepstone.workloads.kvm.qmp import Monitor
from keepstone.workloads.kvm.sweep import sweep
from keepstone.workloads.machines import machine_of
from keepstone.workloads.machines.naming import prefix_of
from keepstone.workloads.machines.near import NearReader
from tests.machines.guest import Guest, make_disk, monitor, until
from tests.machines.keeping import DAY, Later, content, near_of, restore_near, who_reads_is_killed
from tests.machines.test_dying import dying
from tests.machines.test_replace import replace, write
from tests.machines.yard import OWNER, Made, Yard, oracle

pytestmark = pytest.mark.vm

_ROOT = Path(__file__).parents[2]
_MIB = 1 << 20
_BUSY = "while [ ! -f /run/quiet ]; do dd if=/dev/urandom of=/a/busy bs=64k count=32 2>/dev/null; sync; done"


def keep(yard: Yard, days: int) -> list[int]:
    """Make a point whose snapshot stays; when those began that are there then."""
    wanted = Keep(days)
    yard.backup(keep=wanted)
    assert wanted.there is not None
    return wanted.there


def in_vault(yard: Yard, made: Made, place: Path) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in yard.restore(made, place).items()}


def kinds(yard: Yard) -> str:
    """What there is of snapshots in QEMU, see `kept.py`; nothing where there is no trace of them."""
    with monitor(yard.guest.qmp) as ask:
        names = [named(node["node-name"]) for node in ask("query-named-block-nodes", flat=True)]
        attached = [block["inserted"]["node-name"] for block in ask("query-block") if block.get("inserted")]
    found = "".join(sorted(name.kind for name in names if name is not None))
    assert bool(found) == any(named(node) for node in attached)
    return found


@pytest.fixture
def clean(yard: Yard) -> Iterator[Yard]:
    """The yard, which has no snapshots, and none afterwards."""
    yield yard
    with Monitor(yard.env, yard.guest.qmp) as asked:
        forget(asked, "", lambda _: True)


def test_each_holds_its_own_moment(clean: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guest writes all the time, also between the filter and the moment, and nothing freezes it."""
    yard, guest = clean, clean.guest
    plain, reading = Late.enter, Late.read
    late: list[Any] = []

    def enter(self: Late) -> None:
        plain(self)
        time.sleep(0.5)

    def read(self: Late, *arguments: Any) -> None:
        reading(self, *arguments)
        late.extend(self._late.values())

    monkeypatch.setattr(Late, "enter", enter)
    monkeypatch.setattr(Late, "read", read)
    guest.sh(f"rm -f /run/quiet /run/ended; {_BUSY}; touch /run/ended", wait=False)
    held: list[tuple[Made, dict[str, bytes]]] = []
    for number in range(3):
        keep = Keep(2)
        with oracle(monkeypatch, guest, tmp_path / f"copies{number}") as copies:
            made = yard.backup(keep=keep, qemu=Qemu(guest.qmp))
        assert made.warnings == []
        assert len(keep.there or ()) == number + 1
        held.append((made, {f"disk{node[1:]}": copy.read_bytes() for node, copy in copies.items()}))
    assert any(late)

    for made, disks in held:
        assert content(yard, made) == disks
    guest.sh("touch /run/quiet")
    until(lambda: "ended" in guest.sh("ls /run").split(), "the end of what the guest writes")
    assert yard.left() == yard.tokens(held[-1][0])

    yard.backup(keep=Keep(0))
    assert kinds(yard) == ""
    assert content(yard, held[0][0]) == {}


def test_restored_from_there_and_from_the_vault(clean: Yard, tmp_path: Path) -> None:
    yard = clean
    yard.backup(keep=Keep(1), full=True)
    made = yard.backup(keep=Keep(1))
    yard.guest.sh("dd if=/dev/urandom of=/a/old bs=1M count=8 conv=notrunc,fsync 2>/dev/null")
    right = in_vault(yard, made, tmp_path / "vault")

    def restored(name: str, spoil: Callable[[dict[str, Any]], None]) -> int:
        with near_of(yard, made) as disks:
            spoil(disks)
            paths, taken = restore_near(yard, made, tmp_path / name, disks)
        assert {name: path.read_bytes() for name, path in paths.items()} == right
        return taken

    whole = restored("near", lambda disks: None)
    assert whole > 40 * _MIB
    assert restored("other", lambda disks: disks.update(disk0=disks["disk1"])) < whole // 4  # not what it should be

    def broken(disks: dict[str, Any]) -> None:
        with monitor(yard.guest.qmp) as ask:
            for export in ask("query-block-exports"):
                ask("block-export-del", id=export["id"], mode="hard")

    with (
        near_of(yard, made) as near,
        yard.store.reader(made.point) as plain,
        NearReader(yard.env, plain, near) as reader,
    ):
        for disk, one in machine_of(reader).disks:
            with PointDisk(yard.env, one) as image:  # as whoever boots from a point, or serves it, reads it
                data = bytearray(image.size)
                image.pread_into(memoryview(data), 0)
            assert data == right[disk.name]
        assert reader.taken == whole

    assert restored("gone", broken) == 0
    yard.backup(keep=Keep(0))
    assert restored("none", lambda disks: None) == 0


def test_who_reads_is_killed(clean: Yard) -> None:
    """Nothing of that stays, in QEMU or outside, and the next one reads from the snapshot."""
    made = clean.backup(keep=Keep(1))
    there = kinds(clean)
    document = {"machine": f"qemu:{clean.guest.qmp}"}
    who_reads_is_killed(document, made, OWNER, lambda: kinds(clean) == there)
    assert set(content(clean, made)) == {"disk0", "disk1"}


def test_a_backup_does_not_wait_for_who_reads(clean: Yard, tmp_path: Path) -> None:
    """He goes on from the vault, and can read from the snapshot again afterwards."""
    yard = clean
    made = yard.backup(keep=Keep(1))
    right = in_vault(yard, made, tmp_path / "vault")
    with near_of(yard, made) as disks:
        assert set(disks) == {"disk0", "disk1"}
        with near_of(yard, made) as second:
            assert second == {}  # one at a time
        after = yard.backup(keep=Keep(1))
        assert after.warnings == []
        paths, taken = restore_near(yard, made, tmp_path / "out", disks)

    assert taken == 0
    assert {name: path.read_bytes() for name, path in paths.items()} == right
    assert content(yard, made) == right
    assert set(kinds(yard)) == set("kbtuvw")


def test_no_room_is_the_end_of_the_snapshot_alone(clean: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    yard, guest = clean, clean.guest
    monkeypatch.setattr("keepstone.workloads.kvm.keeping._SMALLEST", 2 << 20)
    monkeypatch.setattr("keepstone.workloads.machines.guard.Room.spare", lambda self: 12 << 20)
    made = yard.backup(keep=Keep(1))
    assert made.warnings == []
    assert content(yard, made)

    guest.sh("dd if=/dev/urandom of=/a/old bs=1M count=30 conv=notrunc,fsync 2>/dev/null")

    assert "error" not in guest.sh("dmesg | tail -n 5")
    with pytest.raises(SourceFailed):
        content(yard, made)
    monkeypatch.undo()
    after = yard.backup(keep=Keep(1))
    assert after.warnings == []
    assert 30 * _MIB <= after.report.read < 36 * _MIB

    monkeypatch.setattr("keepstone.workloads.machines.guard.Room.spare", lambda self: 12 << 20)
    said = yard.backup(keep=Keep(1)).warnings
    assert [text.partition(":")[0] for text in said] == [
        "no snapshot of disk0 is kept",
        "no snapshot of disk1 is kept",
    ]


def test_a_backup_that_fails_leaves_those_before(clean: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yard, guest = clean, clean.guest
    made = yard.backup(keep=Keep(1))
    right = in_vault(yard, made, tmp_path / "vault")
    before = kinds(yard)

    def check(self: Guard) -> None:
        raise SourceFailed("as if")

    with monkeypatch.context() as patched:
        patched.setattr(Guard, "check", check)
        with pytest.raises(SourceFailed, match="as if"):
            yard.backup(keep=Keep(1), full=True)
    guest.sh("dd if=/dev/urandom of=/a/old bs=1M count=8 conv=notrunc,fsync 2>/dev/null")

    assert content(yard, made) == right
    assert before == "bbkkttuuvvww"
    assert kinds(yard) == "bbkkttuuvvvvww"
    assert yard.left() == yard.tokens(made)

    with monkeypatch.context() as patched:
        patched.setattr(Guard, "check", check)
        yard.backup(keep=Keep(0)) if False else None
    yard.backup(keep=Keep(0))
    with monkeypatch.context() as patched:
        patched.setattr(Guard, "check", check)
        with pytest.raises(SourceFailed, match="as if"):
            yard.backup(keep=Keep(1), full=True)
    assert kinds(yard) == ""


def test_their_time_and_their_number_are_bounded(clean: Yard) -> None:
    yard = clean
    env, yard.env = yard.env, Later(threads=2)
    try:
        first = keep(yard, 2)
        Later.ahead = DAY
        second = keep(yard, 2)
        assert second[:1] == first
        Later.ahead = 2 * DAY + 60 * 10**9
        yard.backup()  # as before a replacement
        assert kinds(yard).count("w") == 2
        third = keep(yard, 2)
        assert third[:-1] == second[1:]
        Later.ahead = 3 * DAY
        assert keep(yard, 1)[:-1] == third[1:]
        for _ in range(MOST):
            last = keep(yard, 1)
        assert len(last) == MOST
        assert kinds(yard).count("v") == kinds(yard).count("w") == 2 * MOST
    finally:
        Later.ahead = 0
        yard.env = env


@pytest.mark.parametrize(
    "step", ["after qom-set", pytest.param("before commit", marks=pytest.mark.slow), "after commit"]
)
def test_killed(clean: Yard, tmp_path: Path, step: str) -> None:
    """What it had begun goes, and what there was before stays."""
    yard = clean
    made = yard.backup(keep=Keep(1))
    right = in_vault(yard, made, tmp_path / "vault")

    assert dying(yard, step, "1").wait(60) == -signal.SIGKILL

    yard.guest.sh("dd if=/dev/urandom of=/a/old bs=1M count=4 conv=notrunc,fsync 2>/dev/null")
    until(lambda: not yard.left(bitmaps=False) and kinds(yard).count("u") == 2, "the end of what it had in QEMU", 10)
    assert content(yard, made) == right
    after = yard.backup(keep=Keep(1))
    assert after.warnings == []
    assert content(yard, made) == right
    assert content(yard, after) == in_vault(yard, after, tmp_path / "after")


def test_another_item_keeps_some_already(clean: Yard) -> None:
    yard = clean
    made = yard.backup(keep=Keep(1))

    other = yard.backup(keep=Keep(1), owner="another")
    assert other.warnings == ["no snapshot is kept: another item or store keeps some of this machine already"]
    last = yard.backup(keep=Keep(0), owner="another")

    assert content(yard, made)
    assert yard.left("another") == yard.tokens(last)
    with Monitor(yard.env, yard.guest.qmp) as asked:
        sweep(asked, prefix_of("another"), set())


class TestOnItsOwn:
    """A machine that tests do something to. It does not run; QEMU writes as its guest would."""

    @pytest.fixture
    def alone(self, tmp_path: Path) -> Iterator[Yard]:
        disks = [("d0", make_disk(tmp_path / "d0.qcow2", 16))]
        extra = [
            "-device",
            "virtio-scsi-pci",
            "-blockdev",
            f"driver=null-co,read-zeroes=on,size={8 * _MIB},node-name=n1",
        ]
        extra += ["-device", "scsi-hd,drive=n1,id=plugged"]
        with Guest(tmp_path, disks, boots=False, extra=extra) as guest:
            yield Yard(guest, tmp_path)

    def test_a_disk_that_grows(self, alone: Yard, tmp_path: Path) -> None:
        made = alone.backup(keep=Keep(1))
        right = in_vault(alone, made, tmp_path / "vault")
        with monitor(alone.guest.qmp) as ask:
            node = next(block["inserted"]["node-name"] for block in ask("query-block") if "disk0" in block["qdev"])
            ask("block_resize", node_name=node, size=24 * _MIB)
        write(alone.guest, "disk0", "write -P 7 20M 64k", "write -P 8 1M 64k")

        after = alone.backup(keep=Keep(1))
        assert [disk.size for disk in after.machine.about.disks] == [24 * _MIB, 8 * _MIB]
        assert content(alone, after) == in_vault(alone, after, tmp_path / "after")
        assert in_vault(alone, made, tmp_path / "again") == right

    def test_a_job_of_somebody_else(self, alone: Yard, tmp_path: Path) -> None:
        """It writes by a filter of its own, which must stay between the device and its disk."""
        copy = make_disk(tmp_path / "copy.qcow2", 16)
        with monitor(alone.guest.qmp) as ask:
            file = {"driver": "file", "filename": str(copy)}
            ask("blockdev-add", driver="qcow2", node_name="copy", file=file)
            ask("blockdev-mirror", job_id="mine", device="d0", target="copy", sync="full", copy_mode="write-blocking")
            until(lambda: ask("query-block-jobs")[0]["ready"], "the copy")
        with pytest.raises(SourceFailed, match="in use by block job"):
            alone.backup(keep=Keep(1))
        assert kinds(alone) == ""
        write(alone.guest, "disk0", "write -P 8 1M 64k")

        with monitor(alone.guest.qmp) as ask:
            ask("block-job-complete", device="mine")
            until(lambda: not ask("query-block-jobs"), "the end of the job")
        now = alone.backup(keep=Keep(1))  # of the copy, which the device has now
        assert in_vault(alone, now, tmp_path / "now")["disk0"][_MIB : _MIB + (64 << 10)] == bytes([8]) * (64 << 10)

    def test_a_server_of_somebody_who_backs_up(self, alone: Yard, tmp_path: Path) -> None:
        """Libvirt begins its server, then its jobs, and has exports only then."""
        made = alone.backup(keep=Keep(1))
        copy = make_disk(tmp_path / "copy.qcow2", 16)
        with monitor(alone.guest.qmp) as ask:
            ask("blockdev-add", driver="qcow2", node_name="copy", file={"driver": "file", "filename": str(copy)})
            ask("nbd-server-start", addr={"type": "unix", "data": {"path": str(tmp_path / "nbd")}})
            ask("blockdev-backup", job_id="theirs", device="d0", target="copy", sync="none")

        assert content(alone, made) == {}

        with monitor(alone.guest.qmp) as ask:
            ask("nbd-server-stop")  # which is refused where there is none
            ask("job-cancel", id="theirs")

    def test_a_disk_that_is_taken_away(self, alone: Yard) -> None:
        alone.backup(keep=Keep(1))
        with monitor(alone.guest.qmp) as ask:
            ask("qom-set", path="/machine/peripheral/plugged", property="drive", value="n1")
        made = alone.backup(keep=Keep(1), exclude=["plugged"])
        assert made.warnings == []
        assert kinds(alone) == "bktuuvvww"
        with monitor(alone.guest.qmp) as ask:
            ask("blockdev-add", driver="raw", node_name="free", file="n1")

    def test_disks_that_are_put_back(self, alone: Yard) -> None:
        made = alone.backup(keep=Keep(1))
        write(alone.guest, "disk0", "write -P 8 1M 64k")
        alone.backup()  # as before a replacement
        progress = Silent()

        assert replace(alone, made, "disk0", progress=progress).disks[0].changed >= 64 << 10

        assert kinds(alone) == ""
        assert [text for _, text in progress.warnings] == [
            "1 snapshots that QEMU kept of the machine went; their points are in the vault"
        ]
        assert content(alone, made) == {}
        assert alone.backup(keep=Keep(1)).warnings == []

    def test_those_that_an_agent_looks_at(self, alone: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        kept_in = f'[backup]\nsnapshots = "{tmp_path}"\n'

        def look(text: str, *stamps: int, monitor: Path = alone.guest.qmp, none: bool = False) -> tuple[Any, list[str]]:
            """Which are told to be gone, and the warnings."""
            asked = {"item": OWNER, "name": "little", "stamps": [*stamps], "none": none}
            asked["source"] = {"machine": f"qemu:{monitor}"}
            work = Work(job="j", token=1, operation="LookAtSnapshots", attempt=1, item="", name="", source={},
                        workload="", arguments={"items": [asked]})  # fmt: skip
            report = Report(alone.env, lambda: None)
            order = Order.of(work, folders({"KEEPSTONE_HOME": str(tmp_path / "home")}))
            told = agent_look(Later(threads=2), order, Configuration.parse(text), report)
            return [one["gone"] for one in told if one["item"] == OWNER], report.warnings

        (there,) = keep(alone, 1)
        assert look(kept_in, there, 5) == ([[5]], [])
        told, warnings = look(f'{kept_in}deny = ["{alone.guest.qmp}"]', there)
        assert (told, len(warnings)) == ([], 1)
        assert "the snapshots of little were not looked at" in warnings[0]
        assert kinds(alone)
        Later.ahead = DAY + 60 * 10**9
        try:
            assert look(kept_in, there) == ([[there]], [])
        finally:
            Later.ahead = 0
        assert kinds(alone) == ""

        assert look("", *keep(alone, 1))[0] != [[]]
        assert kinds(alone) == ""
        assert look(kept_in, *keep(alone, 1), none=True)[0] != [[]]
        assert kinds(alone) == ""
        keep(alone, 1)
        with monkeypatch.context() as patched:
            patched.setattr("keepstone.workloads.machines.guard.Room.ends", lambda self: True)
            look(kept_in)
        assert kinds(alone) == ""
        assert look(kept_in, 7, monitor=tmp_path / "gone.qmp") == ([[7]], [])
        with pytest.raises(UsageError, match="in a way that this agent does not know"):
            look(kept_in, "x")  # type: ignore[arg-type]  # which a service may well say

    def test_those_that_are_looked_at(self, alone: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
        def look(**more: bool) -> list[int]:
            return kept_by(alone.env, alone.qemu, OWNER, **more)

        assert look() == []
        there = keep(alone, 1)
        assert look() == there
        with near_of(alone, alone.backup()) as disks:
            assert disks == {}
        assert look(none=True) == []
        assert kinds(alone) == ""

        monkeypatch.setattr("keepstone.workloads.kvm.keeping._SMALLEST", 2 << 20)
        monkeypatch.setattr("keepstone.workloads.machines.guard.Room.spare", lambda self: 8 << 20)
        write(alone.guest, "disk0", "write -P 9 0 8M")
        assert keep(alone, 1)
        write(alone.guest, "disk0", "write -P 8 0 8M")
        assert look() == []
        assert kinds(alone) == ""
