# SPDX-License-Identifier: Apache-2.0
"""Snapshots that stay in the QEMU of a domain: what they hold, what libvirt does meanwhile, and how they go."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepstone.errors import SourceFailed, SourceMissing
from keepstone.workloads.kvm import Keep, kept_by
from keepstone.workloads.kvm.keeping import Keeping
from keepstone.workloads.kvm.kept import named, standing
from keepstone.workloads.kvm.monitor import Gone
from keepstone.workloads.libvirt.agent import Agent
from keepstone.workloads.libvirt.guard import Guard
from keepstone.workloads.libvirt.monitor import Monitor
from keepstone.workloads.machines.stillness import AgentFailed
from tests.libvirt.daemon import Daemon, Little, with_two_disks
from tests.libvirt.still import Still
from tests.libvirt.yard import OWNER, Made, Yard, oracle, same
from tests.machines.guest import until
from tests.machines.keeping import DAY, Later, content, near_of, restore_near, who_reads_is_killed

pytestmark = pytest.mark.vm

_ROOT = Path(__file__).parents[2]
_MIB = 1 << 20
_BUSY = "while [ ! -f /run/quiet ]; do dd if=/dev/urandom of=/a/busy bs=64k count=32 2>/dev/null; sync; done"
_OTHER = "dd if=/dev/urandom of=/a/old bs=1M count={} conv=notrunc 2>/dev/null; date > /b/small; sync"


@pytest.fixture(scope="module")
def little(daemon: Daemon) -> Iterator[Little]:
    little = with_two_disks(daemon, "keeper", 64, 16, old=32)
    yield little
    little.close()


@pytest.fixture
def clean(yard: Yard) -> Iterator[Yard]:
    """The yard, which has no snapshots, and none afterwards."""
    yield yard
    with contextlib.suppress(SourceMissing):  # it never had any
        kept_by(yard.env, yard.way, OWNER, none=True)
    assert kinds(yard) == ""


def kinds(yard: Yard) -> str:
    """What there is of snapshots in QEMU, see `kept.py`; nothing where there is no trace of them."""
    with Monitor(yard.env, yard.virsh, yard.way.uuid) as monitor:
        found = "".join(sorted(name.kind for name in standing(monitor)))
        attached = [block["inserted"]["node-name"] for block in monitor.execute("query-block") if "inserted" in block]
        assert not monitor.execute("query-block-exports")
        assert [fdset for fdset in monitor.execute("query-fdsets") if fdset["fdset-id"] >= 1 << 20] == [] or found
    assert bool(found) == any(named(node) for node in attached)
    return found


def warned(made: Made) -> list[str]:
    """What was said, but of the raw disk, which is read in full each time."""
    return [text for text in made.warnings if "its image is raw" not in text]


def restored(yard: Yard, made: Made, place: Path) -> tuple[dict[str, Path], int]:
    """The disks of a point, and how much came from its snapshot."""
    with near_of(yard, made) as disks:
        return restore_near(yard, made, place, disks)


def test_who_wants_none_has_its_monitor_left_alone(daemon: Daemon, tmp_path: Path) -> None:
    still = Still(daemon, tmp_path, "unkept")
    try:
        yard, wanted = Yard(still, tmp_path), Keep(0)
        for keep in (None, wanted):
            yard.backup(keep=keep)
        assert wanted.there == []
        with pytest.raises(SourceMissing):
            kept_by(yard.env, yard.way, OWNER)
        assert "custom monitor" not in yard.virsh.ask("dominfo", still.name)
        yard.backup(keep=Keep(1))
        assert "custom monitor" in yard.virsh.ask("dominfo", still.name)
    finally:
        still.close()


@pytest.mark.parametrize(
    ("lacks", "said"),
    [
        ("metadata", ["no snapshot is kept"]),
        ("--pass-fds", ["no snapshot of vda is kept", "no snapshot of vdb is kept"]),
    ],
)
def test_a_libvirt_that_is_too_old(
    clean: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: str, said: list[str]
) -> None:
    """Its program lacks something. The backup is none the worse for it."""
    old = tmp_path / "virsh"
    refused = f'case " $* " in *" {lacks} "*) echo "error: no {lacks} here" >&2; exit 1;; esac'
    old.write_text(f'#!/bin/sh\n{refused}\nexec {shutil.which("virsh")} "$@"\n')
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    wanted = Keep(1)
    made = clean.backup(keep=wanted)

    assert [text.partition(":")[0] for text in warned(made)] == said
    assert wanted.there == []


def test_each_holds_its_own_moment(clean: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yard = clean
    held: list[tuple[Made, dict[str, Path]]] = []
    for number in range(2):
        wanted = Keep(2)
        with oracle(monkeypatch, tmp_path / f"copies{number}") as copies:
            made = yard.backup(keep=wanted)
        assert warned(made) == []
        assert len(wanted.there or ()) == number + 1
        held.append((made, copies))
        yard.little.sh(_OTHER.format(8))

    for number, (made, copies) in enumerate(held):
        assert content(yard, made) == {name: path.read_bytes() for name, path in copies.items()}
        paths, taken = restored(yard, made, tmp_path / f"out{number}")
        same(paths, copies)
        assert taken > 32 * _MIB
    assert kinds(yard) == "bbkkttvvvvwwww"
    assert yard.left() == held[-1][0].checkpoints

    wanted = Keep(0)
    yard.backup(keep=wanted)
    assert (wanted.there, kinds(yard), content(yard, held[0][0])) == ([], "", {})


def test_of_a_guest_that_writes_all_the_time(clean: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing freezes it. What it writes between the filter and the moment comes from the vault."""
    yard, plain = clean, Keeping.enter

    def enter(self: Keeping) -> None:
        plain(self)
        time.sleep(0.5)

    def ask(self: Agent, *_: object, **__: object) -> None:
        raise AgentFailed("as if")

    monkeypatch.setattr(Keeping, "enter", enter)
    monkeypatch.setattr(Agent, "ask", ask)
    yard.little.sh(f"rm -f /run/quiet /run/ended; {_BUSY}; touch /run/ended", wait=False)
    with oracle(monkeypatch, tmp_path / "copies") as copies:
        made = yard.backup(keep=Keep(1))
    paths, taken = restored(yard, made, tmp_path / "out")
    yard.little.sh("touch /run/quiet")
    until(lambda: "ended" in yard.little.sh("ls /run").split(), "the end of what the guest writes")

    same(paths, copies)
    assert content(yard, made)["vda"] != copies["vda"].read_bytes()
    assert taken > 28 * _MIB


