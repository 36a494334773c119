# SPDX-License-Identifier: Apache-2.0
"""The disks of a point back into a domain: byte for byte, and it never starts on half of them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keepstone.disks.nbd import NbdSink
from keepstone.errors import Conflict, CorruptObject, KeepstoneError, NotFound, StorageError, Unsupported, UsageError
from keepstone.workloads import Silent
from keepstone.workloads.libvirt import find, replace_domain, unfinished_domain
from keepstone.workloads.libvirt.chain import unread
from keepstone.workloads.libvirt.domains import DomainDisk
from keepstone.workloads.libvirt.images import Image
from keepstone.workloads.libvirt.writable import Writable
from keepstone.workloads.machines import Replaced, machine_of
from tests.libvirt.daemon import Daemon
from tests.libvirt.images import image
from tests.libvirt.still import Still
from tests.libvirt.yard import Made, Yard, oracle, same
from tests.machines.guest import until

pytestmark = pytest.mark.vm

MIB = 1 << 20
_ROOT = Path(__file__).parents[2]
_BLOCK = 256 << 10
FIRST = "write -P 7 0 9M", "write -P 8 12M 2M"
SECOND = "write -P 1 1M 3M", "write -P 2 20M 64k", "write -z 12M 1M"
HALF = "its-disks-are-half-put-back"


@contextlib.contextmanager
def machine(daemon: Daemon, folder: Path, name: str) -> Iterator[tuple[Yard, tuple[Made, Made]]]:
    """A domain, and two points of it that differ in both disks."""
    still = Still(daemon, folder, name)
    try:
        yard = Yard(still, folder)
        still.write("vda", *FIRST)
        first = yard.backup()
        still.write("vda", *SECOND)
        still.write("vdb", "write -P 3 2M 1M")
        yield yard, (first, yard.backup())
    finally:
        still.close()


@pytest.fixture(scope="module")
def one(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Yard, tuple[Made, Made]]]:
    with machine(daemon, tmp_path_factory.mktemp("still"), "still") as found:
        yield found


@pytest.fixture
def points(one: tuple[Yard, tuple[Made, Made]]) -> tuple[Made, Made]:
    """The domain runs, and is as the second one has it."""
    still = of(one[0])
    still.again()
    still.write("vda", "write -z 0 24M", *FIRST, *SECOND)
    still.write("vdb", "write -z 0 16M", "write -P 3 2M 1M")
    return one[1]


@pytest.fixture
def yard(one: tuple[Yard, tuple[Made, Made]], points: tuple[Made, Made]) -> Yard:
    """The domain of those points."""
    return one[0]


@pytest.fixture
def own(daemon: Daemon, tmp_path: Path) -> Iterator[tuple[Yard, tuple[Made, Made]]]:
    """One that the test may spoil."""
    with machine(daemon, tmp_path, f"own-{os.urandom(3).hex()}") as found:
        yield found


def of(yard: Yard) -> Still:
    assert isinstance(yard.machine, Still)
    return yard.machine


def replace(yard: Yard, made: Made, *names: str, progress: Silent | None = None) -> Replaced:
    with yard.store.reader(made.point) as reader:
        return replace_domain(
            yard.env, yard.virsh, yard.machine.name, machine_of(reader), progress or Silent(), names=names
        )


def changed(report: Replaced) -> dict[str, int]:
    return {done.disk.name: done.changed for done in report.disks}


def has(yard: Yard, made: Made, folder: Path) -> bool:
    """Whether the disks are those of this point."""
    folder.mkdir()
    restored = yard.restore(made, folder / "point")
    return of(yard).content(folder / "now") == {name: path.read_bytes() for name, path in restored.items()}


def stands(yard: Yard) -> None:
    """It is off, nobody starts it, and nobody makes a point of it."""
    still = of(yard)
    assert still.state == "shut off"
    assert HALF in still.daemon._run("start", still.name).stderr
    assert still.state == "shut off"
    assert unfinished_domain(yard.virsh, still.name)
    with pytest.raises(Conflict, match="has disks that are being put back from a point"):
        yard.backup()


def nothing_done(yard: Yard, made: Made, *names: str) -> KeepstoneError:
    """It is refused, and the domain has heard nothing of it."""
    still = of(yard)
    before = still.description(), still.state, still.daemon.virsh("domid", still.name)
    with pytest.raises(KeepstoneError) as caught:
        replace(yard, made, *names)
    assert (still.description(), still.state, still.daemon.virsh("domid", still.name)) == before
    return caught.value


def test_all_disks_and_only_what_differs(
    yard: Yard, points: tuple[Made, Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    still = of(yard)
    before = still.description()
    parent = yard.backup()

    report = replace(yard, points[0])

    # In blocks of 256 KiB: three megabytes, 64 KiB, and one megabyte that became zeros.
    assert changed(report) == {"vda": 4 * MIB + _BLOCK, "vdb": MIB}
    assert (report.running, report.left, still.state) == (True, [], "running")
    assert has(yard, points[0], tmp_path / "has")
    assert still.description() == before
    assert "keepstone" not in still.daemon.virsh("dumpxml", still.name)
    assert not unfinished_domain(yard.virsh, still.name)
    # The qcow2 image by itself: of a raw one that is read in full, zeros in the system's memory count as data.
    alone = yard.backup(exclude=["vdb"])
    assert alone.point.record.parent == parent.point.id
    assert not any("in full" in text for text in alone.warnings)
    assert 0 < alone.report.read <= 4 * MIB + _BLOCK  # and not its 11 MiB of data, or the disk
    with oracle(monkeypatch, tmp_path / "copies") as copies:
        made = yard.backup()
    same(yard.restore(made, tmp_path / "made"), copies)
    assert made.point.record.parent == alone.point.id
    assert [text.partition(":")[0] for text in made.warnings] == ["vdb is read in full"]  # it is raw
    assert set(changed(replace(yard, points[0])).values()) == {0}


def test_one_disk(yard: Yard, points: tuple[Made, Made], tmp_path: Path) -> None:
    report = replace(yard, points[0], "vdb")

    assert (changed(report), report.left) == ({"vdb": MIB}, ["vda"])
    first, second = (yard.restore(made, tmp_path / str(number)) for number, made in enumerate(points))
    now = of(yard).content(tmp_path / "now")
    assert now == {"vda": second["vda"].read_bytes(), "vdb": first["vdb"].read_bytes()}


@pytest.mark.parametrize(
    ("state", "verb"), [pytest.param("paused", "suspend", marks=pytest.mark.slow), ("shut off", "destroy")]
)
def test_one_that_does_not_run(yard: Yard, points: tuple[Made, Made], tmp_path: Path, state: str, verb: str) -> None:
    still = of(yard)
    still.daemon.virsh(verb, still.name)
    before = still.description()

    report = replace(yard, points[0])

    assert (report.running, still.state) == (False, state)
    assert has(yard, points[0], tmp_path / "has")
    assert still.description() == before


def test_one_that_sleeps(yard: Yard, points: tuple[Made, Made]) -> None:
    """Its memory is of disks that are gone."""
    still, progress = of(yard), Silent()
    still.daemon.virsh("managedsave", still.name)

    replace(yard, points[0], progress=progress)

    assert still.daemon.virsh("list", "--all", "--with-managed-save", "--name").split() == []
    assert [text for _, text in progress.warnings] == ["still slept; its memory was of other disks, and is removed"]


def test_a_disk_that_grew(own: tuple[Yard, tuple[Made, Made]], tmp_path: Path) -> None:
    """It is zeros behind its old end; one that is too small is refused before anything is done."""
    yard, points = own
    still = of(yard)
    still.daemon.virsh("blockresize", still.name, "vda", f"{24 * MIB + 65536}B")
    still.write("vda", "write -P 9 23M 1088k")

    replace(yard, points[0])

    restored = yard.restore(points[0], tmp_path / "first")
    now = still.content(tmp_path / "now")
    assert now == {"vda": restored["vda"].read_bytes() + bytes(65536), "vdb": restored["vdb"].read_bytes()}
    still.daemon.virsh("destroy", still.name)
    os.truncate(still.disks["vdb"], 15 * MIB)
    assert f"vdb has {15 * MIB} bytes in the machine and {16 * MIB} in the point" in str(nothing_done(yard, points[1]))


def test_refused_before_anything_is_done(yard: Yard, points: tuple[Made, Made], tmp_path: Path) -> None:
    still, daemon, name = of(yard), yard.machine.daemon, yard.machine.name
    assert isinstance(error := nothing_done(yard, points[0], "vdz"), NotFound)
    assert "has no disk vdz; it has vda, vdb" in str(error)

    begin = tmp_path / "theirs.xml"
    begin.write_text(f"<domainbackup mode='pull'><server transport='unix' socket='{daemon.folder}/t'/></domainbackup>")
    daemon.virsh("backup-begin", name, str(begin))
    assert isinstance(error := nothing_done(yard, points[0]), Conflict)
    assert "is being backed up, saved or moved" in str(error)
    daemon.virsh("domjobabort", name)

    for checkpoint in still.checkpoints():
        daemon.virsh("checkpoint-delete", name, checkpoint)
    daemon.virsh("blockcopy", name, "vdb", str(tmp_path / "copy"), "--format", "raw", "--transient-job")
    assert isinstance(error := nothing_done(yard, points[0]), Conflict)
    assert "vdb of still has a job of its own" in str(error)
    daemon.virsh("blockjob", name, "vdb", "--abort")


def test_disks_that_do_not_fit(own: tuple[Yard, tuple[Made, Made]], tmp_path: Path) -> None:
    yard, points = own
    still = of(yard)
    plain = still.description()
    wrong = [
        ("dev='vdb'", "dev='vdc'", NotFound, "has no disk vdb, which the point has"),
        ("type='raw'", "type='vpc'", Unsupported, "the image of vdb is vpc, which is not written to"),
        ("<target dev='vdb'", "<readonly/><target dev='vdb'", UsageError, "vdb is read-only in the machine"),
    ]
    for was, becomes, _, _ in wrong:  # only at its next start
        still.daemon.define(plain.replace(was, becomes))
        assert f"vdb of {still.name} is {still.disks['vdb']} now" in str(nothing_done(yard, points[0]))
    still.daemon.virsh("destroy", still.name)
    for was, becomes, kind, said in wrong:
        still.daemon.define(plain.replace(was, becomes))
        assert isinstance(error := nothing_done(yard, points[0]), kind)
        assert said in str(error)
    assert changed(replace(yard, points[0], "vda")) == {"vda": 4 * MIB + _BLOCK}

    still.daemon.define(plain)
    still.disks["vda"].unlink()
    image(still.disks["vda"], "24M", "-o", f"data_file={tmp_path}/data")
    assert isinstance(error := nothing_done(yard, points[0]), Unsupported)
    assert "has a part of its disk in another file" in str(error)


def test_one_that_is_gone_when_it_is_off(yard: Yard, points: tuple[Made, Made], daemon: Daemon) -> None:
    still = of(yard)
    description = still.description()
    still.daemon.virsh("destroy", still.name)
    still.daemon.virsh("undefine", still.name, "--checkpoints-metadata")
    (daemon.folder / "transient.xml").write_text(description)
    daemon.virsh("create", str(daemon.folder / "transient.xml"))
    try:
        with pytest.raises(Unsupported, match="still is not persistent"):
            replace(yard, points[0])
        assert still.state == "running"
    finally:
        daemon.define(description)


def test_a_failure_before_anything_is_written(
    yard: Yard, points: tuple[Made, Made], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Somebody takes an image as soon as the machine is off: it is started again, as it was."""
    still = of(yard)
    before = still.description()
    plain = Writable.__init__

    def begin(self: Writable, env: Any, disk: DomainDisk, readable: Any) -> None:
        if disk.target != "vdb":
            plain(self, env, disk, readable)
            return
        with contextlib.closing(Image(env, disk, None, readable)):  # as a backup has it
            plain(self, env, disk, readable)

    with monkeypatch.context() as patched:
        patched.setattr(Writable, "__init__", begin)
        with pytest.raises(Conflict) as caught:
            replace(yard, points[0])

    assert str(caught.value) == (
        f"{still.disks['vdb']} is in use by somebody else, though its machine is off; end that first. Nothing was "
        "written, and the machine was started again"
    )
    assert (still.state, still.description()) == ("running", before)
    assert has(yard, points[1], tmp_path / "has")


