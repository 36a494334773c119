# SPDX-License-Identifier: Apache-2.0
"""Where there is no room for what the guest overwrites, the backup fails and the guest goes on."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keepstone.errors import StorageFull
from keepstone.workloads.kvm import Fleecing
from keepstone.workloads.kvm.guard import Guard
from keepstone.workloads.kvm.qmp import Monitor
from tests.machines.guest import until
from tests.machines.yard import RESERVE, Yard

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of 8 MiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small file system")
    place = tmp_path_factory.mktemp("small")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "small", place], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)  # a QEMU may have a file of it still


@pytest.mark.parametrize("pace", [pytest.param(0.02, id="in time"), pytest.param(1.0, id="too late")])
def test_the_room_ends_while_it_is_read(yard: Yard, small: Path, monkeypatch: pytest.MonkeyPatch, pace: float) -> None:
    before = yard.backup()
    guest, plain = yard.guest, Guard.check
    guest.sh("rm -f /run/done")
    overwriting: list[str] = []
    once = threading.Lock()

    def check(self: Guard) -> None:
        with once:  # several threads read, and an agent talks to one at a time
            if not overwriting:
                overwriting.append(
                    guest.sh(
                        "dd if=/dev/urandom of=/a/old bs=1M count=30 conv=notrunc,fsync && touch /run/done", wait=False
                    )
                )
                until(lambda: self._failure is not None, "the end of the room")
        plain(self)

    with monkeypatch.context() as patched:
        patched.setattr(Guard, "check", check)
        patched.setattr("keepstone.workloads.machines.guard._PACE", pace)
        with pytest.raises(StorageFull, match="no more room"):
            yard.backup(full=True, fleecing=Fleecing(small, RESERVE))

    until(lambda: guest.sh("ls /run").split().count("done"), "the end of what the guest writes", 30)
    assert "error" not in guest.sh("dmesg | tail -n 5")
    assert yard.left() == yard.tokens(before)
    assert os.statvfs(small).f_bfree == os.statvfs(small).f_blocks
    after = yard.backup()
    assert after.warnings == []
    assert 30 << 20 <= after.report.read < 36 << 20


def test_not_begun_where_there_is_no_room(yard: Yard, small: Path) -> None:
    before = yard.backup()

    with pytest.raises(StorageFull, match="has less than 9 MiB free"):
        yard.backup(fleecing=Fleecing(small, 9 << 20))

    assert yard.left() == yard.tokens(before)


def test_a_guest_that_stands_still_though_there_is_room(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems refuse what they have room for; that the guest stands still is enough."""
    plain = Monitor.execute
    told: list[str] = []

    def execute(self: Monitor, command: str, **arguments: Any) -> Any:
        answer = plain(self, command, **arguments)
        if command == "cont":
            told.append(command)
        if command == "query-status" and threading.current_thread() is not threading.main_thread() and not told:
            plain(self, "stop")
            return {"status": "io-error"}
        return answer

    def check(self: Guard) -> None:
        until(lambda: told, "that the guest goes on")
        plain_check(self)

    plain_check = Guard.check
    with monkeypatch.context() as patched:
        patched.setattr(Monitor, "execute", execute)
        patched.setattr(Guard, "check", check)
        with pytest.raises(StorageFull):
            yard.backup(full=True)

    assert yard.left(bitmaps=False) == []  # which looks whether the guest runs
