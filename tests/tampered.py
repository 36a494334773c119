# SPDX-License-Identifier: Apache-2.0
"""File calls that do not do what they are asked: stand-ins for `Env.fs`."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
from collections.abc import Callable
from typing import Any

from keepstone.env import FileSystem

__all__ = ["NO_DIRECT_OPEN", "NO_DIRECT_TRANSFER", "Tampered", "failing_at", "fails", "is_direct"]


class Tampered(FileSystem):
    """The real file calls, some of them replaced."""

    def __init__(self, **calls: Callable[..., Any]) -> None:
        for name, call in calls.items():
            setattr(self, name, call)


def fails(code: int) -> Callable[..., Any]:
    """A call that always fails."""

    def call(*_: object, **__: object) -> Any:
        raise OSError(code, os.strerror(code))

    return call


def failing_at(call: str, nth: int, code: int) -> Tampered:
    """The file calls, of which the `nth` of this kind fails, once."""
    count = itertools.count(1)

    def tampered(*given: Any, **named: Any) -> Any:
        if next(count) == nth:
            raise OSError(code, os.strerror(code))
        return getattr(FileSystem, call)(*given, **named)

    return Tampered(**{call: tampered})


def is_direct(fd: int) -> bool:
    """Whether transfers on this descriptor go past the page cache."""
    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT)


def _open(path: str, flags: int, mode: int = 0o777) -> int:
    fd = os.open(path, flags & ~os.O_DIRECT, mode)  # as the kernel does: what O_CREAT made stays
    if flags & os.O_DIRECT:
        os.close(fd)
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return fd


def _refusing_direct(call: Callable[..., int]) -> Callable[..., int]:
    def transfer(fd: int, *rest: Any) -> int:
        if is_direct(fd):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return call(fd, *rest)

    return transfer


NO_DIRECT_OPEN = Tampered(open=_open)
"""A file system that refuses O_DIRECT when a file is opened."""
NO_DIRECT_TRANSFER = Tampered(preadv=_refusing_direct(os.preadv), pwrite=_refusing_direct(os.pwrite))
"""A file system that accepts O_DIRECT, and refuses each transfer."""
