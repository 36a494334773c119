# SPDX-License-Identifier: Apache-2.0
"""What a reparse point of NTFS says ([MS-FSCC], 2.1.2): a link, or that the content is elsewhere."""

from __future__ import annotations

import struct

__all__ = ["TargetOf"]

_HEADER = struct.Struct("<IHH")  # tag, length of what follows, reserved
_LINK = struct.Struct("<HHHH")  # substitute name and print name: offset and length
_SYMLINK, _MOUNT_POINT, _WSL_LINK = 0xA000000C, 0xA0000003, 0xA000001D
_PLAIN = {0x80000023, 0x80000024, 0x80000025, 0x80000026}  # of WSL: socket, fifo, character and block device


class TargetOf:
    """`target`: where a link leads, as its owner sees it; empty where this is no link, or cannot be understood.
    `elsewhere`: whether the content of the file is not where it would be."""

    def __init__(self, data: bytes) -> None:
        self.target = b""
        if len(data) < _HEADER.size:
            self.elsewhere = True
            return
        tag, length, _ = _HEADER.unpack_from(data)
        body = data[_HEADER.size : _HEADER.size + length]
        self.elsewhere = tag not in _PLAIN
        if tag == _WSL_LINK:  # a version, u32, and the target in UTF-8
            self.target = body[4:].rstrip(b"\0")
        elif tag in (_SYMLINK, _MOUNT_POINT) and len(body) >= _LINK.size:
            names = body[_LINK.size + (4 if tag == _SYMLINK else 0) :]  # 2.1.2.4 has flags before them, 2.1.2.5 not
            substitute, substitute_length, shown, shown_length = _LINK.unpack_from(body)
            name = names[shown : shown + shown_length] or names[substitute : substitute + substitute_length]
            self.target = name.decode("utf-16-le", "replace").replace("\0", "").encode()