@pytest.mark.parametrize("target", [pytest.param("vda", marks=pytest.mark.slow), "vdb"])
def test_locked_while_it_is_written_to(yard: Yard, target: str) -> None:
    """Also by whoever has taken the mark away."""
    still = of(yard)
    (disk,) = [one for one in find(yard.virsh, still.name).disks if one.target == target]
    still.daemon.virsh("destroy", still.name)
    with Writable(yard.env, disk, unread):
        assert '"write" lock' in still.daemon._run("start", still.name).stderr
    still.daemon.virsh("start", still.name)


def test_a_failure_in_the_middle(
    yard: Yard, points: tuple[Made, Made], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The domain is off and cannot be started; the same again goes on, and it runs."""
    plain = NbdSink.zero
    before = of(yard).description()

    def fails(self: NbdSink, offset: int, length: int) -> None:
        plain(self, offset, length)
        if self.size == 16 * MIB:  # vdb, of which a megabyte becomes zeros
            raise StorageError("the disk below failed")

    with monkeypatch.context() as patched:
        patched.setattr(NbdSink, "zero", fails)
        with pytest.raises(StorageError) as caught:
            replace(yard, points[0])

    assert str(caught.value) == (
        "the disk below failed. The machine still is off, and does not start: vdb is neither what it was nor the "
        "point, vda is put back. Run the same again: it writes what still differs, and starts the machine if it ran"
    )
    stands(yard)
    with pytest.raises(UsageError, match="vda of still is half put back"):
        replace(yard, points[0], "vdb")
    stands(yard)

    report = replace(yard, points[0])

    assert (report.running, of(yard).state, of(yard).description()) == (True, "running", before)
    assert changed(report) == {"vda": 0, "vdb": 0}
    assert has(yard, points[0], tmp_path / "has")


@pytest.mark.slow
def test_interrupted(yard: Yard, points: tuple[Made, Made], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: NbdSink) -> None:
        raise KeyboardInterrupt

    progress = Silent()
    with monkeypatch.context() as patched:
        patched.setattr(NbdSink, "finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            replace(yard, points[0], progress=progress)

    assert "the machine still is off, and does not start: vda, vdb" in progress.warnings[0][1]
    stands(yard)
    replace(yard, points[0])


def test_damage_in_the_store(yard: Yard, points: tuple[Made, Made], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of a point is no reason to run on it; another point is."""
    from keepstone.store import LocalReader

    def fetch(self: LocalReader, requests: Any, sink: Any) -> None:
        raise CorruptObject("a chunk is damaged")

    with monkeypatch.context() as patched:
        patched.setattr(LocalReader, "fetch", fetch)
        report = replace(yard, points[0])

    assert (report.running, [bool(done.lost) for done in report.disks]) == (False, [True, False])
    stands(yard)
    assert replace(yard, points[1]).running


def test_qemu_is_killed(yard: Yard, points: tuple[Made, Made], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It vouches for no record of changes any more: the next backup reads everything, and says so."""
    before = yard.backup()

    def ends(self: NbdSink, *_: Any) -> None:
        subprocess.run(["pkill", "-KILL", "-f", f"socket={self.address.socket}"], check=True)
        raise StorageError("QEMU is gone")

    with monkeypatch.context() as patched:
        patched.setattr(NbdSink, "finish", ends)
        with pytest.raises(StorageError, match="vda, vdb is neither what it was"):
            replace(yard, points[0])
    stands(yard)
    replace(yard, points[0])

    with oracle(monkeypatch, tmp_path / "copies") as copies:
        made = yard.backup()
    same(yard.restore(made, tmp_path / "made"), copies)
    assert made.point.record.parent == before.point.id
    assert "vda is read in full: its image has lost the record of what changed on it, or was replaced" in made.warnings
    assert [text for text in yard.backup().warnings if "vdb" not in text] == []


@pytest.mark.parametrize(
    "step",
    [
        pytest.param("before destroy", marks=pytest.mark.slow),
        pytest.param("after destroy", marks=pytest.mark.slow),
        pytest.param("before write", marks=pytest.mark.slow),
        "after write",
        pytest.param("before define 2", marks=pytest.mark.slow),
        "before start",
        pytest.param("after start", marks=pytest.mark.slow),
    ],
)
def test_killed(
    yard: Yard, points: tuple[Made, Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The same again goes on, the domain runs as before, and the record of what changed has all of it."""
    still = of(yard)
    before = still.description()
    yard.backup()
    command = [sys.executable, "-m", "tests.libvirt.replacing", yard.folder / "store", still.daemon.uri, still.name]
    died = subprocess.run([*map(str, command), points[0].point.id, step], check=False, cwd=_ROOT)
    assert died.returncode == -signal.SIGKILL

    locked = ["qemu-img", "info", "-f", "qcow2", str(still.disks["vda"])]
    if step in ("after destroy", "before write", "after write", "before define 2"):
        until(lambda: subprocess.run(locked, check=False, capture_output=True).returncode == 0, "its end", 15)
        stands(yard)
    elif step == "before destroy":
        assert still.state == "running"
        assert unfinished_domain(yard.virsh, still.name)
    else:
        assert unfinished_domain(yard.virsh, still.name) is (step == "before start")
    report = replace(yard, points[0])

    assert (report.running, still.state, still.description()) == (True, "running", before)
    assert has(yard, points[0], tmp_path / "has")
    with oracle(monkeypatch, tmp_path / "copies") as copies:
        made = yard.backup()
    same(yard.restore(made, tmp_path / "made"), copies)
    assert [text for text in made.warnings if "vdb" not in text] == []
