# SPDX-License-Identifier: Apache-2.0
"""What the agent asks of its operating system beyond files: the only module of the agent that knows which one it is.

What there is on Linux, and what stands for it on Windows:

| here | Linux | Windows |
|---|---|---|
| `lower_priority` | nice(2), ioprio_set(2) | a lower priority class, which lowers I/O as well |
| `start`, `end` | a session of its own; signals to its group | a process group; `taskkill /T` |
| `only_ours` | owner and mode | always true: files inherit the access lists of their folder |
| `unreal` | `/proc`, `/sys` | none |
| `is_device` | block and character devices | the names `\\\\.\\…` |
| `folders` | FHS for root, else this user's | `%ProgramData%\\Keepstone` |

Nobody else in `agent/` and `remote/` may call what only POSIX has; a test holds it.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import platform
import socket
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from keepstone.env import Env
from keepstone.errors import AccessDenied

if sys.platform != "win32":
    import signal

    _LOOK = os.WEXITED | os.WNOWAIT | os.WNOHANG

__all__ = [
    "Folders",
    "IoClass",
    "Machine",
    "end",
    "folders",
    "is_device",
    "lower_priority",
    "machine",
    "only_ours",
    "start",
    "tune",
    "unreal",
]

_log = logging.getLogger(__name__)
IoClass = Literal["normal", "low", "idle"]
_PAUSE = 0.01  # seconds between looks at a process that is to end

# ioprio_set(2): the number of the call by machine, and its constants
_IOPRIO_SET = {"x86_64": 251, "i686": 289, "aarch64": 30, "riscv64": 30, "armv7l": 314, "ppc64le": 273, "s390x": 282}
_WHO_PROCESS = 1
_CLASS_SHIFT = 13
_IO_PRIORITIES = {"low": (2 << _CLASS_SHIFT) | 7, "idle": 3 << _CLASS_SHIFT}  # best effort, the last level; idle


def lower_priority(nice: int, io: IoClass) -> None:
    """Let others go first, for this thread and those that it starts from now on: called once, before there are more.

    `nice`: 0 to 19, as nice(1). What the system does not allow is told in the log, and is no failure.
    """
    if sys.platform == "win32":
        if nice or io != "normal":
            # PROCESS_MODE_BACKGROUND_BEGIN lowers CPU, I/O and memory at once
            ctypes.windll.kernel32.SetPriorityClass(ctypes.windll.kernel32.GetCurrentProcess(), 0x00100000)
        return
    try:
        if nice > os.getpriority(os.PRIO_PROCESS, 0):
            os.setpriority(os.PRIO_PROCESS, 0, nice)
    except OSError as error:
        _log.warning("this process stays at its priority: %s", error)
    number = _IOPRIO_SET.get(platform.machine())
    if io != "normal" and number is not None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syscall(ctypes.c_long(number), _WHO_PROCESS, 0, _IO_PRIORITIES[io]):
            _log.warning("this process stays at its priority for disks: %s", os.strerror(ctypes.get_errno()))


def tune() -> None:
    """Settings of a process that moves much data (`cli/process.py`)."""
    if sys.platform != "win32":
        from keepstone.cli import process

        process.tune()


def start(
    argv: Sequence[str],
    environ: Mapping[str, str],
    *,
    given: int = subprocess.DEVNULL,
    errors: int | None = subprocess.STDOUT,
) -> subprocess.Popen[bytes]:
    """Run a command at the root of the file system, in a group of its own, without a terminal, so that `end` ends all
    of it and Ctrl-C does not. Its output is a pipe. `given`: its standard input; `errors`: where its errors go, None
    for ours. `OSError` where there is no such command."""
    flags, session = 0, True
    if sys.platform == "win32":
        flags, session = subprocess.CREATE_NEW_PROCESS_GROUP, False
    return subprocess.Popen(
        [*argv],
        cwd=Path(sys.executable).anchor,
        env=dict(environ),
        stdin=given,
        stdout=subprocess.PIPE,
        stderr=errors,
        creationflags=flags,
        start_new_session=session,
    )


def end(env: Env, process: subprocess.Popen[bytes], patience: float) -> None:
    """End a command that nobody has waited for yet, and all that it started: politely at first, by force when it has
    ended, at the latest after `patience` seconds. On Linux those that made a session of their own are not of it."""
    if sys.platform == "win32":
        command = ["taskkill", "/F", "/T", "/PID", str(process.pid)]
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    elif process.returncode is None:
        _signal(process.pid, signal.SIGTERM)
        until = env.boot_time() + int(patience * 1e9)
        # As long as nobody has waited for it its number is no other group's.
        while env.boot_time() < until and os.waitid(os.P_PID, process.pid, _LOOK) is None:
            env.sleep(_PAUSE)
        _signal(process.pid, signal.SIGKILL)
    process.wait()


def _signal(group: int, number: int) -> None:
    """The group of a command has the number of its first process, also when only later ones still run."""
    if sys.platform != "win32":
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            pass
        except PermissionError as error:  # it became somebody else's, and this one may not signal those
            _log.warning("process group %d cannot be signalled: %s", group, error)


def only_ours(path: Path) -> None:
    """`AccessDenied` where somebody else than this user and root may write to this file, or to its folder."""
    if sys.platform == "win32":
        return
    for place in (path, path.parent):
        found = place.stat()
        sticky = place is not path and found.st_mode & stat.S_ISVTX
        if found.st_uid not in (0, os.geteuid()) or (found.st_mode & 0o022 and not sticky):
            raise AccessDenied(
                f"others may write to {place}, and {path} says what this machine runs and allows; "
                f"make it root's alone: `chown root {place}` and `chmod go-w {place}`"
            )


def unreal() -> tuple[Path, ...]:
    """Folders that show the kernel, not files: the memory of this machine and of its processes, with their secrets."""
    return () if sys.platform == "win32" else (Path("/proc"), Path("/sys"))


def is_device(path: Path) -> bool:
    """Whether this is a device, so that whoever reads it has what is in all the files on it."""
    if sys.platform == "win32":
        return str(path).startswith("\\\\.\\")
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise AccessDenied(f"{path}: {error.strerror}; check its owner and permissions") from error
    return stat.S_ISBLK(mode) or stat.S_ISCHR(mode)


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """`configuration`: the file that this machine's administrator writes. `state`: keys and certificates, and what the
    agent must not forget. `cache`: what it can do without. `restored`: where restores go unless more is allowed."""

    configuration: Path
    state: Path
    cache: Path
    restored: Path


def folders(environ: Mapping[str, str] | None = None) -> Folders:
    """Where the agent has its things; `KEEPSTONE_HOME` moves all of them."""
    environ = os.environ if environ is None else environ
    if home := environ.get("KEEPSTONE_HOME"):
        root = Path(home).absolute() / "agent"
        return _beneath(root)
    if sys.platform == "win32":
        return _beneath(Path(environ.get("ProgramData", "C:\\ProgramData")) / "Keepstone" / "agent")
    if os.geteuid() == 0:
        return Folders(
            configuration=Path("/etc/keepstone/agent.toml"),
            state=Path("/var/lib/keepstone-agent"),
            cache=Path("/var/cache/keepstone-agent"),
            restored=Path("/var/lib/keepstone-restored"),
        )
    import platformdirs

    return Folders(
        configuration=Path(platformdirs.user_config_dir("keepstone", appauthor=False)) / "agent.toml",
        state=Path(platformdirs.user_state_dir("keepstone", appauthor=False)) / "agent",
        cache=Path(platformdirs.user_cache_dir("keepstone", appauthor=False)) / "agent",
        restored=Path(platformdirs.user_data_dir("keepstone", appauthor=False)) / "restored",
    )


def _beneath(root: Path) -> Folders:
    return Folders(
        configuration=root / "etc" / "agent.toml",
        state=root / "state",
        cache=root / "cache",
        restored=root / "restored",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a service is told of this machine. `name`: as it calls itself. `system`: for people."""

    name: str
    system: str
    processors: int


def machine() -> Machine:
    """This one."""
    return Machine(name=socket.gethostname(), system=_system(), processors=os.cpu_count() or 1)


def _system() -> str:
    if sys.platform == "win32":
        return f"Windows {platform.release()} {platform.version()}"
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        name = platform.system()
    return f"{name}, {platform.system()} {platform.release()}"
