# SPDX-License-Identifier: Apache-2.0
"""Files of an NTFS out of a point of its disk: how long it takes to list 100,000, and to get one large one.

The file system is made by mkntfs and filled through ntfs-3g, once; then it is kept. Both commands are measured from
their start to their end, with the process that looks at the disk.
"""

from __future__ import annotations

import filecmp
import os
import random
import shutil
import subprocess
import tempfile
from pathlib import Path

from bench.data import FULL, Scale
from bench.machines.shelf import Shelf, need
from bench.measure import Failed
from bench.setup import bench_dir

__all__ = ["measure_all"]

_RECIPE = 1  # raise it when the file system changes its shape
_FOLDER = 1000  # files in each folder
_MIB = 1 << 20
_LARGE = "large.bin"


def measure_all(folder: Path, scale: Scale) -> dict[str, float]:
    """Seconds of the listing, megabytes a second of the extraction, CPU of both."""
    need("mkntfs", "ntfs-3g", "umount")
    count, large = (100_000, 512 * _MIB) if scale is FULL else (3_000, 16 * _MIB)
    image, truth = _made(scale, count, large)
    shelf = Shelf(folder / "keepstone")
    shelf.run("backup", "--image", image)
    listing, told = shelf.told("find", "--point", "latest", "*.txt")
    if len(told["found"]) != count:
        raise Failed(f"{len(told['found'])} of {count} files were listed")
    target = folder / "out"
    taken = shelf.run("restore", "latest", f"0/{_LARGE}", "--target", target)
    (restored,) = target.rglob(_LARGE)
    if not filecmp.cmp(restored, truth, shallow=False):
        raise Failed(f"{_LARGE} was restored, and differs")
    return {
        "files_listed": count,
        "files_list_s": listing.wall_s,
        "files_list_cpu_s": listing.user_s + listing.sys_s,
        "files_extract_mb_s": large / taken.wall_s / 1e6,
        "files_extract_cpu_s": taken.user_s + taken.sys_s,
    }


def _made(scale: Scale, count: int, large: int) -> tuple[Path, Path]:
    """The image of the file system, and what its large file has to be."""
    place = bench_dir() / scale.name / "machines"
    place.mkdir(parents=True, exist_ok=True)
    image, truth = place / f"ntfs-{_RECIPE}", place / f"{_LARGE}-{_RECIPE}"
    if not image.exists():
        chance = random.Random(4)
        with truth.open("wb") as file:
            for _ in range(large // _MIB):
                file.write(chance.randbytes(_MIB))
        with tempfile.TemporaryDirectory(dir=place) as folder:
            part, mount = Path(folder) / "part", Path(folder) / "mount"
            with part.open("wb") as file:
                file.truncate(large + count * 4096 + 64 * _MIB)
            _run("mkntfs", "-q", "-F", "-f", part)
            mount.mkdir()
            _run("ntfs-3g", part, mount)
            try:
                _fill(mount, count)
                shutil.copyfile(truth, mount / _LARGE)
            finally:
                _run("umount", mount)
            part.rename(image)
    return image, truth


def _fill(root: Path, count: int) -> None:
    for number in range(count):
        folder = root / f"folder-{number // _FOLDER:03}"
        if number % _FOLDER == 0:
            folder.mkdir()
        (folder / f"file-{number % _FOLDER:03}.txt").write_bytes(b"record %d\n" % number * (1 + number % 90))


def _run(*command: object) -> None:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=False, env=os.environ | {"PATH": path}
    )
    if done.returncode:
        raise Failed(f"{command[0]}: {done.stdout}{done.stderr}")
