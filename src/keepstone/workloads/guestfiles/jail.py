# SPDX-License-Identifier: Apache-2.0
"""Giving up, for good, everything that this process does not need.

What is open stays open and nothing else can be had: no file, socket or process (RLIMIT_NOFILE and RLIMIT_NPROC of 0,
setrlimit(2)), no byte more in any file (RLIMIT_FSIZE), no more memory than said (RLIMIT_AS), no other identity than
that of nobody where it was root. On architectures that the table below knows, the kernel refuses every call but those
that compute, and read and write what is open (seccomp(2), Linux Documentation/userspace-api/seccomp_filter.rst); on
others the process at least has a network of its own, with nothing in it, where the system lets it (unshare(2)).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import struct

__all__ = ["enter"]

_NOBODY = 65534
_SET_DUMPABLE, _SET_SECCOMP, _NO_NEW_PRIVS = 4, 22, 38  # linux/prctl.h
_FILTER = 2  # SECCOMP_MODE_FILTER, linux/seccomp.h
_ALLOW, _EPERM, _KILL = 0x7FFF0000, 0x00050001, 0x80000000  # what a filter returns, linux/seccomp.h
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K, linux/bpf_common.h
_NEWUSER, _NEWNET = 0x10000000, 0x40000000  # linux/sched.h

_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # linux/audit.h; the column below
_CALLS = {
    # numbers in asm/unistd_64.h of x86, and in asm-generic/unistd.h
    "read": (0, 63),
    "readv": (19, 65),
    "write": (1, 64),
    "writev": (20, 66),
    "close": (3, 57),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "futex": (202, 98),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "setitimer": (38, 103),
    "sched_yield": (24, 124),
    "getpid": (39, 172),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "clock_gettime": (228, 113),
    "gettimeofday": (96, 169),
    "getrandom": (318, 278),
    "restart_syscall": (219, 128),
}

_process = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def enter(memory: int) -> bool:
    """From here on. `memory`: bytes of addresses at most. Whether the kernel filters calls. `OSError`."""
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):  # a root who may not, or a namespace that has nobody
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    for limit, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    _prctl(_SET_DUMPABLE, 0)
    _prctl(_NO_NEW_PRIVS, 1)
    if platform.machine() in _ARCHITECTURES:
        architecture, column = _ARCHITECTURES[platform.machine()]
        with contextlib.suppress(OSError):  # a kernel without it
            _filter(architecture, [numbers[column] for numbers in _CALLS.values()])
            return True
    _process.unshare(_NEWUSER | _NEWNET)
    return False


def _filter(architecture: int, numbers: list[int]) -> None:
    """Of `struct seccomp_data` the architecture is at 4, the number of the call at 0."""
    rows = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    rows += [(_EQUAL, len(numbers) - at, 0, number) for at, number in enumerate(numbers)]
    rows += [(_RETURN, 0, 0, _EPERM), (_RETURN, 0, 0, _ALLOW)]
    code = b"".join(struct.pack("=HBBI", *row) for row in rows)
    _prctl(_SET_SECCOMP, _FILTER, ctypes.byref(_Program(len(rows), code)))


def _prctl(option: int, value: int, pointer: object = None) -> None:
    if _process.prctl(option, ctypes.c_ulong(value), pointer, ctypes.c_ulong(0), ctypes.c_ulong(0)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
