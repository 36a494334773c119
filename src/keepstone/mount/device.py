# SPDX-License-Identifier: Apache-2.0
"""Putting a file system of this process into the tree of the machine, and taking it out again.

The superuser asks the kernel himself (mount(2), umount2(2)); for everybody else `fusermount3` does it, which belongs to
the system's package fuse3 and hands the descriptor over a socket.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

from keepstone.errors import AccessDenied, UsageError

__all__ = ["attach", "check", "detach", "sweep"]

_DEVICE = "/dev/fuse"
_TYPE = "keepstone"
_READ_ONLY, _NO_SETUID, _NO_DEVICES, _NO_PROGRAMS = 1, 2, 4, 8  # mount(2)
_FORCE, _DETACH, _NO_FOLLOW = 1, 2, 8  # umount2(2)

_process = ctypes.CDLL(None, use_errno=True)


def check(where: Path) -> None:
    """`UsageError` where this is no empty directory to mount at."""
    try:
        if not stat.S_ISDIR(os.stat(where).st_mode):
            raise UsageError(f"{where} is no directory; choose one to mount at")
        if os.listdir(where):
            raise UsageError(f"{where} holds something, which a mount would hide; choose an empty directory")
    except FileNotFoundError as error:
        raise UsageError(f"there is no directory {where}; make it with `mkdir`") from error
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise AccessDenied(f"{where}: {error.strerror}; choose a directory of your own") from error
        raise UsageError(
            f"{where} is what is left of a mount whose process died; remove that with `{_by_hand(where)}`"
        ) from error


def attach(where: Path, *, shared: bool) -> int:
    """Mount at this directory; the descriptor that the kernel's requests come out of.

    `shared`: for everybody, with the permissions that the entries have, not only for who mounts. `UsageError` where
    the machine has no FUSE, `AccessDenied` where nobody allows it.
    """
    options = "allow_other,default_permissions," if shared else ""
    if os.geteuid() == 0:
        try:
            return _mount(where, options)
        except PermissionError as error:  # a superuser of a container only
            if _helper() is None:
                raise AccessDenied(
                    f"{where}: this machine does not let its superuser mount; in a container that takes CAP_SYS_ADMIN"
                ) from error
    return _helped(where, options)


def _mount(where: Path, options: str) -> int:
    try:
        fd = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except PermissionError:
        raise
    except OSError as error:
        raise UsageError(
            f"{_DEVICE} cannot be opened ({error.strerror}); load the kernel's module with `modprobe fuse`, or give "
            "the container this device"
        ) from error
    data = f"{options}fd={fd},rootmode=40000,user_id={os.geteuid()},group_id={os.getegid()}"
    flags = _READ_ONLY | _NO_SETUID | _NO_DEVICES | _NO_PROGRAMS
    try:
        with _held(where) as place:
            failed = _process.mount(
                _TYPE.encode(), place, b"fuse." + _TYPE.encode(), ctypes.c_ulong(flags), data.encode()
            )
            code = ctypes.get_errno()
    except BaseException:
        os.close(fd)
        raise
    if failed:
        os.close(fd)
        if code in (errno.EPERM, errno.EACCES):
            raise PermissionError(code, os.strerror(code))
        raise UsageError(f"{where} cannot be mounted at: {os.strerror(code)}; choose another directory")
    return fd


@contextlib.contextmanager
def _held(where: Path) -> Iterator[bytes]:
    """This very directory by another name, which nobody can make lead elsewhere meanwhile."""
    place = os.open(where, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        name = f"/proc/self/fd/{place}"
        if os.readlink(name) != os.fspath(where):
            raise UsageError(f"{where} leads somewhere else by now; choose a directory that nobody else can move")
        yield name.encode()
    finally:
        os.close(place)


def _helped(where: Path, options: str) -> int:
    helper = _helper()
    if helper is None:
        raise AccessDenied(
            "to mount, others than root need fusermount3; install the package fuse3 (`apt install fuse3`, `dnf install "
            "fuse3`)"
        )
    ours, theirs = socket.socketpair()
    with ours, theirs:
        os.set_inheritable(theirs.fileno(), True)
        ended = subprocess.run(
            [helper, "-o", f"{options}ro,nosuid,nodev,noexec,fsname={_TYPE},subtype={_TYPE}", "--", os.fspath(where)],
            env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
        theirs.close()
        descriptors = socket.recv_fds(ours, 1, 1)[1] if ended.returncode == 0 else []
    if not descriptors:
        reason = ended.stderr.decode(errors="replace").strip() or f"it ended with {ended.returncode}"
        raise AccessDenied(f"{where} cannot be mounted at: {reason}")
    os.set_inheritable(descriptors[0], False)
    return descriptors[0]


def detach(where: Path) -> None:
    """Unmount, also while somebody uses it: what he has open fails from then on. Harmless where nothing is mounted."""
    for flags in (_NO_FOLLOW, _NO_FOLLOW | _FORCE | _DETACH) if os.geteuid() == 0 else ():
        if not _process.umount2(os.fsencode(where), flags) or ctypes.get_errno() == errno.EINVAL:  # EINVAL: no mount
            return
    helper = _helper()
    if helper is not None:
        unmount = [helper, "-u", "-q", "--", os.fspath(where)]
        if subprocess.call(unmount, stderr=subprocess.DEVNULL):
            subprocess.call([helper, "-z", *unmount[1:]], stderr=subprocess.DEVNULL)


def sweep(where: Path) -> None:
    """Unmount what is left here of a mount of Keepstone whose process died; everything else stays."""
    try:
        os.listdir(where)  # what it is the kernel may still know
    except OSError as error:
        if error.errno == errno.ENOTCONN and _is_ours(where):
            detach(where)


def _is_ours(where: Path) -> bool:
    """Whether the newest mount here is one of Keepstone (proc(5), mountinfo: blanks are written \\040)."""
    name = re.sub(rb"[\x00-\x20\\]", lambda found: b"\\%03o" % found[0][0], os.fsencode(where))
    kinds = []
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        mount, _, rest = line.partition(b" - ")
        if mount.split(b" ")[4] == name:
            kinds.append(rest.split(b" ")[0])
    return kinds[-1:] == [b"fuse." + _TYPE.encode()]


def _helper() -> str | None:
    return shutil.which("fusermount3") or shutil.which("fusermount")


def _by_hand(where: Path) -> str:
    return f"umount {where}" if os.geteuid() == 0 else f"fusermount3 -u {where}"
