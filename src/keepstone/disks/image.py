# SPDX-License-Identifier: Apache-2.0
"""The file of a disk image as its parser sees it: bytes at offsets, none of them believed."""

from __future__ import annotations

import os
from typing import Protocol

from keepstone.env import Env
from keepstone.errors import SourceFailed

__all__ = ["MOST_BYTES", "Image", "ImageFile", "text"]

MOST_BYTES = 8 << 20
"""The most that a parser reads at once."""
_MOST_TEXT = 1024


class Image(Protocol):
    """What a parser reads from."""

    @property
    def size(self) -> int:
        """Bytes of the file."""

    def read(self, offset: int, length: int, what: str) -> bytes:
        """Exactly these bytes. `what` names them in a `SourceFailed` where they are not all there."""


class ImageFile:
    """An `Image` over a file that is open already."""

    def __init__(self, env: Env, fd: int) -> None:
        self._fs = env.fs
        self._fd = fd
        self.size = env.fs.lseek(fd, 0, os.SEEK_END)

    def read(self, offset: int, length: int, what: str) -> bytes:
        if length > MOST_BYTES:
            raise SourceFailed(f"{what} wants {length} bytes at once; it is damaged")
        if not 0 <= offset <= self.size - length:
            raise SourceFailed(
                f"{what} is at {offset}, and the file has {self.size} bytes; it was cut short or damaged"
            )
        found = b""
        while len(found) < length:
            piece = self._fs.pread(self._fd, length - len(found), offset + len(found))
            if not piece:
                raise SourceFailed(f"{what} cannot be read: the file became shorter")
            found += piece
        return found


def text(data: bytes, encoding: str) -> str:
    """What of these bytes is a string, up to its first NUL; short, and with nothing that cannot be encoded again."""
    return data.decode(encoding, "replace").split("\0")[0][:_MOST_TEXT]
