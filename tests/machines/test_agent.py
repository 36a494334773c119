# SPDX-License-Identifier: Apache-2.0
"""Agents that hang, refuse or are not there: the guest is thawed in the end, and the point is called what it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from keepstone.disks.nbd import NbdSource
from keepstone.env import Env
from keepstone.errors import SourceFailed
from keepstone.workloads.kvm import Qemu
from keepstone.workloads.kvm.freeze import frozen
from keepstone.workloads.machines import Level
from tests.machines.guest import Guest, agent_until, make_disk, monitor, until
from tests.machines.yard import Yard

pytestmark = pytest.mark.vm


@pytest.fixture(autouse=True)
def thawed(yard: Yard) -> Iterator[None]:
    """The guest goes on after each of these tests."""
    yield
    yard.guest.sh("rm -f /run/slow-*; date > /a/after; sync")
    agent_until(yard.guest.qga, "thawed", 20)


def test_an_agent_that_hangs_in_the_freeze(yard: Yard) -> None:
    guest, env = yard.guest, Env()
    guest.sh("echo 2 > /run/slow-freeze")
    warnings: list[str] = []
    moments: list[int] = []
    begun = env.boot_time()

    consistency = frozen(env, guest.qga, lambda: moments.append(env.boot_time()), warnings.append, answer=2, freeze=0.3)

    assert env.boot_time() - begun < 2 * 10**9
    assert len(moments) == 1
    assert (consistency.level, consistency.reason) == (
        Level.CRASH,
        "the guest agent does not answer guest-fsfreeze-freeze",
    )
    assert warnings == ["the guest agent does not answer when it is to thaw; a process of its own goes on trying"]
    # The freeze comes about in two seconds; the command that waits behind it undoes it at once.


def test_an_agent_that_hangs_in_the_thaw(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keepstone.workloads.machines.stillness._THAW", 0.5)
    yard.guest.sh("echo 2 > /run/slow-thaw")
    warnings: list[str] = []

    consistency = frozen(Env(), yard.guest.qga, lambda: None, warnings.append)

    assert consistency.level is Level.CRASH
    assert consistency.reason == "the guest agent does not say whether the guest stayed frozen"
    assert len(warnings) == 1


def test_a_moment_that_fails(yard: Yard) -> None:
    def fails() -> None:
        raise SourceFailed("QEMU refuses transaction")

    with pytest.raises(SourceFailed, match="QEMU refuses transaction"):
        frozen(Env(), yard.guest.qga, fails, lambda message: None)

    agent_until(yard.guest.qga, "thawed", 2)


def test_interrupted_in_the_moment(yard: Yard) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        frozen(Env(), yard.guest.qga, interrupted, lambda message: None)

    agent_until(yard.guest.qga, "thawed", 2)


def test_a_machine_without_an_agent(yard: Yard, tmp_path: Path) -> None:
    made = yard.backup(qemu=Qemu(yard.guest.qmp, tmp_path / "none"))

    about = made.machine.about
    assert about.consistency.level is Level.CRASH
    assert "is not there" in about.consistency.reason


def test_an_agent_that_does_not_answer(yard: Yard) -> None:
    first = yard.guest.sh("pidof qemu-ga | tr ' ' '\\n' | sort -n | head -n1").strip()
    yard.guest.sh(f"kill -STOP {first}")
    try:
        consistency = frozen(Env(), yard.guest.qga, lambda: None, lambda message: None, answer=1)
    finally:
        yard.guest.sh(f"kill -CONT {first}")

    assert consistency.level is Level.CRASH
    assert consistency.reason == "the guest agent does not answer guest-sync-delimited"


@pytest.mark.slow
def test_a_guest_that_has_shut_down(tmp_path: Path) -> None:
    """QEMU is still there, and nothing uses the disks."""
    with Guest(tmp_path, [("d0", make_disk(tmp_path / "d0.qcow2", 16))], extra=["-no-shutdown"]) as guest:
        yard = Yard(guest, tmp_path)
        yard.backup()
        guest.sh("touch /run/off", wait=False)
        with monitor(guest.qmp) as ask:
            until(lambda: ask("query-status")["status"] == "shutdown", "the end of the guest", 30)
        made = yard.backup()

    assert made.warnings == []
    assert made.machine.about.consistency.level is Level.FILE_SYSTEM


def test_a_machine_that_ends_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Guest(tmp_path, [("d0", make_disk(tmp_path / "d0.qcow2", 16))], boots=False) as guest:
        yard = Yard(guest, tmp_path)
        first = yard.backup()
        plain = NbdSource.pread_into

        def read(self: NbdSource, buffer: memoryview, offset: int) -> int:
            guest.process.kill()
            guest.process.wait()
            return plain(self, buffer, offset)

        with monkeypatch.context() as patched:
            patched.setattr(NbdSource, "pread_into", read)
            with pytest.raises(SourceFailed):
                yard.backup(full=True)

    assert [point.id for point in yard.store.points.list()] == [first.point.id]
    assert yard.store.verify(deep=True).ok
    with Guest(tmp_path, guest.disks, boots=False) as again:
        made = Yard(again, tmp_path, store=yard.store).backup()
    assert made.report.read == first.report.read
    assert len(made.warnings) == 1
