# SPDX-License-Identifier: Apache-2.0
"""Files out of a point into a guest of libvirt that runs, by its agent."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keepstone.errors import Conflict as Busy
from keepstone.errors import NotFound, SourceFailed
from keepstone.workloads import Silent
from keepstone.workloads.files import Conflict
from keepstone.workloads.guestfiles.tree import guest_reader
from keepstone.workloads.hypervisors import LibvirtAddress
from keepstone.workloads.inside import IntoGuest, files_back
from keepstone.workloads.inside.guest import Inside
from keepstone.workloads.inside.restore import FOLDER
from keepstone.workloads.inside.tidier import Tidier
from keepstone.workloads.libvirt.channel import Channel
from keepstone.workloads.machines.stillness import AgentFailed, AgentRefused
from tests.libvirt.still import Still
from tests.libvirt.yard import Made, Yard
from tests.machines.guest import until

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def made(yard: Yard) -> Made:
    """A point of a guest that has files on both disks."""
    yard.little.sh(
        "cd /a; mkdir -p www/deep; dd if=/dev/urandom of=www/big bs=1k count=900 2>/dev/null;"
        "echo hello > www/deep/one;"
        "chown 7:8 www/deep/one; chmod 4640 www/deep/one; touch -d @1000000000 www/deep/one www/big;"
        "echo two > '/b/a file'; sync"
    )
    return yard.backup()


def address(yard: Yard) -> LibvirtAddress:
    """By its name, as people say it."""
    return LibvirtAddress(yard.little.name, yard.virsh.uri)


def restore(yard: Yard, made: Made, *paths: bytes, target: str | None = None, **options: Any) -> IntoGuest:
    with yard.store.reader(made.point) as reader, guest_reader(yard.env, reader) as guest:
        return files_back(
            yard.env, guest, address(yard), paths, 2, target, options.get("conflict"), options.get("progress", Silent())
        )


def test_to_where_they_were(yard: Yard, made: Made) -> None:
    listed = "find /a/www /b -type f -exec stat -c '%n %f %u:%g %Y' {} + -exec md5sum {} + | sort"
    before = yard.little.sh(listed)
    yard.little.sh("rm -r /a/www '/b/a file'")

    report = restore(yard, made, b"vda/0/www", b"vdb/0/a file")

    assert (report.files, report.folders, report.failed) == (3, 2, [])
    assert yard.little.sh(listed) == before
    assert yard.little.sh(f"find /a /b -name {FOLDER}") == ""


def test_beneath_another_folder(yard: Yard, made: Made) -> None:
    yard.little.sh("mkdir -p /b/out/www/deep; echo mine > /b/out/www/deep/one")

    assert restore(yard, made, b"vda/0/www/deep", target="/b/out", conflict=Conflict.SKIP).skipped == 1
    assert restore(yard, made, b"vda/0/www/deep", target="/b/out", conflict=Conflict.OVERWRITE).files == 1

    assert yard.little.sh("stat -c '%a %u:%g' /b/out/www/deep/one; cat /b/out/www/deep/one") == "640 7:8\nhello\n"


def test_a_volume_that_is_mounted_nowhere(yard: Yard, made: Made) -> None:
    with pytest.raises(NotFound, match="volume 3 of vda is mounted nowhere"):
        restore(yard, made, b"vda/3/www")


def test_nobody_reads_what_is_restored(yard: Yard, made: Made) -> None:
    """A command line is everybody's: what a file has is in none."""
    lines: set[bytes] = set()

    class Looking(Silent):
        def advance(self, size: int, files: int = 0, reused: int = 0) -> None:
            super().advance(size, files, reused)
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    lines.add(process.read_bytes())
                except OSError:
                    continue

    restore(yard, made, b"vda/0/www/deep/one", target="/b", progress=Looking())

    assert any(yard.virsh.uri.encode() in line and b"channel.py" in line for line in lines)
    assert not [line for line in lines if b"guest-file-write" in line or b"aGVsbG8K" in line]
    yard.little.sh("rm -r /b/www")


def test_one_at_a_time(yard: Yard, made: Made) -> None:
    """Two would have one folder in the guest."""
    held: list[str] = []

    class Another(Silent):
        def advance(self, size: int, files: int = 0, reused: int = 0) -> None:
            super().advance(size, files, reused)
            if size and not held:
                with pytest.raises(Busy, match="files are put back into the guest of little already") as caught:
                    restore(yard, made, b"vda/0/www/deep", target="/b")
                held.append(str(caught.value))

    restore(yard, made, b"vda/0/www/big", target="/b", progress=Another())
    assert held
    restore(yard, made, b"vda/0/www/deep", target="/b")  # and at once after
    yard.little.sh("rm -r /b/www")


