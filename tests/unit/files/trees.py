# SPDX-License-Identifier: Apache-2.0
"""A directory tree with everything that Linux has, and trees compared in everything that a restore brings back."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["acl", "capability", "make_tree", "snapshot"]

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
"""cap_net_bind_service+ep, as the kernel stores it."""


def capability(path: Path) -> None:
    """Give a file a capability, with the tool that people use where it is installed."""
    if shutil.which("setcap"):
        subprocess.run(["setcap", "cap_net_bind_service+ep", str(path)], check=True)
    else:
        os.setxattr(path, "security.capability", CAPABILITY)


def acl(path: Path, *entries: tuple[int, int, int]) -> bytes:
    """Set a POSIX ACL of (tag, permissions, id) each; the value in the kernel's form (linux/posix_acl_xattr.h)."""
    value = (2).to_bytes(4, "little") + b"".join(
        tag.to_bytes(2, "little") + perm.to_bytes(2, "little") + (number & 0xFFFFFFFF).to_bytes(4, "little")
        for tag, perm, number in entries
    )
    os.setxattr(path, "system.posix_acl_access", value)
    return value


ACL_FOR_1234 = ((0x01, 6, -1), (0x02, 4, 1234), (0x04, 4, -1), (0x10, 6, -1), (0x20, 0, -1))
"""u::rw-, u:1234:r--, g::r--, m::rw-, o::---"""


def make_tree(root: Path) -> None:
    """Files, links, devices, fifos, sockets, attributes, sparse and large files, names that are no UTF-8. By root."""
    root.mkdir()
    (root / "empty").touch()
    (root / "small").write_bytes(b"small")
    (root / "large").write_bytes(os.urandom(7_000_001))
    (root / "script").write_bytes(b"#!/bin/sh\n")
    os.chmod(root / "script", 0o6755)
    folder = root / "folder"
    folder.mkdir()
    for number in range(10):
        (folder / f"{number}").write_bytes(b"%d" % number * number)
    os.link(root / "small", folder / "other name of small")
    os.symlink("../small", folder / "symlink")
    os.symlink("/nowhere/\udcff", root / "dangling")
    os.link(root / "dangling", folder / "dangling too", follow_symlinks=False)
    (root / "\udcfe\udcff no utf-8").write_bytes(b"x")
    (root / "line\nbreak").write_bytes(b"y")
    os.mkfifo(root / "fifo", 0o640)
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "loop", stat.S_IFBLK | 0o660, os.makedev(7, 77))
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(root)
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
    sparse = root / "sparse"
    with sparse.open("wb") as file:
        file.truncate(900_000_000)
        for at in (0, 5_000_000, 700_000_000):
            file.seek(at)
            file.write(os.urandom(70_000))
    with (root / "hole").open("wb") as file:
        file.truncate(123_456_789)
    attributed = root / "attributed"
    attributed.write_bytes(b"a")
    os.setxattr(attributed, "user.binary", bytes(range(256)))
    os.setxattr(attributed, "user.empty", b"")
    acl(attributed, *ACL_FOR_1234)
    (root / "capable").write_bytes(b"c")
    capability(root / "capable")
    os.chown(root / "capable", 1234, 4321)
    capability(root / "capable")
    inheriting = root / "inheriting"
    inheriting.mkdir()
    os.setxattr(inheriting, "system.posix_acl_default", acl(folder / "1", *ACL_FOR_1234))
    (inheriting / "plain").write_bytes(b"p")
    os.removexattr(inheriting / "plain", "system.posix_acl_access")
    os.chmod(inheriting / "plain", 0o600)
    os.chown(folder / "2", 1000, 2000)
    os.chown(root / "dangling", 3000, 4000, follow_symlinks=False)
    os.chmod(folder / "3", 0)
    deep = root / "a"
    for _ in range(30):
        deep.mkdir()
        deep = deep / ("deep " * 20)
    (root / "folder" / "nothing").mkdir(mode=0o700)
    os.chmod(folder, 0o1777)
    stamp = 1_600_000_000_000_000_001
    for path in sorted(root.rglob("*"), reverse=True):
        stamp += 1_000_000_007
        os.utime(path, ns=(stamp, stamp), follow_symlinks=False)
    os.utime(root / "small", ns=(-1_000_000_001, -1_000_000_001))
    os.utime(root, ns=(stamp, stamp))


def snapshot(root: Path, *, but: Sequence[str] = ()) -> dict[bytes, dict[str, Any]]:
    """Everything about every entry of a tree; `but`: properties to leave out."""
    found: dict[bytes, dict[str, Any]] = {}
    groups: dict[tuple[int, int], bytes] = {}
    base = os.fsencode(root)
    pending = [base]
    while pending:
        path = pending.pop()
        status = os.lstat(path)
        relative = path[len(base) + 1 :]
        facts: dict[str, Any] = {
            "mode": status.st_mode,
            "owner": (status.st_uid, status.st_gid),
            "mtime": status.st_mtime_ns,
            "xattrs": {
                name: os.getxattr(path, name, follow_symlinks=False)
                for name in os.listxattr(path, follow_symlinks=False)
            },
        }
        if stat.S_ISDIR(status.st_mode):
            pending += [path + b"/" + name for name in os.listdir(path)]
        else:
            facts["inode"] = (
                groups.setdefault((status.st_dev, status.st_ino), relative) if status.st_nlink > 1 else None
            )
        if stat.S_ISREG(status.st_mode):
            facts["size"] = status.st_size
            facts["content"] = _digest(path, status.st_size)
            if status.st_size > 100_000_000:
                facts["sparse"] = status.st_blocks * 512 < status.st_size // 10
        elif stat.S_ISLNK(status.st_mode):
            facts["target"] = os.readlink(path)
        elif stat.S_ISBLK(status.st_mode) or stat.S_ISCHR(status.st_mode):
            facts["rdev"] = status.st_rdev
        found[relative] = {name: value for name, value in facts.items() if name not in but}
    # Which name of an inode comes first depends on the order of the walk; what matters is which names belong together.
    names: dict[bytes, set[bytes]] = {}
    for relative, facts in found.items():
        if facts.get("inode") is not None:
            names.setdefault(facts["inode"], set()).add(relative)
    for facts in found.values():
        if facts.get("inode") is not None:
            facts["inode"] = sorted(names[facts["inode"]])
    return dict(sorted(found.items()))


def _digest(path: bytes, size: int) -> str:
    """Of the data only, where a file is vast; holes have no say in it, but where they are."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        at = 0
        while at < size:
            try:
                begin = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(file.fileno(), begin, os.SEEK_HOLE)
            file.seek(begin)
            data = file.read(end - begin)
            if size > 100_000_000:
                for offset in range(0, len(data), 4096):
                    page = data[offset : offset + 4096]
                    if page.strip(b"\0"):
                        digest.update(b"%d" % (begin + offset) + page)
            else:
                digest.update(data)
            at = end
    return digest.hexdigest()