def test_a_backup_while_somebody_reads(clean: Yard, tmp_path: Path) -> None:
    """It needs QEMU's one NBD server; he goes on from the vault."""
    yard = clean
    made = yard.backup(keep=Keep(1))
    right = yard.restore(made, tmp_path / "vault")
    with near_of(yard, made) as disks:
        assert set(disks) == {"vda", "vdb"}
        with near_of(yard, made) as second:
            assert second == {}  # one at a time
        assert warned(yard.backup()) == []
        paths, taken = restore_near(yard, made, tmp_path / "out", disks)
    assert taken == 0
    same(paths, right)

    same(restored(yard, made, tmp_path / "again")[0], right)

    with Monitor(yard.env, yard.virsh, yard.way.uuid), near_of(yard, made) as disks:
        assert disks == {}  # a backup has the monitor as long as it runs


def test_who_reads_is_killed(clean: Yard) -> None:
    made = clean.backup(keep=Keep(1))
    there = kinds(clean)
    document = {"machine": f"libvirt:{clean.way.uuid}", "connect": clean.virsh.uri}
    who_reads_is_killed(document, made, OWNER, lambda: _nodes(clean) == there)
    assert set(content(clean, made)) == {"vda", "vdb"}


def _nodes(yard: Yard) -> str:
    with Monitor(yard.env, yard.virsh, yard.way.uuid) as monitor:
        return "".join(sorted(name.kind for name in standing(monitor)))


def killed(yard: Yard, step: str) -> None:
    """A backup that is killed then; nothing that it began runs any more."""
    command = [sys.executable, "-m", "tests.libvirt.dying", yard.folder / "store", yard.virsh.uri, yard.machine.name]
    died = subprocess.run([*map(str, command), str(yard.fleece), step, "1"], check=False, cwd=_ROOT)
    assert died.returncode == -signal.SIGKILL
    yard.quiet()


