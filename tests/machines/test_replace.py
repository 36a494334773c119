# SPDX-License-Identifier: Apache-2.0
"""The disks of a point back into the machine that runs: all of them, byte for byte, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from keepstone.disks.nbd import NbdSink
from keepstone.errors import Conflict, NotFound, StorageError, UsageError
from keepstone.workloads import Silent
from keepstone.workloads.kvm import Qemu, replace_disks, unfinished
from keepstone.workloads.kvm.aside import set_aside
from keepstone.workloads.kvm.drives import ASIDE, drives
from keepstone.workloads.kvm.qmp import Gone, Monitor
from keepstone.workloads.kvm.serving import Serving
from keepstone.workloads.machines import Replaced, machine_of
from tests.machines.guest import Guest, make_disk, monitor, until
from tests.machines.test_backup import same
from tests.machines.yard import Made, Yard, oracle
from tests.unit.images.disk import noise

pytestmark = pytest.mark.vm

MIB = 1 << 20
STOPPED = ("paused", "prelaunch")  # the second where its firmware makes a reset just then, as SeaBIOS does at its begin
_ROOT = Path(__file__).parents[2]


def status(guest: Guest) -> str:
    with monitor(guest.qmp) as ask:
        return str(ask("query-status")["status"])


def ours(guest: Guest) -> list[str]:
    """What a replacement has in QEMU, or left there."""
    with monitor(guest.qmp) as ask:
        names = [node["node-name"] for node in ask("query-named-block-nodes", flat=True)]
        assert any(name.startswith("keepstone-half-") for name in names) is any("replacing" in name for name in names)
        names += [export["id"] for export in ask("query-block-exports")]
    return sorted(name for name in names if name.startswith("keepstone-replac"))


def attached(guest: Guest) -> list[str]:
    """The nodes that the devices have."""
    with monitor(guest.qmp) as ask:
        return [block["inserted"]["node-name"] for block in ask("query-block") if block.get("inserted")]


def replace(yard: Yard, made: Made, *names: str, progress: Silent | None = None) -> Replaced:
    with yard.store.reader(made.point) as reader:
        return replace_disks(yard.env, yard.qemu, machine_of(reader), progress or Silent(), names=names)


def put(disk: bytes, image: Path, offset: int = 0) -> None:
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(disk)


def write(guest: Guest, disk: str, *commands: str) -> None:
    """Let QEMU itself write to a disk of a guest, as the guest would."""
    with monitor(guest.qmp) as ask:
        for command in commands:
            said = ask(
                "human-monitor-command",
                command_line=f'qemu-io -d /machine/peripheral/{disk}/virtio-backend "{command}"',
            )
            assert "error" not in said.lower(), said


def changed(report: Replaced) -> dict[str, int]:
    return {done.disk.name: done.changed for done in report.disks}


@contextlib.contextmanager
def machine(folder: Path) -> Iterator[tuple[Yard, tuple[Made, Made]]]:
    """One without a system, which writes nothing by itself, with disks that came in several ways; and two points of it
    that differ in all of them."""
    images = {name: folder / name for name in ("d0.qcow2", "d1.raw", "old.qcow2")}
    for name, mebibytes in zip(images, (24, 16, 16), strict=True):
        form = "qcow2" if name.endswith("qcow2") else "raw"
        subprocess.run(["qemu-img", "create", "-q", "-f", form, images[name], f"{mebibytes}M"], check=True)
    extra = ["-drive", f"file={images['old.qcow2']},format=qcow2,if=none,id=old"]
    extra += ["-device", "virtio-blk-pci,drive=old,id=disk2"]
    with Guest(folder, [("d0", images["d0.qcow2"]), ("d1", images["d1.raw"])], extra=extra, boots=False) as guest:
        yard = Yard(guest, folder)
        yard.qemu = Qemu(guest.qmp)  # nobody would answer for the agent
        with monitor(guest.qmp) as ask:
            ask("cont")  # its firmware looks for a system and finds none
        write(guest, "disk0", "write -P 7 0 9M", "write -P 8 12M 2M")
        first = yard.backup()
        write(guest, "disk0", "write -P 1 1M 3M", "write -P 2 20M 64k", "write -z 12M 1M")
        write(guest, "disk1", "write -P 3 2M 1M")
        write(guest, "disk2", "write -P 4 8M 1M")
        yield yard, (first, yard.backup())


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Yard, tuple[Made, Made]]]:
    with machine(tmp_path_factory.mktemp("still")) as found:
        yield found


@pytest.fixture
def points(one: tuple[Yard, tuple[Made, Made]]) -> tuple[Made, Made]:
    """The machine runs, and is as the second one has it."""
    yard, made = one
    replace(yard, made[1])
    with monitor(yard.guest.qmp) as ask:
        ask("cont")
    return made


@pytest.fixture
def still(one: tuple[Yard, tuple[Made, Made]], points: tuple[Made, Made]) -> Yard:
    """The machine of those points."""
    return one[0]


def test_a_guest_begins_anew_from_a_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what was changed by that is what the next backup reads."""
    disks = [("d0", make_disk(tmp_path / "d0.qcow2", 96)), ("d1", make_disk(tmp_path / "d1.raw", 48, "raw"))]
    with Guest(tmp_path, disks) as guest:
        yard = Yard(guest, tmp_path)
        guest.sh("dd if=/dev/urandom of=/a/big bs=1M count=20 2>/dev/null; echo one > /a/which; echo 1 > /b/x; sync")
        first = yard.backup()
        restored = yard.restore(first, tmp_path / "first")
        guest.sh("dd if=/dev/urandom of=/a/more bs=1M count=6 2>/dev/null; echo two > /a/which; rm /b/x; sync")
        second = yard.backup()
        seen: dict[str, bytes] = {}

        def wait(self: Monitor, done: Callable[[], bool], what: str, timeout: float = 30) -> None:
            plain(self, done, what, timeout)
            if what == "the reset":  # nothing of the guest has run on the disks yet
                for disk, (_, image) in zip(("disk0", "disk1"), disks, strict=True):
                    copy = tmp_path / f"{disk}-now"
                    subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", image, copy], check=True)
                    seen[disk] = copy.read_bytes()

        plain = Monitor.wait
        with monkeypatch.context() as patched:
            patched.setattr(Monitor, "wait", wait)
            report = replace(yard, first)

        assert seen == {name: path.read_bytes() for name, path in restored.items()}
        assert report.running
        assert report.left == []
        assert {done.disk.name: done.lost for done in report.disks} == {"disk0": [], "disk1": []}
        assert 6 * MIB < report.disks[0].changed < 16 * MIB
        assert 0 < report.disks[1].changed < 6 * MIB
        guest.again()
        assert guest.sh("cat /a/which /b/x; ls /a") == "one\n1\nbig\nlost+found\nwhich\n"
        guest.sh("echo three > /a/which; sync")
        with oracle(monkeypatch, guest, tmp_path / "copies") as copies:
            made = yard.backup()
        same(yard.restore(made, tmp_path / "third"), copies)
        assert (made.warnings, made.point.record.parent) == ([], second.point.id)
        assert made.report.read < 26 * MIB
        assert yard.left() == yard.tokens(made)
        assert ours(guest) == []


