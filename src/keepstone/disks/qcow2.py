# SPDX-License-Identifier: Apache-2.0
"""qcow2 images, of which QEMU reads the tables, and nobody more than the header before.

What could lead QEMU to another file is looked at first (QEMU, docs/interop/qcow2.txt): external data files are refused,
as are encrypted images, for which there is no key; and QEMU is told what is beneath an image, whatever its header says.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from keepstone.disks.detecting import failures
from keepstone.disks.qemu import QemuSource
from keepstone.env import Env
from keepstone.errors import SourceFailed, Unsupported

__all__ = ["Backing", "Qcow2Source", "backing_of"]

_MAGIC = b"QFI\xfb"
_HEADER = struct.Struct(">4sIQIIQI")  # as far as the method of encryption
_SHORTEST = 104
_INCOMPATIBLE, _LENGTH = 72, 100  # offsets of the features without which nobody may read, and of the header's length
_EXTERNAL_DATA = 1 << 2
_EXTENSION = struct.Struct(">II")
_BACKING_FORMAT = 0xE2792ACA
_MOST_HEADER, _MOST_NAME, _MOST_IMAGE = 64 << 10, 1023, 1 << 62


@dataclass(frozen=True, slots=True)
class Backing:
    """What the header of an image says is beneath it. `name`: a path, or an address of QEMU; `format`: empty where it
    does not say."""

    name: str
    format: str


class Qcow2Source(QemuSource):
    """A `BlockSource` over a qcow2 image that is open as `fd`; the caller closes that.

    `Unsupported` where it depends on other files, or QEMU is not here; `SourceFailed` where QEMU does not take it.
    """

    def __init__(self, env: Env, path: Path, fd: int) -> None:
        if backing_of(env, path, fd) is not None:
            raise _elsewhere(path)
        # Its own name may be given to another file by now; and whatever its header says, it has no backing file.
        image = {"driver": "qcow2", "backing": None, "file": {"driver": "file", "filename": f"/proc/self/fd/{fd}"}}
        super().__init__(env, path, image, [fd])


def backing_of(env: Env, path: Path, fd: int) -> Backing | None:
    """What is beneath this open image by its header; None where nothing is. `Unsupported` for one that is encrypted or
    has its data in another file, `SourceFailed` where it is none."""
    with failures(path):
        header = env.fs.pread(fd, _MOST_HEADER, 0)
    if len(header) < _SHORTEST:
        raise SourceFailed(f"{path}: its header was cut short; take another copy of it")
    magic, version, at, length, _, _, encryption = _HEADER.unpack_from(header)
    if magic != _MAGIC:
        raise SourceFailed(f"{path} is no qcow2 image; see what it is by `qemu-img info {path}`")
    if version not in (2, 3):
        raise Unsupported(f"{path} is a qcow2 image of version {version}; 2 and 3 are known")
    if version == 3 and struct.unpack_from(">Q", header, _INCOMPATIBLE)[0] & _EXTERNAL_DATA:
        raise _elsewhere(path)
    if encryption:
        raise Unsupported(f"{path} is encrypted; back the disk up from within its machine, or decrypt it first")
    if not at or not length:
        return None
    name = b""
    if length <= _MOST_NAME and at < _MOST_IMAGE:
        with failures(path):
            name = env.fs.pread(fd, length, at)
    if len(name) < length or b"\0" in name:
        raise SourceFailed(f"{path}: its header names a backing file, and the name is damaged; take another copy of it")
    extensions = struct.unpack_from(">I", header, _LENGTH)[0] if version == 3 else _INCOMPATIBLE
    return Backing(os.fsdecode(name), _format(header[:at], extensions))


def _format(header: bytes, at: int) -> str:
    """Of the backing file, by the extensions of the header, which begin here."""
    while at + _EXTENSION.size <= len(header):
        kind, length = _EXTENSION.unpack_from(header, at)
        at += _EXTENSION.size
        if kind == _BACKING_FORMAT:
            return header[at : at + length].decode("ascii", "replace")
        if not kind:
            break
        at += -(-length // 8) * 8
    return ""


def _elsewhere(path: Path) -> Unsupported:
    return Unsupported(
        f"{path} has a part of its disk in another file; back up what `qemu-img convert -O raw {path} DISK.raw` "
        "makes of it"
    )
