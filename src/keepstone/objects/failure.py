# SPDX-License-Identifier: Apache-2.0
"""From errno to the tree of errors: what happened to which thing, and what to do next."""

from __future__ import annotations

import errno

from keepstone.errors import (
    AccessDenied,
    KeepstoneError,
    NotFound,
    ObjectExists,
    ObjectMissing,
    SourceFailed,
    SourceMissing,
    StorageError,
    StorageFull,
    StoreMissing,
    TargetExists,
)

__all__ = ["failure"]

_NEXT: dict[type[KeepstoneError], str] = {
    AccessDenied: "check its owner and permissions",
    NotFound: "check the path",
    ObjectExists: "it was left as it is; take another name",
    ObjectMissing: "run `keepstone store verify` to see what needs it, and restore it from a copy",
    SourceFailed: "check the disk that it lies on (the kernel's log says more), then back up again",
    SourceMissing: "check the path",
    StorageError: "check the disk that it lies on (the kernel's log says more), then try again",
    StorageFull: "make room there, then try again",
    StoreMissing: "check the path and whether it is mounted, or create a store with `keepstone store init`",
    TargetExists: "choose another target, or let it be overwritten (`--overwrite`)",
}
_MISSING = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM}


def failure(
    error: OSError,
    what: str,
    *,
    missing: type[KeepstoneError] = StorageError,
    exists: type[KeepstoneError] = StorageError,
    other: type[KeepstoneError] = StorageError,
) -> KeepstoneError:
    """The error of the tree for `error` on the thing `what`; the classes say what its cases mean to the caller."""
    kind, code = other, error.errno
    if code in _MISSING:
        kind = missing
    elif code == errno.EEXIST:
        kind = exists
    elif code in _FULL:
        kind = StorageFull
    elif code in _DENIED:
        kind = AccessDenied
    elif code == errno.EROFS:
        return AccessDenied(f"{what}: it is mounted read-only; mount it read-write, or choose another place")
    elif code == errno.EBUSY:
        return AccessDenied(f"{what}: it is in use; unmount it or stop what uses it, then try again")
    return kind(f"{what}: {error.strerror or error}; {_NEXT[kind]}")