def test_all_disks_and_only_what_differs(still: Yard, points: tuple[Made, Made], tmp_path: Path) -> None:
    first, _ = points
    nodes = attached(still.guest)

    report = replace(still, first)

    # In blocks of 256 KiB: of disk0 three megabytes, 64 KiB, and one megabyte that became zeros.
    assert changed(report) == {"disk0": 4 * MIB + 256 * 1024, "disk1": MIB, "disk2": MIB}
    assert (attached(still.guest), ours(still.guest), status(still.guest)) == (nodes, [], "running")
    made = still.backup()
    same_files(still.restore(made, tmp_path / "now"), still.restore(first, tmp_path / "first"))
    assert made.warnings == []
    assert 0 < made.report.read <= 16 * MIB

    assert set(changed(replace(still, first)).values()) == {0}
    assert still.backup().report.read == 0


def same_files(one: dict[str, Path], other: dict[str, Path]) -> None:
    assert {name: path.read_bytes() for name, path in one.items()} == {
        name: path.read_bytes() for name, path in other.items()
    }


def test_one_disk(still: Yard, points: tuple[Made, Made], tmp_path: Path) -> None:
    report = replace(still, points[0], "disk1")

    assert ([done.disk.name for done in report.disks], report.left) == (["disk1"], ["disk2", "disk0"])
    now = still.restore(still.backup(), tmp_path / "now")
    first, second = (still.restore(made, tmp_path / str(number)) for number, made in enumerate(points))
    same_files(now, second | {"disk1": first["disk1"]})
    with pytest.raises(NotFound, match="no disk disk7; it has disk2, disk0, disk1"):
        replace(still, points[0], "disk7")