def test_what_was_begun_when_it_was_killed(clean: Yard) -> None:
    """It comes about later, and goes all the same."""
    killed(clean, "during add-fd")
    assert kinds(clean) == ""


@pytest.mark.parametrize(
    "step",
    [
        "during qom-set",
        *(pytest.param(step, marks=pytest.mark.slow) for step in ("after backup-begin", "after commit")),
    ],
)
def test_killed(clean: Yard, tmp_path: Path, step: str) -> None:
    """What it had begun goes, and what there was before stays."""
    yard = clean
    made = yard.backup(keep=Keep(1))
    right = yard.restore(made, tmp_path / "vault")
    before = kinds(yard).count("w")

    killed(yard, step)

    yard.little.sh(_OTHER.format(4))
    assert not yard.machine.job()
    assert kinds(yard).count("w") == before
    paths, taken = restored(yard, made, tmp_path / "out")
    same(paths, right)
    assert taken > 32 * _MIB
    assert warned(yard.backup(keep=Keep(1))) == []


@pytest.mark.slow
def test_a_backup_that_fails_leaves_those_before(clean: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    yard = clean

    def check(self: Guard) -> None:
        raise SourceFailed("as if")

    with monkeypatch.context() as patched:
        patched.setattr(Guard, "check", check)
        with pytest.raises(SourceFailed, match="as if"):
            yard.backup(keep=Keep(1))
    assert kinds(yard) == ""

    made = yard.backup(keep=Keep(1))
    with monkeypatch.context() as patched:
        patched.setattr(Guard, "check", check)
        with pytest.raises(SourceFailed, match="as if"):
            yard.backup(keep=Keep(1))
    assert kinds(yard) == "bbkkttvvvvww"
    assert set(content(yard, made)) == {"vda", "vdb"}


def test_their_time_is_bounded(clean: Yard) -> None:
    yard = clean
    env, yard.env = yard.env, Later(threads=2)
    try:
        yard.backup(keep=Keep(2))
        Later.ahead = DAY
        first, second = kept_by(yard.env, yard.way, OWNER), Keep(2)
        yard.backup(keep=second)
        Later.ahead = 2 * DAY + 60 * 10**9
        assert (second.there or [])[:1] == first
        assert kept_by(yard.env, yard.way, OWNER) == (second.there or [])[1:]
    finally:
        Later.ahead = 0
        yard.env = env


def test_libvirt_goes_on_meanwhile(clean: Yard, tmp_path: Path) -> None:
    """With what it does by itself, and with what people do by it."""
    yard, daemon, name = clean, clean.little.daemon, clean.machine.name
    made = yard.backup(keep=Keep(1))
    way = yard.way
    daemon.stop()
    with pytest.raises(Gone):  # which says nothing about snapshots
        kept_by(yard.env, way, OWNER)
    daemon.start()
    there = kept_by(yard.env, way, OWNER)
    assert len(there) == 1

    overlay = daemon.folder / "keeper" / "overlay.qcow2"
    where = ["--diskspec", f"vda,file={overlay}", "--diskspec", "vdb,snapshot=no"]
    daemon.virsh("snapshot-create-as", name, "s1", "--disk-only", "--no-metadata", *where)
    daemon.virsh("blockpull", name, "vda", "--wait")  # and libvirt takes away what was beneath

    assert yard.little.sh("date > /a/new; sync; ls /a/new") == "/a/new\n"
    assert kept_by(yard.env, way, OWNER) == there
    right = yard.restore(made, tmp_path / "vault")
    paths, taken = restored(yard, made, tmp_path / "out")
    same(paths, right)
    assert taken > 32 * _MIB

    daemon.virsh("destroy", name)
    yard.little.again()
    with pytest.raises(SourceMissing):
        kept_by(yard.env, way, OWNER)
    assert content(yard, made) == {}
    wanted = Keep(1)
    yard.backup(keep=wanted)
    assert wanted.there == []
    yard.little.start()
    yard.little.agent()
    assert warned(yard.backup(keep=Keep(1)))[1:] == []
