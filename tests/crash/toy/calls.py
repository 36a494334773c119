# SPDX-License-Identifier: Apache-2.0
"""A workload that changes files by every call that the shim must see, each in a file of its own.

A call that it missed leaves the replayed log different from the directory, and the recording is refused.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

_SYS_RENAMEAT2, _SYS_OPENAT2 = {"x86_64": (316, 437), "aarch64": (276, 437)}[os.uname().machine]
_NOREPLACE, _EXCHANGE = 1, 2
_CWD = -100
_RESOLVE_BENEATH = 8


def _libc(name: str | None) -> ctypes.CDLL:
    libc = ctypes.CDLL(name, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc


_LIBC, _LIBC_BY_NAME = _libc(None), _libc("libc.so.6")


def _succeeds(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _create(name: str, flags: int = 0) -> int:
    return os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | flags, 0o600)


def _aligned(length: int) -> mmap.mmap:
    """Memory that starts on a page, as O_DIRECT wants it."""
    buffer = mmap.mmap(-1, length)
    buffer.write(bytes(range(256)) * (length // 256))
    return buffer


def writes() -> None:
    ways: dict[str, Callable[[int], object]] = {
        "write": lambda fd: os.write(fd, b"write"),
        "pwrite": lambda fd: os.pwrite(fd, b"pwrite", 7),
        "writev": lambda fd: os.writev(fd, [b"wr", b"", b"itev"]),
        "pwritev": lambda fd: os.pwritev(fd, [b"pwr", b"itev"], 5),
        "pwritev2": lambda fd: os.pwritev(fd, [b"pwritev2"], 3, os.RWF_DSYNC),
    }
    for name, write in ways.items():
        fd = _create(name)
        write(fd)
        os.close(fd)


def append() -> None:
    fd = _create("append", os.O_APPEND)
    os.write(fd, b"one")
    os.pwrite(fd, b"two", 0)  # Linux appends it
    os.close(fd)


def synchronous() -> None:
    fd = _create("synchronous", os.O_DSYNC)
    os.write(fd, b"durable at once")
    os.close(fd)


def direct() -> None:
    fd = _create("direct", os.O_DIRECT)
    os.pwrite(fd, _aligned(16384), 0)
    os.pwrite(fd, _aligned(8192), 32768)
    os.ftruncate(fd, 33000)
    os.close(fd)


def duplicated() -> None:
    fd = _create("duplicated")
    high = os.dup2(fd, 200)
    low = os.dup(fd)
    os.close(fd)
    os.write(low, b"by dup")
    os.write(high, b" by dup2")
    os.fsync(low)
    os.close(low)
    os.close(high)


def sizes() -> None:
    fd = _create("sizes")
    os.write(fd, b"x" * 100)
    os.ftruncate(fd, 10)
    os.ftruncate(fd, 20)
    os.posix_fallocate(fd, 0, 30)
    os.close(fd)
    os.truncate("sizes", 25)
    fd = _create("reserved")
    _succeeds(_LIBC.fallocate(fd, 1, ctypes.c_long(0), ctypes.c_long(4096)))  # KEEP_SIZE
    os.close(fd)
    Path("emptied").write_bytes(b"gone")
    Path("emptied").write_bytes(b"")


def copies() -> None:
    Path("source").write_bytes(b"copied" * 20_000)
    shutil.copyfile("source", "sendfile")
    source, target = os.open("source", os.O_RDONLY), _create("copy_file_range")
    while os.copy_file_range(source, target, 50_000):
        pass
    os.close(source)
    os.close(target)


def renames() -> None:
    os.mkdir("from")
    os.mkdir("to")
    directory = os.open("to", os.O_RDONLY | os.O_DIRECTORY)
    ways: dict[str, Callable[[bytes, bytes], object]] = {
        "rename": os.rename,
        "replace": os.replace,
        "renameat": lambda old, new: os.rename(old, os.path.basename(new), dst_dir_fd=directory),
        "renameat2": lambda old, new: _succeeds(_LIBC.renameat2(_CWD, old, _CWD, new, _NOREPLACE)),
        "libc.so.6": lambda old, new: _succeeds(_LIBC_BY_NAME.renameat2(_CWD, old, _CWD, new, _NOREPLACE)),
        "syscall": lambda old, new: _succeeds(_LIBC.syscall(_SYS_RENAMEAT2, _CWD, old, _CWD, new, _NOREPLACE)),
    }
    for name, rename in ways.items():
        Path("from", name).write_text(name)
        rename(os.fsencode(f"from/{name}"), os.fsencode(f"to/{name}"))
    Path("from/refused").write_text("stays")
    if _LIBC.renameat2(_CWD, b"from/refused", _CWD, b"to/rename", _NOREPLACE) != -1:
        raise AssertionError("RENAME_NOREPLACE replaced")
    _succeeds(_LIBC.renameat2(_CWD, b"from/refused", _CWD, b"to/rename", _EXCHANGE))
    os.link("to/replace", "to/other name")
    os.rename("to/replace", "to/other name")  # two names of one file: nothing happens
    os.rename("to", "from/moved")  # what is inside moves along
    Path("from/moved/late").write_text("under its new path")
    os.write(os.open("late by descriptor", os.O_WRONLY | os.O_CREAT, dir_fd=directory), b"in the moved directory")
    os.close(directory)


def links() -> None:
    Path("linked").write_text("linked")
    os.link("linked", "link")
    directory = os.open(".", os.O_RDONLY)
    os.link("linked", "linkat", src_dir_fd=directory, dst_dir_fd=directory)
    os.unlink("linked")
    unnamed = os.open(".", os.O_RDWR | os.O_TMPFILE, 0o600)
    os.write(unnamed, b"named at the end")
    os.link(f"/proc/self/fd/{unnamed}", "tmpfile", src_dir_fd=directory, follow_symlinks=True)
    os.close(unnamed)
    os.close(directory)


def removals() -> None:
    os.makedirs("removed/inner")
    directory = os.open("removed", os.O_RDONLY)
    for name in ("removed/a", "removed/b", "removed/c"):
        Path(name).write_text(name)
    os.unlink("removed/a")
    os.unlink("b", dir_fd=directory)
    os.mkdir("made", dir_fd=directory)
    os.close(directory)
    os.rmdir("removed/inner")
    held = os.open("removed/c", os.O_WRONLY)
    os.unlink("removed/c")
    os.write(held, b"to nowhere")
    os.close(held)
    shutil.rmtree("removed")


def openat2() -> None:
    os.mkdir("beneath")
    directory = os.open("beneath", os.O_RDONLY)
    how = struct.pack("<QQQ", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, _RESOLVE_BENEATH)
    fd = _succeeds(_LIBC.syscall(_SYS_OPENAT2, directory, b"file", how, len(how)))
    os.write(fd, b"openat2")
    os.close(fd)
    os.close(directory)


def syncs() -> None:
    """Six fsyncs of one kind or another, one of the whole file system, one of a range that makes nothing durable."""
    fd = _create("synced")
    os.fsync(fd)
    os.fdatasync(fd)
    _succeeds(_LIBC.fsync(fd))
    _succeeds(_LIBC_BY_NAME.fsync(fd))
    _succeeds(_LIBC_BY_NAME.syscall({"x86_64": 74, "aarch64": 82}[os.uname().machine], fd))
    directory = os.open(".", os.O_RDONLY)
    os.fsync(directory)
    _succeeds(_LIBC.syncfs(directory))
    _succeeds(_LIBC.sync_file_range(fd, ctypes.c_long(0), ctypes.c_long(0), 7))
    os.close(directory)
    os.close(fd)


def processes() -> None:
    held = _create("by child")
    pid = os.fork()
    if not pid:
        os.write(held, b"forked")
        os._exit(0)
    os.waitpid(pid, 0)
    subprocess.run(["sh", "-c", "echo executed >> 'by child'; mkdir -p deep/er; mv 'by child' deep/er"], check=True)
    subprocess.run([sys.executable, "-c", "open('by python', 'w').write('new')"], check=True)
    os.write(held, b"after vfork")  # the children's closing of descriptors must not make the parent's forgotten
    os.close(held)


def database() -> None:
    connection = sqlite3.connect("rows.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE row (n INTEGER)")
    for n in range(50):
        connection.execute("INSERT INTO row VALUES (?)", (n,))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.execute("INSERT INTO row VALUES (50)")


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    for step in (writes, append, synchronous, direct, duplicated, sizes, copies, renames, links, removals, openat2):
        step()
    for step in (processes, database, syncs):
        step()
    os._exit(0)  # leaves the database open, with its log