def test_a_machine_that_does_not_run(still: Yard, points: tuple[Made, Made]) -> None:
    with monitor(still.guest.qmp) as ask:
        ask("stop")

    report = replace(still, points[0])

    assert not report.running
    assert status(still.guest) == "prelaunch"
    assert ours(still.guest) == []


@pytest.mark.slow
def test_a_guest_that_has_shut_down(tmp_path: Path) -> None:
    disks = [("d0", make_disk(tmp_path / "d0.qcow2", 16))]
    with Guest(tmp_path, disks, extra=["-no-shutdown"]) as guest:
        yard = Yard(guest, tmp_path)
        guest.sh("echo one > /a/which; sync")
        first = yard.backup()
        guest.sh("echo two > /a/which; sync; touch /run/off")
        until(lambda: status(guest) == "shutdown", "the end of the guest", 30)

        report = replace(yard, first)

        assert not report.running
        assert report.disks[0].changed
        with monitor(guest.qmp) as ask:
            ask("cont")
        guest.again()
        assert guest.sh("cat /a/which") == "one\n"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[Yard, tuple[Made, Made]]]:
    """A machine with two points that the test may spoil."""
    with machine(tmp_path) as found:
        yield found


def test_disks_of_another_size(own: tuple[Yard, tuple[Made, Made]], tmp_path: Path) -> None:
    """One that grew is zeros behind its old end; one that is too small is refused before anything is done."""
    still, points = own
    with monitor(still.guest.qmp) as ask:
        ask("block_resize", node_name="d0", size=24 * MIB + 65536)
    write(still.guest, "disk0", "write -P 9 23M 1088k")

    replace(still, points[0])

    made = still.backup()
    assert {disk.name: disk.size for disk in made.machine.about.disks}["disk0"] == 24 * MIB + 65536
    now, first = still.restore(made, tmp_path / "now"), still.restore(points[0], tmp_path / "first")
    assert now["disk0"].read_bytes() == first["disk0"].read_bytes() + bytes(65536)

    with monitor(still.guest.qmp) as ask:
        ask("block_resize", node_name="d1", size=15 * MIB)
    before = still.guest.disks[0][1].read_bytes()
    with pytest.raises(UsageError, match=f"disk1 has {15 * MIB} bytes in the machine and {16 * MIB} in the point"):
        replace(still, points[1])
    assert status(still.guest) == "running"
    assert still.guest.disks[0][1].read_bytes() == before


def test_a_machine_without_one_of_the_disks(own: tuple[Yard, tuple[Made, Made]]) -> None:
    still, points = own
    still.guest.process.kill()
    still.guest.process.wait()
    with Guest(still.folder, still.guest.disks, boots=False) as guest:
        still.guest = guest

        with pytest.raises(NotFound, match="the machine has no disk disk2, which the point has"):
            replace(still, points[0])

        assert status(guest) == "prelaunch"
        assert [done.disk.name for done in replace(still, points[0], "disk0", "disk1").disks] == ["disk0", "disk1"]


def test_a_disk_with_a_thread_of_its_own(own: tuple[Yard, tuple[Made, Made]]) -> None:
    still, points = own
    still.guest.process.kill()
    still.guest.process.wait()
    block = f"driver=qcow2,node-name=d0,file.driver=file,file.filename={still.guest.disks[0][1]}"
    extra = ["-object", "iothread,id=io", "-blockdev", block]
    extra += ["-device", "virtio-blk-pci,drive=d0,id=disk0,iothread=io"]
    with Guest(still.folder, [], extra=extra) as guest:
        still.guest = guest
        guest.sh("grep -q vda /proc/partitions")  # its driver is at work, and the disk in that thread

        report = replace(still, points[0], "disk0")

        assert report.running
        assert report.disks[0].changed == 4 * MIB + 256 * 1024
        guest.again()
        assert guest.sh("dd if=/dev/vda bs=1M skip=1 count=1 2>/dev/null | tr -d '\\007' | wc -c") == "0\n"


