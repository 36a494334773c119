# SPDX-License-Identifier: Apache-2.0
"""Only `agent/system.py` knows which system there is: nobody else in these rooms names what POSIX alone has."""

from __future__ import annotations

import ast
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import keepstone

pytestmark = pytest.mark.agents
ROOMS = ("agent", "remote")
PACKAGE = Path(keepstone.__file__).parent
MODULES = sorted(
    path for room in ROOMS for path in (PACKAGE / room).rglob("*.py") if path != PACKAGE / "agent" / "system.py"
)

# The standard library's documentation, "Availability": of modules, and of names in modules that are everywhere.
POSIX_MODULES = {
    "crypt", "curses", "fcntl", "grp", "nis", "ossaudiodev", "posix", "pty", "pwd", "readline", "resource", "spwd",
    "syslog", "termios", "tty", "uvloop",
}  # fmt: skip
EVERYWHERE = {
    "os": {
        "F_OK", "O_APPEND", "O_BINARY", "O_CREAT", "O_EXCL", "O_NOINHERIT", "O_RANDOM", "O_RDONLY", "O_RDWR",
        "O_SEQUENTIAL", "O_SHORT_LIVED", "O_TEMPORARY", "O_TEXT", "O_TRUNC", "O_WRONLY", "PathLike", "R_OK", "SEEK_CUR",
        "SEEK_END", "SEEK_SET", "W_OK", "X_OK", "_exit", "abc", "abort", "access", "add_dll_directory", "altsep",
        "chdir", "chmod", "close", "closerange", "cpu_count", "curdir", "defpath", "device_encoding", "devnull", "dup",
        "dup2",
        "environ", "error", "execl", "execv", "execve", "extsep", "fdopen", "fsdecode", "fsencode", "fspath", "fstat",
        "fsync", "ftruncate", "get_exec_path", "get_inheritable", "get_terminal_size", "getcwd", "getcwdb", "getenv",
        "getlogin", "getpid", "getppid", "isatty", "kill", "linesep", "link", "listdir", "lseek", "lstat", "makedirs",
        "mkdir", "name", "open", "pardir", "path", "pathsep", "pipe", "popen", "putenv", "read", "readlink", "remove",
        "removedirs", "rename", "renames", "replace", "rmdir", "scandir", "sep", "set_inheritable", "stat",
        "stat_result", "strerror", "supports_dir_fd", "supports_effective_ids", "supports_fd",
        "supports_follow_symlinks", "symlink", "system", "terminal_size", "times", "truncate", "umask", "unlink",
        "unsetenv", "urandom", "utime", "waitpid", "waitstatus_to_exitcode", "walk", "write", "DirEntry",
    },
    "signal": {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM", "SIG_DFL", "SIG_IGN", "Signals",
               "Handlers", "default_int_handler", "getsignal", "raise_signal", "set_wakeup_fd", "signal", "strsignal",
               "valid_signals"},
}  # fmt: skip
POSIX_NAMES = {
    "socket": {"AF_UNIX", "AF_NETLINK", "AF_PACKET", "SOCK_CLOEXEC", "SOCK_NONBLOCK", "socketpair", "sethostname",
               "CMSG_LEN", "SCM_RIGHTS", "send_fds", "recv_fds"},
    "asyncio": {"open_unix_connection", "start_unix_server"},
    "time": {"clock_gettime", "clock_gettime_ns", "CLOCK_BOOTTIME", "CLOCK_MONOTONIC", "tzset"},
    "shutil": {"chown"},
    "platform": {"freedesktop_os_release"},
}  # fmt: skip
POSIX_ARGUMENTS = {"preexec_fn", "start_new_session", "process_group", "pass_fds", "dir_fd", "close_fds"}


def offences(tree: ast.Module) -> Iterator[str]:
    """What of a module only POSIX has, with its line."""
    modules: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                modules[alias.asname or alias.name.partition(".")[0]] = alias.name
                if alias.name.partition(".")[0] in POSIX_MODULES:
                    yield f"{node.lineno}: import {alias.name}"
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            if node.module.partition(".")[0] in POSIX_MODULES:
                yield f"{node.lineno}: from {node.module}"
            for alias in node.names:
                if _is_posix(node.module, alias.name):
                    yield f"{node.lineno}: from {node.module} import {alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if _is_posix(modules.get(node.value.id, ""), node.attr):
                yield f"{node.lineno}: {node.value.id}.{node.attr}"
        elif isinstance(node, ast.Call):
            for keyword in node.keywords:
                if keyword.arg in POSIX_ARGUMENTS:
                    yield f"{node.lineno}: {keyword.arg}="
        elif isinstance(node, ast.Compare) and any(
            isinstance(part, ast.Attribute) and part.attr == "platform" for part in (node.left, *node.comparators)
        ):
            yield f"{node.lineno}: asks for sys.platform"


def _is_posix(module: str, name: str) -> bool:
    if module in EVERYWHERE:
        return name not in EVERYWHERE[module]
    return name in POSIX_NAMES.get(module, ())


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_stands_on_every_system(path: Path) -> None:
    assert list(offences(ast.parse(path.read_text(encoding="utf-8")))) == []


def test_there_are_modules() -> None:
    assert PACKAGE / "agent" / "commands.py" in MODULES


@pytest.mark.parametrize(
    "text",
    [
        "import fcntl",
        "from pwd import getpwnam",
        "import os\nos.fork()",
        "import os as system\nsystem.killpg(1, 9)",
        "from os import geteuid",
        "import os\nos.O_NOFOLLOW",
        "import signal\nsignal.SIGKILL",
        "import socket\nsocket.AF_UNIX",
        "import subprocess\nsubprocess.Popen([], start_new_session=True)",
        "import sys\nif sys.platform != 'win32': pass",
    ],
)
def test_an_offence_is_found(text: str) -> None:
    assert list(offences(ast.parse(text)))


def test_the_module_that_may_would_be_found() -> None:
    found = list(offences(ast.parse((PACKAGE / "agent" / "system.py").read_text(encoding="utf-8"))))

    assert len(found) > 10


@pytest.mark.parametrize("module", [os, signal, socket])
def test_the_lists_name_what_there_is(module: ModuleType) -> None:
    """A name that no version of the module has would be a slip of the pen, and forbid or allow nothing."""
    name = module.__name__
    windows = {"O_BINARY", "O_NOINHERIT", "O_RANDOM", "O_SEQUENTIAL", "O_SHORT_LIVED", "O_TEMPORARY", "O_TEXT",
               "add_dll_directory"}  # fmt: skip
    listed = (EVERYWHERE.get(name) or POSIX_NAMES[name]) - windows

    assert {one for one in listed if not hasattr(module, one)} == set()
