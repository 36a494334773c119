# SPDX-License-Identifier: Apache-2.0
"""The kernel that a machine is started by: files of its host, which its point names.

A point could name any file. So they are looked at before a guest gets them: they begin as what they are said to be.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from keepstone.env import Env
from keepstone.errors import SourceMissing, Unsupported
from keepstone.objects import failure
from keepstone.workloads.running.values import Kernel

__all__ = ["check_kernel", "copy_kernel"]

_KERNEL = (0x202, b"HdrS")  # Linux, Documentation/arch/x86/boot.rst
_INITRD = (
    b"\x1f\x8b",
    b"070701",
    b"070702",
    b"\xfd7zXZ",
    b"\x28\xb5\x2f\xfd",
    b"\x02\x21\x4c\x18",
    b"BZh",
    b"\x5d\0\0",
)
_TOGETHER = 1 << 20


def check_kernel(env: Env, kernel: Kernel) -> None:
    """`SourceMissing` where one of its files is not here, `Unsupported` where it is something else."""
    offset, sign = _KERNEL
    _head(env, kernel.kernel, "kernel", lambda head: head[offset : offset + len(sign)] == sign)
    if kernel.initrd is not None:
        _head(env, kernel.initrd, "initramfs", lambda head: head.startswith(_INITRD))


def copy_kernel(env: Env, kernel: Kernel, own: Kernel) -> None:
    """Copy its files into the new ones of `own`. What `failure` makes of an `OSError`."""
    _copy(env, kernel.kernel, own.kernel)
    if kernel.initrd is not None and own.initrd is not None:
        _copy(env, kernel.initrd, own.initrd)


def _head(env: Env, path: Path, what: str, is_one: Callable[[bytes], bool]) -> None:
    try:
        fd = env.fs.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            regular = stat.S_ISREG(env.fs.fstat(fd).st_mode)
            head = env.fs.read(fd, 4096) if regular else b""
        finally:
            env.fs.close(fd)
    except FileNotFoundError as error:
        raise SourceMissing(
            f"the machine was started by a {what} of its host, {path}, which is not here; put it there"
        ) from error
    except OSError as error:
        raise failure(error, str(path), missing=SourceMissing) from error
    if not is_one(head):
        raise Unsupported(f"the machine was started by {path}, which is no {what} of Linux; put the right one there")


def _copy(env: Env, source: Path, target: Path) -> None:
    fs = env.fs
    try:
        read = fs.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            write = fs.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                while piece := fs.read(read, _TOGETHER):
                    while piece:
                        piece = piece[fs.write(write, piece) :]
                fs.fsync(write)
            finally:
                fs.close(write)
        finally:
            fs.close(read)
    except OSError as error:
        raise failure(error, str(target)) from error
