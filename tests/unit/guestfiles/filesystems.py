# SPDX-License-Identifier: Apache-2.0
"""Real file systems in images, made by the programs that make them for users."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from keepstone.disks import BlockSource, RawSource
from keepstone.env import Env
from keepstone.store import PointRecord
from keepstone.workloads.guestfiles.tree import GuestTree, looking_into

__all__ = [
    "MIB",
    "POINT",
    "UNICODE",
    "ext",
    "fat",
    "looked_into",
    "mounted_ntfs",
    "need",
    "noise",
    "ntfs",
    "partitioned",
    "plain_tree",
    "run",
    "sparse",
    "xfs",
]

MIB = 1 << 20
UNICODE = "größe-日本-😀.txt"
POINT = PointRecord(
    item="vm", kind="image", host="h", source=b"/vm", started=1, finished=2, packs=b"", root=b"", detail=b""
)


def need(*programs: str) -> None:
    """Skip where one of these programs is missing."""
    for program in programs:
        if shutil.which(program) is None and not Path("/usr/sbin", program).exists():
            pytest.skip(f"{program} is not installed; scripts/tools.sh installs it")


def run(*command: object, text: str | None = None) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        input=text,
        capture_output=True,
        check=False,
        text=True,
        env={**os.environ, "LC_ALL": "C.UTF-8", "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def sparse(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def plain_tree(root: Path) -> Path:
    """What every file system can hold."""
    (root / "folder" / "deep" / "deeper").mkdir(parents=True)
    (root / "empty").write_bytes(b"")
    (root / "small.txt").write_bytes(b"small\n")
    (root / "large.bin").write_bytes(noise(5_000_001))
    (root / "folder" / UNICODE).write_bytes(b"unicode")
    (root / "folder" / "deep" / "deeper" / "x").write_bytes(noise(70_000))
    (root / "folder" / "with spaces and a long name, longer than any short one.text").write_bytes(b"spaces")
    return root


def ext(image: Path, tree: Path, size: int = 32 * MIB, *more: object) -> Path:
    need("mkfs.ext4")
    run("mkfs.ext4", "-q", "-F", "-L", "linux", *more, "-d", tree, sparse(image, size))
    return image


def fat(image: Path, tree: Path, size: int = 64 * MIB) -> Path:
    need("mkfs.vfat", "mcopy")
    run("mkfs.vfat", "-F", "32", "-n", "STICK", sparse(image, size))
    run("mcopy", "-s", "-Q", "-i", image, *sorted(tree.iterdir()), "::")
    return image


def ntfs(image: Path, size: int = 32 * MIB) -> Path:
    need("mkntfs")
    run("mkntfs", "-q", "-F", "-f", "-L", "Windows", sparse(image, size))
    return image


@contextmanager
def mounted_ntfs(image: Path, folder: Path) -> Iterator[Path]:
    """The file system of NTFS in this image, to put files into."""
    need("ntfs-3g")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse cannot be opened, so that no NTFS can be filled")
    folder.mkdir()
    run("ntfs-3g", "-o", "compression,streams_interface=windows", image, folder)
    try:
        yield folder
    finally:
        run("umount", folder)


def xfs(image: Path, tree: Path, size: int = 320 * MIB) -> Path:
    need("mkfs.xfs")
    lines = ["/", "0 0", "d--755 0 0"]

    def add(folder: Path) -> None:
        for path in sorted(folder.iterdir()):
            if path.is_symlink():
                lines.append(f"{path.name} l--777 0 0 {path.readlink()}")
            elif path.is_dir():
                lines.append(f"{path.name} d--755 0 0")
                add(path)
                lines.append("$")
            elif " " not in path.name:  # which a prototype cannot say
                lines.append(f"{path.name} ---644 7 8 {path}")

    add(tree)
    prototype = image.with_suffix(".proto")
    prototype.write_text("\n".join([*lines, "$", ""]))
    run("mkfs.xfs", "-q", "-L", "data", "-p", prototype, sparse(image, size))
    return image


def partitioned(disk: Path, label: str, script: str, parts: dict[int, Path], size: int) -> Path:
    """A disk with a table; `parts`: images by the sector that they begin at."""
    need("sfdisk")
    sparse(disk, size)
    run("sfdisk", "-q", disk, text=f"label: {label}\n{script}\n")
    with disk.open("r+b") as file:
        for sector, image in parts.items():
            with image.open("rb") as source:
                at = 0
                while True:
                    with suppress(OSError):
                        at = os.lseek(source.fileno(), at, os.SEEK_DATA)
                        source.seek(at)
                        if data := source.read(MIB):
                            file.seek(sector * 512 + at)
                            file.write(data)
                            at += len(data)
                            continue
                    break
    return disk


@contextmanager
def looked_into(path: Path | BlockSource) -> Iterator[GuestTree]:
    source = RawSource(Env(), path) if isinstance(path, Path) else path
    try:
        with looking_into(Env(), {b"": source}, POINT) as tree:
            yield tree
    finally:
        source.close()
