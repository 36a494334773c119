# SPDX-License-Identifier: Apache-2.0
"""Files out of a point into the guest that runs: whole, as they were, where they belong, and nothing else."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keepstone.errors import AccessDenied, NotFound, TargetExists, Unsupported, UsageError
from keepstone.workloads import Silent
from keepstone.workloads.files import Conflict, Tree
from keepstone.workloads.guestfiles.tree import looking_into
from keepstone.workloads.hypervisors import QemuAddress
from keepstone.workloads.images import PointDisk
from keepstone.workloads.inside.filesback import mounts_of
from keepstone.workloads.inside.guest import Inside
from keepstone.workloads.inside.restore import FOLDER, IntoGuest, Wanted, restore_into_guest
from keepstone.workloads.inside.tidier import Tidier
from keepstone.workloads.kvm.agent import Agent, AgentFailed
from keepstone.workloads.machines import machine_of
from keepstone.workloads.machines.mounts import mounted
from tests.machines.guest import Guest, make_disk, until
from tests.machines.yard import Made, Yard

pytestmark = pytest.mark.vm

HOSTILE = "$(touch owned); `reboot` \"'\\ *\n-rf"
_LISTED = (
    "(find /a -exec stat -c '%n %f %u:%g %Y' {} + | sort; find /a -type f -exec md5sum {} + | sort) | tr '\\377' '?'"
)


_AGENT = (  # anew, with these options
    "p=org.qemu.guest_agent.; old=$(grep -l 'guest_agent[.]0' /proc/[0-9]*/cmdline | cut -d/ -f3 | head -n1);"
    "kill $old; while kill -0 $old 2>/dev/null; do sleep 0.05; done;"
    "qemu-ga -d -m virtio-serial -p /dev/virtio-ports/${{p}}0 -t /run/first -f /run/first/pid {options}"
)


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    folder = tmp_path_factory.mktemp("into")
    disks = [("d0", make_disk(folder / "d0.qcow2", 48)), ("d1", make_disk(folder / "d1.raw", 16, "raw"))]
    with Guest(folder, disks) as guest:
        yield Yard(guest, folder)


@pytest.fixture(scope="module")
def made(yard: Yard) -> Made:
    """A point of a guest that has files of all kinds."""
    yard.guest.sh(
        "cd /a; mkdir -p www/deep empty; dd if=/dev/urandom of=www/big bs=1k count=1500 2>/dev/null;"
        "echo hello > www/deep/small; : > www/nothing; echo x > www/tool; chmod 4751 www/tool; chown 7:8 www/tool;"
        "chmod 4751 www/tool; ln -s ../../etc/passwd www/link; mkfifo www/pipe; chmod 1770 empty; chown 9:9 empty;"
        "touch -d @1000000000 www/big www/deep/small www/deep empty; touch -h -d @1000000000 www/link;"
        "mkdir odd; echo 1 > odd/$(printf '\\377'); echo other > /b/y; ln -s /b away; sync"
    )
    yard.guest.sh(f"mkdir /a/names; echo evil > /a/names/\"$(printf '{_octal(HOSTILE)}')\"; sync")
    return yard.backup()


def _octal(name: str) -> str:
    return "".join(f"\\{ord(char):03o}" for char in name)


@contextlib.contextmanager
def looking(yard: Yard, made: Made) -> Iterator[Tree]:
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(yard.store.reader(made.point))
        disks = {
            disk.name.encode(): stack.enter_context(PointDisk(yard.env, one)) for disk, one in machine_of(reader).disks
        }
        yield stack.enter_context(looking_into(yard.env, disks, made.point.record))


def address(yard: Yard) -> QemuAddress:
    return QemuAddress(yard.guest.qmp, yard.guest.qga)


def restore(yard: Yard, made: Made, *paths: bytes, base: str = "/a", **options: Any) -> IntoGuest:
    conflict = options.pop("conflict", None)
    wanted = [Wanted(path, 2, base, special=options.get("special", True)) for path in paths]
    with looking(yard, made) as tree, Tidier(address(yard)) as tidier, Inside(yard.env, address(yard)) as inside:
        return restore_into_guest(yard.env, tree, inside, tidier, wanted, conflict, options.get("progress", Silent()))


def listed(yard: Yard, folder: str = "/a") -> str:
    """All that is there, with modes, owners, times and content."""
    return yard.guest.sh(_LISTED.replace("/a", folder))


def test_everything_comes_back_as_it_was(yard: Yard, made: Made) -> None:
    before = listed(yard)
    yard.guest.sh("rm -r /a/www /a/names /a/empty /b/y")
    progress = Silent()

    report = restore(yard, made, b"disk0/0/www", b"disk0/0/names", b"disk0/0/empty")
    restore(yard, made, b"disk1/0/y", base="/b", progress=progress)

    assert (report.files, report.folders, report.links, report.bytes) == (5, 4, 1, 1500 * 1024 + 6 + 2 + 5)
    assert report.failed == [("disk0/0/www/pipe", "it is a fifo; only files, folders and links go into a guest")]
    after = listed(yard)
    untouched = ("pipe", "/a ")  # the folder above has another time now
    assert [line for line in before.splitlines() if not any(word in line for word in untouched)] == [
        line for line in after.splitlines() if "/a " not in line
    ]
    assert yard.guest.sh("find / -xdev -name owned; cat /a/names/*") == "evil\n"
    assert yard.guest.sh("cat /b/y") == "other\n"
    yard.guest.sh("mkfifo /a/www/pipe")


def test_one_file_beneath_another_folder(yard: Yard, made: Made) -> None:
    """With the folders on its way; and nobody gets rights by it."""
    yard.guest.sh("mkdir /b/out")

    report = restore(yard, made, b"disk0/0/www/deep/small", b"disk0/0/www/tool", base="/b/out", special=False)

    assert (report.files, report.folders) == (2, 2)
    assert yard.guest.sh("cd /b/out/www; stat -c '%a %u:%g %Y' deep/small tool | cut -d' ' -f1,2; cat deep/small") == (
        "644 0:0\n751 7:8\nhello\n"
    )
    assert yard.guest.sh("stat -c %Y /b/out/www/deep") == "1000000000\n"


def test_what_is_there(yard: Yard, made: Made) -> None:
    guest, path = yard.guest, b"disk0/0/www/deep"
    guest.sh("mkdir -p /b/there/www/deep; echo mine > /b/there/www/deep/small")

    with pytest.raises(TargetExists, match="/b/there/www/deep/small is there in the guest; nothing was written"):
        restore(yard, made, b"disk0/0/names", path, base="/b/there")
    assert guest.sh("ls -A /b/there /b/there/www/deep") == "/b/there:\nwww\n\n/b/there/www/deep:\nsmall\n"

    assert restore(yard, made, path, base="/b/there", conflict=Conflict.SKIP).skipped == 1
    kept = restore(yard, made, path, base="/b/there", conflict=Conflict.KEEP_BOTH).kept
    assert kept == [("disk0/0/www/deep/small", "/b/there/www/deep/small.restored")]
    assert guest.sh("cd /b/there/www/deep; cat small small.restored") == "mine\nhello\n"

    guest.sh("ln -f /b/there/www/deep/small /b/linked")
    assert restore(yard, made, path, base="/b/there", conflict=Conflict.OVERWRITE).files == 1
    assert guest.sh("cat /b/there/www/deep/small /b/linked; ls -A /b/there/www/deep") == (
        "hello\nmine\nsmall\nsmall.restored\n"
    )


def test_a_link_in_the_guest_is_not_gone_through(yard: Yard, made: Made) -> None:
    yard.guest.sh("mkdir -p /b/trap /b/aim/deep; ln -s /b/aim /b/trap/www")

    with pytest.raises(AccessDenied, match="/b/trap/www is a symbolic link in the guest and a folder in the point"):
        restore(yard, made, b"disk0/0/www/deep/small", base="/b/trap", conflict=Conflict.OVERWRITE)

    assert yard.guest.sh("ls -A /b/aim/deep") == ""


def test_what_cannot_be_told_is_left_out(yard: Yard, made: Made) -> None:
    yard.guest.sh("mkdir /b/odd")
    report = restore(yard, made, b"disk0/0/odd", base="/b/odd")

    assert report.failed == [("disk0/0/odd/\\xff", "its name is no UTF-8, and the agent can be told no other")]
    assert report.files == 0


@pytest.mark.parametrize(
    ("path", "base", "kind", "said"),
    [
        (b"disk0/0/none", "/a", NotFound, "has no"),
        (b"disk0/0/www", "/none", NotFound, "the guest has no folder /none"),
        (b"disk0/disk.img", "/a", UsageError, "is a disk"),
        (b"disk0", "/a", UsageError, "is a disk"),
        (b"disk0/0/www/link/x", "/a", UsageError, "link is no folder of the point"),
    ],
)
def test_wrong_paths(yard: Yard, made: Made, path: bytes, base: str, kind: type[Exception], said: str) -> None:
    before = listed(yard)
    with pytest.raises(kind, match=said):
        restore(yard, made, path, base=base)
    assert listed(yard) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, AgentFailed("the guest agent does not answer")])
def test_nothing_is_left_where_it_ends_early(
    yard: Yard, made: Made, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """Not even where an answer was never read: it is not taken for that to the next question."""
    yard.guest.sh("mkdir -p /b/early")
    plain, writes = Agent._answer, []

    def answer(self: Agent, command: str, end: int, *, delimited: bool = False) -> Any:
        if command == "guest-file-write":
            writes.append(command)
            if len(writes) == 2:
                raise error
        return plain(self, command, end, delimited=delimited)

    with monkeypatch.context() as patched:
        patched.setattr(Agent, "_answer", answer)
        with pytest.raises(type(error) if isinstance(error, Exception) else KeyboardInterrupt):
            restore(yard, made, b"disk0/0/www/big", base="/b/early")

    assert yard.guest.sh("find /b/early -type f; ls -A /b/early/www; rm -r /b/early/www") == ""


def test_an_answer_that_was_not_read(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not taken for that to the next question."""
    plain = Agent._answer

    def interrupted(self: Agent, command: str, end: int, *, delimited: bool = False) -> Any:
        if command == "guest-exec-status":
            raise KeyboardInterrupt
        return plain(self, command, end, delimited=delimited)

    with Inside(yard.env, address(yard)) as inside:
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(Agent, "_answer", interrupted)
            inside.run("echo", "one")

        assert inside.run("echo", "two") == (0, "two\n")