def test_killed(yard: Yard, made: Made) -> None:
    """Somebody takes away what it had in the guest, and nobody else is let in before."""
    yard.little.sh("mkdir /b/killed")
    child = os.fork()
    if not child:
        try:

            class Dying(Silent):
                def advance(self, size: int, files: int = 0, reused: int = 0) -> None:
                    if size:
                        os.kill(os.getpid(), signal.SIGKILL)

            restore(yard, made, b"vda/0/www", target="/b/killed", progress=Dying())
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL

    until(lambda: _restored(yard, made), "the end of what the first one had", 30)

    assert yard.little.sh(f"find /b/killed -name {FOLDER}; cat /b/killed/www/deep/one; rm -r /b/killed") == "hello\n"


def _restored(yard: Yard, made: Made) -> bool:
    try:
        return restore(yard, made, b"vda/0/www", target="/b/killed", conflict=Conflict.OVERWRITE).files == 2
    except Busy:
        return False


def test_the_tidier_waits_for_what_was_asked(yard: Yard) -> None:
    """What talks to libvirt for us has its pipe: so it does not tidy up before that has ended."""
    with Tidier(address(yard)) as tidier, Inside(yard.env, address(yard), holding=[tidier.pipe]):
        pipe = os.readlink(f"/proc/self/fd/{tidier.pipe}")
        assert any(_speaks_with(process, pipe) for process in Path("/proc").glob("[0-9]*"))


def _speaks_with(process: Path, pipe: str) -> bool:
    """Whether this is who talks to libvirt for somebody, and has this pipe."""
    try:
        speaks = b"channel.py" in (process / "cmdline").read_bytes()
        return speaks and pipe in [os.readlink(fd) for fd in (process / "fd").iterdir()]
    except OSError:  # it has ended
        return False


def test_what_the_agent_and_libvirt_refuse(yard: Yard) -> None:
    uuid = yard.virsh.ask("domuuid", yard.little.name).strip()
    channel = Channel(yard.env, yard.virsh.uri, uuid, timeout=10)
    try:
        with pytest.raises(AgentRefused, match="unable to execute QEMU agent command"):
            channel.ask("guest-nonsense", timeout=10)
        with pytest.raises(AgentRefused, match="/none"):
            channel.ask("guest-file-open", timeout=10, path="/none/x", mode="wb")
        told = channel.ask("guest-exec", timeout=10, path="true")
        assert isinstance(told["pid"], int)
    finally:
        channel.close()
    with pytest.raises(AgentFailed, match=r"[Dd]omain not found"):
        Channel(
            yard.env, yard.virsh.uri, uuid.translate(str.maketrans("0123456789abcdef", "123456789abcdef0")), timeout=10
        )
    with pytest.raises(AgentFailed, match=r"[Ff]ailed to connect"):
        Channel(yard.env, "qemu:///session?socket=/none", uuid, timeout=10)


def test_an_agent_that_does_not_answer(yard: Yard) -> None:
    first = yard.little.sh("pidof qemu-ga | tr ' ' '\\n' | sort -n | head -n1").strip()
    uuid = yard.virsh.ask("domuuid", yard.little.name).strip()
    channel = Channel(yard.env, yard.virsh.uri, uuid, timeout=10)
    yard.little.sh(f"kill -STOP {first}")
    try:
        with pytest.raises(AgentFailed, match=r"not responding|does not answer"):
            channel.ask("guest-ping", timeout=1)
    finally:
        yard.little.sh(f"kill -CONT {first}")
        channel.close()
    yard.little.agent()


@pytest.fixture
def still(yard: Yard, tmp_path: Path) -> Iterator[Still]:
    still = Still(yard.little.daemon, tmp_path, "silent")
    yield still
    still.close()


def test_a_machine_without_an_agent(yard: Yard, still: Still) -> None:
    there = LibvirtAddress("silent", yard.virsh.uri)
    with pytest.raises(SourceFailed, match=r"libvirt:silent has no channel org.qemu.guest_agent.0"):
        Inside(yard.env, there)
    yard.little.daemon.virsh("destroy", "silent")
    with pytest.raises(SourceFailed, match="libvirt:silent is off"):
        Inside(yard.env, there)
