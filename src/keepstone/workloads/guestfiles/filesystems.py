# SPDX-License-Identifier: Apache-2.0
"""Which file system a range of bytes holds, by its marks; what can read it, or why nothing can."""

from __future__ import annotations

from typing import Protocol

from keepstone.workloads.guestfiles.blocks import Readable
from keepstone.workloads.guestfiles.wire import Item

__all__ = ["FileSystem", "opened"]

_MARKS = (
    # the file system, and what stands where: [MS-FSCC] and the boot sectors of NTFS and exFAT; ext4's ondisk/super.rst;
    # xfs_dsb; TN1150 of Apple; ECMA-119, 8.4
    ("ntfs", 3, b"NTFS    "),
    ("exfat", 3, b"EXFAT   "),
    ("xfs", 0, b"XFSB"),
    ("ext", 1080, b"\x53\xef"),
    ("fat", 54, b"FAT"),
    ("fat", 82, b"FAT32   "),
    ("hfs+", 1024, b"H+"),
    ("hfs+", 1024, b"HX"),
    ("iso9660", 32769, b"CD001"),
)
_CLOSED = (
    ("bitlocker", 3, b"-FVE-FS-", "encrypted by BitLocker"),
    ("luks", 0, b"LUKS\xba\xbe", "encrypted by LUKS"),
    ("btrfs", 0x10040, b"_BHRfS_M", "btrfs cannot be read yet"),
    ("refs", 3, b"ReFS\0\0\0\0", "ReFS cannot be read"),
    ("apfs", 32, b"NXSB", "APFS cannot be read yet"),
    ("swap", 4086, b"SWAPSPACE2", "swap space, no files"),
    ("raid", 4096, b"\xfc\x4e\x2b\xa9", "a member of a RAID of Linux"),
)
_READ = 66 << 10  # bytes in which all of these marks are


class FileSystem(Protocol):
    """One that can be read. `OSError` and what else the libraries raise, where it is damaged."""

    kind: str
    label: str

    def items(self, inode: int) -> list[Item]:
        """What is in a directory, 0 for the root, in any order."""

    def read(self, inode: int, stream: int, packed: bool, offset: int, length: int) -> bytes:
        """Bytes of a file; see `wire.Piece`."""


def opened(volume: Readable) -> tuple[str, FileSystem | None, str]:
    """(file system, what reads it, why nothing does)."""
    head = volume.read(0, _READ)
    for kind, at, mark, reason in _CLOSED:
        if head[at : at + len(mark)] == mark:
            return kind, None, reason
    for kind, at, mark in _MARKS:
        if head[at : at + len(mark)] != mark:
            continue
        try:
            if kind == "xfs":
                from keepstone.workloads.guestfiles.xfs import XFS

                found: FileSystem = XFS(volume)
            else:
                from keepstone.workloads.guestfiles.sleuth import Sleuth

                found = Sleuth(volume, kind)
            return found.kind, found, ""
        except (OSError, RuntimeError, ValueError, ArithmeticError) as error:
            return kind, None, f"it cannot be read: {error}"
    return "", None, ""