def test_busy(still: Yard, points: tuple[Made, Made], tmp_path: Path) -> None:
    with monitor(still.guest.qmp) as ask:
        ask("drive-mirror", device="d0", target=str(tmp_path / "copy"), sync="full", job_id="theirs", format="raw")

    with pytest.raises(Conflict, match="is busy with its disks"):
        replace(still, points[0])

    assert status(still.guest) == "running"
    with monitor(still.guest.qmp) as ask:
        ask("block-job-cancel", device="theirs", force=True)
        until(lambda: not ask("query-block-jobs"), "the end of the job")


def test_refused_before_anything_is_written(still: Yard, points: tuple[Made, Made]) -> None:
    """All is as it was."""
    nodes = attached(still.guest)
    with monitor(still.guest.qmp) as ask:
        ask("nbd-server-start", addr={"type": "unix", "data": {"path": str(still.folder / "theirs")}})
        ask("block-export-add", type="nbd", id="theirs", node_name="d1", name="theirs")

    with pytest.raises(Conflict, match="serves disks to somebody else") as caught:
        replace(still, points[0])

    assert "stopped" not in str(caught.value)
    assert (attached(still.guest), status(still.guest)) == (nodes, "running")
    assert ours(still.guest) == []
    assert not unfinished(still.env, still.qemu)
    with monitor(still.guest.qmp) as ask:
        ask("nbd-server-stop")