def test_killed(yard: Yard, made: Made) -> None:
    """A process of its own takes away what it had there."""
    yard.guest.sh("mkdir -p /b/killed")
    machine = (yard.guest.qmp, yard.guest.qga)
    command = [sys.executable, "-m", "tests.machines.intoguest", yard.folder / "store", *machine, made.point.id]
    process = subprocess.Popen([*map(str, command), "disk0/0/www", "/b/killed"], cwd=Path(__file__).parents[2])

    assert process.wait(60) == -signal.SIGKILL

    until(lambda: FOLDER not in yard.guest.sh("ls -AR /b/killed"), "the end of what it had in the guest", 20)
    assert "/b/killed/www:\n" in yard.guest.sh("ls -AR /b/killed")
    assert yard.guest.sh("find /b/killed -type f; rm -r /b/killed") == ""


def test_what_somebody_left_who_was_killed(yard: Yard, made: Made) -> None:
    yard.guest.sh(f"mkdir -p /b/left/www/deep/{FOLDER}; echo half > /b/left/www/deep/{FOLDER}/0; ln -s /a /b/left/x")

    assert restore(yard, made, b"disk0/0/www/deep", base="/b/left").files == 1

    assert yard.guest.sh("ls -A /b/left/www/deep") == "small\n"


def test_a_disk_of_the_guest_that_is_full(yard: Yard, made: Made) -> None:
    """The file is not there, and the rest is."""
    yard.guest.sh("mkdir /run/full; mount -t tmpfs -o size=1m none /run/full")
    try:
        report = restore(yard, made, b"disk0/0/www", base="/run/full")
        left = yard.guest.sh("ls -A /run/full/www")
    finally:
        yard.guest.sh("umount /run/full; rmdir /run/full")

    assert [path for path, _ in report.failed] == ["disk0/0/www/pipe", "disk0/0/www/big"]
    assert left == "deep\nlink\nnothing\ntool\n"


