# SPDX-License-Identifier: Apache-2.0
"""What the agent asks of its system: on this one, and what stands for it on another one."""

from __future__ import annotations

import os
import platform
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from keepstone.agent import system
from keepstone.env import Env
from keepstone.errors import AccessDenied
from keepstone.notifier import Notifier

from .clock import Clock

pytestmark = pytest.mark.agents
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@contextmanager
def manager(address: str) -> Iterator[socket.socket]:
    """A service manager that listens; `@…` is an abstract name."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        listener.settimeout(5)
        yield listener


def heard(listener: socket.socket) -> list[str]:
    """All that was told."""
    listener.setblocking(False)
    found = []
    try:
        while True:
            found.append(listener.recv(4096).decode())
    except BlockingIOError:
        return found


@pytest.mark.parametrize("abstract", [False, True])
def test_the_manager_hears_how_it_is(tmp_path: Path, abstract: bool) -> None:
    address = f"@keepstone-{secrets.token_hex(8)}" if abstract else str(tmp_path / "notify")
    environ = {"NOTIFY_SOCKET": address, "OTHER": "kept"}
    with manager(address) as listener:
        notifier = Notifier(Env(), environ)
        notifier.ready("waits for\njobs")
        notifier.status("backs up /srv")
        notifier.alive()  # nobody watches
        notifier.stopping()

        assert heard(listener) == ["READY=1\nSTATUS=waits for jobs", "STATUS=backs up /srv", "STOPPING=1"]
    assert environ == {"OTHER": "kept"}, "commands do not speak for the agent"
    assert notifier.watchdog is None


def test_the_watchdog_is_fed_four_times_within_its_time(tmp_path: Path) -> None:
    address, clock = str(tmp_path / "notify"), Clock(NOW)
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}
    with manager(address) as listener:
        notifier = Notifier(clock, environ)
        for _ in range(600):
            notifier.alive()
            clock.go(0.1)

        assert notifier.watchdog == 60
        assert heard(listener) == ["WATCHDOG=1"] * 4
    assert environ == {}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "1000"},
        {"NOTIFY_SOCKET": "/nowhere/notify", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
        {"NOTIFY_SOCKET": "vsock:2:1234", "WATCHDOG_USEC": "soon"},
    ],
)
def test_nobody_watches(environ: dict[str, str]) -> None:
    notifier = Notifier(Env(), environ)

    notifier.ready("x")
    notifier.alive()
    assert notifier.watchdog is None


def test_a_manager_that_is_gone_is_no_failure(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    notifier = Notifier(Env(), {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000"})

    notifier.ready()
    notifier.alive()

    assert notifier.watchdog == 0.001


def test_others_go_first() -> None:
    program = (
        "import ctypes, os\n"
        "from keepstone.agent.system import lower_priority\n"
        "lower_priority(7, 'idle')\n"
        "number = {'x86_64': 252, 'aarch64': 31}[os.uname().machine]\n"  # ioprio_get(2)
        "print(os.getpriority(os.PRIO_PROCESS, 0), ctypes.CDLL(None).syscall(number, 1, 0) >> 13)\n"
        "lower_priority(0, 'normal')\n"
        "print(os.getpriority(os.PRIO_PROCESS, 0))\n"
    )
    if platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip("this test knows the number of ioprio_get for x86_64 and aarch64 only")

    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert ran.stdout.split() == ["7", "3", "7"]


def test_a_file_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch(0o644)
    path.chmod(0o644)
    system.only_ours(path)
    for place, mode in ((path, 0o666), (path, 0o664), (tmp_path, 0o777)):
        before = place.stat().st_mode
        place.chmod(mode)
        with pytest.raises(AccessDenied, match=f"others may write to {place},"):
            system.only_ours(path)
        place.chmod(before)
    tmp_path.chmod(0o1777)  # as /tmp: nobody can put another file in its place
    system.only_ours(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_somebody_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch(0o600)
    os.chown(path, 12345, 0)

    with pytest.raises(AccessDenied):
        system.only_ours(path)


def test_devices(tmp_path: Path) -> None:
    assert system.is_device(Path("/dev/null"))
    assert not system.is_device(tmp_path)
    assert not system.is_device(tmp_path / "nothing" / "here")


def test_folders_can_be_moved_all_at_once(tmp_path: Path) -> None:
    found = system.folders({"KEEPSTONE_HOME": str(tmp_path)})

    places = [found.configuration, found.state, found.cache, found.restored]
    assert all(place.is_relative_to(tmp_path / "agent") for place in places)
    assert found.configuration.parent not in (found.restored.parent, found.state.parent), "no restore goes there"


def test_what_this_machine_is() -> None:
    found = system.machine()

    assert found.name == socket.gethostname()
    assert found.processors >= 1
    assert platform.system() in found.system


# What a Python on Windows has not; there it is `AttributeError` or `ImportError`.
WINDOWS = """
import os, signal, socket, subprocess, sys
import asyncio, ctypes, logging, msgspec, pathlib, platform, tomllib, uuid  # of which some look at the platform
import keepstone.env, keepstone.workloads.files  # rooms below, which have their own time for Windows

sys.platform = "win32"
for name in ("fork", "killpg", "getpgid", "setsid", "geteuid", "getuid", "setpriority", "getpriority", "nice", "uname",
             "sysconf", "waitid", "WNOWAIT", "chown", "mkfifo", "sched_getaffinity", "statvfs", "pread"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGKILL", "SIGHUP"):
    delattr(signal, name)
del socket.AF_UNIX
for name in ("fcntl", "pwd", "grp", "resource", "termios"):
    sys.modules[name] = None
subprocess.CREATE_NEW_PROCESS_GROUP = 0

from pathlib import Path
from keepstone.agent import commands, configuration, limits, paths, system
from keepstone.notifier import Notifier

class Env:
    boot_time = wall_time = lambda self: 0

notifier = Notifier(Env(), {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "1000"})
notifier.ready("x"); notifier.status("x"); notifier.stopping()
system.lower_priority(0, "normal")
system.only_ours(Path("nowhere"))
assert system.unreal() == ()
assert system.is_device(Path("\\\\\\\\.\\\\PhysicalDrive0"))
assert "Keepstone" in str(system.folders({"ProgramData": "data"}).state)
assert system.machine().system.startswith("Windows")
print("well")
"""


def test_it_stands_where_there_is_no_posix() -> None:
    """As far as one can see from here: the names that only POSIX has are gone, and the modules import and answer."""
    ran = subprocess.run([sys.executable, "-c", WINDOWS], capture_output=True, text=True, check=False)

    assert (ran.stdout, ran.stderr) == ("well\n", "")