def test_a_failure_in_the_middle(
    still: Yard, points: tuple[Made, Made], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The machine stands, and says so; the same again goes on, and it runs."""
    plain = NbdSink.write
    nodes = attached(still.guest)

    def fails(self: NbdSink, offset: int, data: Any) -> None:
        plain(self, offset, data)
        if self.address.export.endswith("e1"):
            raise StorageError("the disk below failed")

    with monkeypatch.context() as patched:
        patched.setattr(NbdSink, "write", fails)
        with pytest.raises(StorageError) as caught:
            replace(still, points[0])

    assert str(caught.value) == (
        "the disk below failed. The machine is stopped: disk0, disk1 is neither what it was nor the point, disk2 is "
        "put back. Run the same again: it writes what still differs, and starts the machine if it ran"
    )
    assert attached(still.guest) == nodes
    assert status(still.guest) in STOPPED
    assert ours(still.guest) == ["keepstone-replacing-ran"]
    assert unfinished(still.env, still.qemu)
    with pytest.raises(UsageError, match="disk2, disk0 is half put back; name that, too"):
        replace(still, points[0], "disk1")
    assert status(still.guest) in STOPPED

    report = replace(still, points[0])

    assert report.running
    assert changed(report) | {"disk0": 0} == {"disk2": 0, "disk0": 0, "disk1": MIB}
    assert 0 < changed(report)["disk0"] < 4 * MIB  # some of it was written
    same_files(still.restore(still.backup(), tmp_path / "now"), still.restore(points[0], tmp_path / "first"))
    assert ours(still.guest) == []


def test_interrupted(still: Yard, points: tuple[Made, Made], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: NbdSink) -> None:
        raise KeyboardInterrupt

    progress = Silent()
    with monkeypatch.context() as patched:
        patched.setattr(NbdSink, "finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            replace(still, points[0], progress=progress)

    assert "the machine is stopped" in progress.warnings[0][1]
    assert status(still.guest) in STOPPED
    assert ours(still.guest) == ["keepstone-replacing-ran"]


def test_qemu_ends(own: tuple[Yard, tuple[Made, Made]], monkeypatch: pytest.MonkeyPatch) -> None:
    still, points = own

    def ends(self: NbdSink) -> None:
        still.guest.process.kill()
        still.guest.process.wait()
        raise Gone("QEMU is gone")

    with monkeypatch.context() as patched:
        patched.setattr(NbdSink, "finish", ends)
        with pytest.raises(Gone, match="start it with -S"):
            replace(still, points[0])


@pytest.mark.parametrize(
    "step",
    [
        pytest.param("after stop", marks=pytest.mark.slow),
        "after qom-set",
        "after nbd-server-start",
        "before write",
        "after write",
        "after block-export-del",
        "after system_reset",
    ],
)
def test_killed(still: Yard, points: tuple[Made, Made], tmp_path: Path, step: str) -> None:
    """A process of its own gives the disks back, and the machine stands until the same is run again."""
    nodes = attached(still.guest)
    command = [sys.executable, "-m", "tests.machines.replacing", still.folder / "store", still.guest.qmp]
    process = subprocess.Popen([*map(str, command), points[0].point.id, step], cwd=_ROOT)

    assert process.wait(60) == -signal.SIGKILL

    until(lambda: attached(still.guest) == nodes, "the end of what it had in QEMU", 15)
    until(lambda: not [name for name in ours(still.guest) if name.startswith(ASIDE)], "the rest", 15)
    assert status(still.guest) in STOPPED
    report = replace(still, points[0])
    assert report.running is (step != "after stop")
    same_files(still.restore(still.backup(), tmp_path / "now"), still.restore(points[0], tmp_path / "first"))
    assert ours(still.guest) == []


def test_another_machine_at_the_same_time(still: Yard, tmp_path: Path) -> None:
    """What is its own stays, and what somebody left who was killed goes."""
    disks = [("d0", tmp_path / "d0.raw")]
    disks[0][1].write_bytes(bytes(MIB))
    with (
        Guest(tmp_path, disks, boots=False) as other,
        Monitor(still.env, still.guest.qmp) as one,
        Monitor(still.env, other.qmp) as two,
    ):
        first, killed, second = (Serving(still.env, monitor, ASIDE) for monitor in (one, two, two))
        first.start()
        killed.start()
        second.start()
        assert (first.address.exists(), killed.address.exists(), second.address.exists()) == (True, False, True)
        one.execute("nbd-server-stop")
        for serving in (first, second):
            serving.close()
            assert not serving.address.parent.exists()


def test_nobody_backs_up_what_stands_in(still: Yard, points: tuple[Made, Made]) -> None:
    with Monitor(still.env, still.guest.qmp) as opened:
        set_aside(opened, drives(opened)[0])

    with pytest.raises(Conflict, match="are being put back from a point"):
        still.backup()

    replace(still, points[0])
    still.backup()


def test_nvram(tmp_path: Path) -> None:
    """It is compared and not written; where it differs that is said."""
    vars = tmp_path / "vars"
    vars.write_bytes(noise(1)[:65536] * 64)
    code = tmp_path / "code"
    code.write_bytes(bytes(4 * MIB))
    extra = ["-drive", f"if=pflash,format=raw,readonly=on,file={code}", "-drive", f"if=pflash,format=raw,file={vars}"]
    with Guest(tmp_path, [("d0", make_disk(tmp_path / "d0.qcow2", 16))], extra=extra, boots=False) as guest:
        yard = Yard(guest, tmp_path)
        yard.qemu = Qemu(guest.qmp)
        made = yard.backup()
        assert [str(disk.role) for disk in made.machine.about.disks].count("nvram") == 1
        progress = Silent()
        replace(yard, made, progress=progress)
        assert progress.warnings == []
        put(b"changed", vars, 4096)
        before = vars.read_bytes()
        replace(yard, made, progress=progress)
        assert [text.partition(":")[0] for _, text in progress.warnings] == ["is not put back"]
        assert vars.read_bytes() == before


def test_damage_in_the_store(still: Yard, points: tuple[Made, Made], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of a point is no reason to run on it."""
    from keepstone.store import LocalReader

    plain = LocalReader.fetch
    missed: list[int] = []

    def fetch(self: LocalReader, requests: Any, sink: Any) -> None:
        from keepstone.errors import CorruptObject

        listed = list(requests)
        missed.extend(ref for ref, _ in listed[:1] if not missed)
        if any(ref in missed for ref, _ in listed):
            raise CorruptObject("a chunk is damaged")
        plain(self, listed, sink)

    with monkeypatch.context() as patched:
        patched.setattr(LocalReader, "fetch", fetch)
        report = replace(still, points[0])

    assert not report.running
    assert sum(len(done.lost) for done in report.disks) >= 1
    assert status(still.guest) in STOPPED
    assert unfinished(still.env, still.qemu)
    assert replace(still, points[0]).running
