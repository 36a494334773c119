# SPDX-License-Identifier: Apache-2.0
"""A tree with something of everything, and a picture of a tree that two of them can be compared by."""

from __future__ import annotations

import os
import random
import socket
import stat
from pathlib import Path
from typing import Any

__all__ = ["make_tree", "picture"]

_DATE = 1_600_000_000_123_456_789
_MIB = 1 << 20


def make_tree(root: Path) -> None:
    """Make the tree in the new folder `root`; what only root can make is in it where the tests run as root."""
    noise = random.Random(7)
    root.mkdir()
    (root / "text").write_bytes(b"a few words\n" * 1000)
    (root / "empty").touch()
    (root / "large").write_bytes(noise.randbytes(5 * _MIB + 17) + b"and an end" * 200_000)
    (root / "same").write_bytes((root / "text").read_bytes())
    os.link(root / "text", root / "zz second name of text")
    (root / "folder" / "within").mkdir(parents=True)
    (root / "folder" / "nothing in it").mkdir()
    os.link(root / "text", root / "folder" / "within" / "third name of text")
    for number in range(300):
        (root / "folder" / f"small {number}").write_bytes(noise.randbytes(number * 7))
    deep = root
    for number in range(40):
        deep = deep / f"level {number}"
        deep.mkdir()
    (deep / "bottom").write_text("at the bottom")
    (root / "link").symlink_to("folder/within")
    (root / "dangling").symlink_to("/no/such/place")
    os.mkfifo(root / "pipe", 0o620)
    with socket.socket(socket.AF_UNIX) as end:
        os.chdir(root)  # the path of a socket is short
        end.bind("socket")
        os.chdir("/")
    with (root / "sparse").open("wb") as file:
        file.truncate(64 * _MIB)
        for offset in (3 * _MIB, 40 * _MIB):
            os.pwrite(file.fileno(), noise.randbytes(100_000), offset)
    with (root / "hole").open("wb") as file:
        file.truncate(8 * _MIB)
    for name in (b"latin-1 \xe9", b"\xf0\x9f\x94\x91", b"\x01\x1b[31m", b"new\nline", b"-rf", b" "):
        Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_bytes(name)
    (root / "attributes").write_text("x")
    _attribute(root / "attributes", "user.colour", b"blue\0green")
    _attribute(root / "folder", "user.of a folder", b"")
    (root / "private").write_text("x")
    (root / "private").chmod(0o400)
    (root / "setuid").write_text("x")
    (root / "setuid").chmod(0o4755)
    (root / "sticky").mkdir()
    (root / "sticky").chmod(0o1777)
    if os.geteuid() == 0:
        (root / "owned").write_text("x")
        os.chown(root / "owned", 12345, 54321)
        os.chown(root / "link", 12345, 54321, follow_symlinks=False)
        _attribute(root / "owned", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
        os.mknod(root / "device", stat.S_IFCHR | 0o640, os.makedev(1, 3))
    for path in [*root.rglob("*"), root]:
        os.utime(path, ns=(_DATE, _DATE + len(path.name)), follow_symlinks=False)


def _attribute(path: Path, name: str, value: bytes) -> None:
    try:
        os.setxattr(path, name, value)
    except OSError:
        if name.startswith("user."):  # then the file system has none; capabilities take a privilege as well
            raise


def picture(root: Path) -> dict[str, dict[str, Any]]:
    """Everything about every entry beneath `root` that a restore is to bring back."""
    found: dict[str, dict[str, Any]] = {}
    names: dict[int, list[str]] = {}
    for path in [root, *sorted(root.rglob("*"))]:
        status, name = path.lstat(), str(path.relative_to(root))
        entry: dict[str, Any] = {"mode": oct(status.st_mode), "owner": (status.st_uid, status.st_gid)}
        entry["mtime"], entry["rdev"] = status.st_mtime_ns, status.st_rdev
        entry["xattrs"] = {
            key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)
        }
        if path.is_symlink():
            entry["target"] = os.readlink(path)
        elif path.is_file():
            entry["content"] = path.read_bytes()
            entry["sparse"] = status.st_blocks * 512 < status.st_size // 2
        if not path.is_dir() or path.is_symlink():
            entry["names"] = names.setdefault(status.st_ino, [])
            entry["names"].append(name)
        found[name] = entry
    return found
