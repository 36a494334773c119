# SPDX-License-Identifier: Apache-2.0
"""Two calls of Linux that `os` lacks.

They are looked up in the whole process, not in one library, so that a preloaded fault injector stands in their way too.
"""

from __future__ import annotations

import ctypes
import errno
import os

__all__ = ["punch_hole", "rename_noreplace"]

_process = ctypes.CDLL(None, use_errno=True)
_renameat2 = getattr(_process, "renameat2", None)  # absent from musl before 1.2.6
_fallocate = getattr(_process, "fallocate64", None) or _process.fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_KEEP_SIZE_PUNCH_HOLE = 0x01 | 0x02


def _failed(*names: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code), *names)


def rename_noreplace(old: str, new: str) -> None:
    """Rename in one step, or `FileExistsError`. EINVAL or ENOSYS where kernel or file system cannot."""
    if _renameat2 is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), old)
    if _renameat2(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), _RENAME_NOREPLACE):
        raise _failed(old)


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Make this range read as zeros and give its space back. EOPNOTSUPP where the file system cannot."""
    while _fallocate(fd, _KEEP_SIZE_PUNCH_HOLE, offset, length):
        error = _failed()
        if error.errno != errno.EINTR:
            raise error
