# SPDX-License-Identifier: Apache-2.0
"""Which format an image has.

Invariant: a guest writes its disk, never the name of its image. So a format counts where name and content both say it;
all else is raw. A guest that writes the header of an image onto its raw disk changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from keepstone.env import Env
from keepstone.errors import SourceFailed, SourceMissing, UsageError
from keepstone.files import exists
from keepstone.objects import failure

__all__ = ["FORMATS", "RAW", "SUFFIXES", "detect", "failures", "refuse_image", "signed"]

RAW = "raw"
FORMATS = (RAW, "vhdx", "vhd", "vmdk", "qcow2")
"""What an image can be said to be."""
SUFFIXES = {
    ".vhdx": "vhdx",
    ".avhdx": "vhdx",
    ".vhd": "vhd",
    ".avhd": "vhd",
    ".vmdk": "vmdk",
    ".qcow2": "qcow2",
}
"""The names of images, and the formats that they say."""

_SIGNS = {
    "vhdx": (b"vhdxfile",),
    "vhd": (b"conectix",),
    "vmdk": (b"KDMV", b"# Disk DescriptorFile"),
    "qcow2": (b"QFI\xfb",),
}
_FLAT = re.compile(r"-(flat|f\d+)\.vmdk$", re.IGNORECASE)  # the name of what a guest writes, whole
_SECTOR = 512


def detect(env: Env, path: Path) -> str:
    """The format of an image, or `RAW`: of a block device, and wherever name and content do not agree."""
    said = RAW if _FLAT.search(path.name) else SUFFIXES.get(path.suffix.lower(), RAW)
    with failures(path):
        if said == RAW or not stat.S_ISREG(env.fs.stat(path).st_mode):
            return RAW
        fd = env.fs.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return said if signed(env, path, fd, said) else RAW
        finally:
            env.fs.close(fd)


def refuse_image(env: Env, path: Path) -> None:
    """`UsageError` where the bytes of a disk would take the place of an image that is here, or was by its name."""
    found = detect(env, path) if exists(env.fs, path) else SUFFIXES.get(path.suffix.lower(), RAW)
    if found != RAW:
        raise UsageError(
            f"{path} is a {found} image, and the bytes of its disk are no such image; restore into a new file, with "
            f"--format {found} for one like it"
        )


def signed(env: Env, path: Path, fd: int, said: str) -> bool:
    """Whether the content begins, or ends, as that of the format does."""
    with failures(path):
        start = env.fs.pread(fd, _SECTOR, 0)
        if said == "vhd" and not start.startswith(_SIGNS[said]):  # of a fixed disk, only the end tells
            start = env.fs.pread(fd, _SECTOR, max(0, env.fs.lseek(fd, 0, os.SEEK_END) - _SECTOR))
    return start.startswith(_SIGNS[said])


@contextlib.contextmanager
def failures(path: Path) -> Iterator[None]:
    """What the system says of an image, as what it means for a source."""
    try:
        yield
    except OSError as error:
        raise failure(error, str(path), missing=SourceMissing, other=SourceFailed) from error