def test_where_a_volume_is_mounted(yard: Yard) -> None:
    with Inside(yard.env, address(yard)) as inside:
        mounts = mounts_of(yard.env, address(yard), inside)
        assert [mounted(mounts, disk, "0") for disk in ("disk0", "disk1")] == ["/a", "/b"]
        for disk, volume in (("disk0", "1"), ("disk7", "0"), ("disk0", "vg-root")):
            with pytest.raises(NotFound, match="nowhere that can be seen"):
                mounted(mounts, disk, volume)
        yard.guest.sh("mkdir /run/again; mount -t ext4 /dev/vda /run/again")
        try:
            with pytest.raises(NotFound, match="at /a and /run/again in the guest; say by --guest-target"):
                mounted(mounts_of(yard.env, address(yard), inside), "disk0", "0")
        finally:
            yard.guest.sh("umount /run/again")


def test_an_agent_that_does_not_allow_it(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real agent, started with a list of what it refuses; and the answer of one on another system."""
    guest = yard.guest
    guest.sh(_AGENT.format(options="-b guest-exec,guest-file-open"))
    try:
        with pytest.raises(AccessDenied, match="does not allow guest-exec, guest-file-open; allow that in the guest"):
            Inside(yard.env, address(yard))
    finally:
        guest.sh(_AGENT.format(options="-F/hook"))
    plain = Agent.ask

    def ask(self: Agent, command: str, **arguments: Any) -> Any:
        return {"id": "mswindows"} if command == "guest-get-osinfo" else plain(self, command, **arguments)

    monkeypatch.setattr(Agent, "ask", ask)
    with pytest.raises(Unsupported, match="Linux guests only"):
        Inside(yard.env, address(yard))


def test_no_agent(yard: Yard, tmp_path: Path) -> None:
    with pytest.raises(AgentFailed, match="is not there"):
        Inside(yard.env, QemuAddress(yard.guest.qmp, tmp_path / "none"))
