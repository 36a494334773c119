# SPDX-License-Identifier: Apache-2.0
"""What a machine shows: on its screen, and on its first serial console."""

from __future__ import annotations

import base64
import contextlib
import os
import re
from pathlib import Path

from keepstone.env import Env
from keepstone.workloads.kvm.qmp import Monitor, Refused

__all__ = ["Console", "Screen"]

_LARGEST = 32 << 20  # bytes of a picture that is looked at
_PICTURE = 4 << 20  # bytes of one that is kept
_TAIL = 16 << 10  # bytes of a console that are kept
_CODES = re.compile(rb"\x1b\][^\x07\x1b]{0,200}\x07|\x1b\[[0-?]{0,50}[ -/]{0,5}[@-~]|\x1b[@-Z\\-_]|[\0\x07\x08]")
_LOGIN = re.compile(rb"\blogin: *\Z", re.IGNORECASE)
_LINE = 200  # bytes of the last line that are looked at


class Screen:
    """The screen; QEMU puts pictures of it into `folder`, where nothing of them stays."""

    def __init__(self, env: Env, monitor: Monitor, folder: Path) -> None:
        self._env = env
        self._monitor = monitor
        self._file = folder / "screen"

    def look(self) -> bytes:
        """What is shown, a PPM; empty where there is nothing to be seen, or all of it has one colour."""
        picture = self._dump(_LARGEST)
        pixels = picture.split(b"\n", 3)[3] if picture.count(b"\n", 0, 100) >= 3 else b""
        return b"" if pixels == pixels[:3] * (len(pixels) // 3) else picture

    def picture(self) -> bytes:
        """The same as a PNG; empty where QEMU has none (before 7.1) or it is too large."""
        return self._dump(_PICTURE, format="png")

    def _dump(self, most: int, format: str | None = None) -> bytes:
        fs = self._env.fs
        try:
            self._monitor.execute("screendump", filename=str(self._file), format=format)
            fd = fs.open(self._file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                if fs.fstat(fd).st_size > most:
                    return b""
                parts = []
                while data := fs.read(fd, 1 << 20):
                    parts.append(data)
                return b"".join(parts)
            finally:
                fs.close(fd)
        except (Refused, OSError):
            return b""
        finally:
            with contextlib.suppress(OSError):
                fs.unlink(self._file)


class Console:
    """The end of what came over the serial console `console`, which QEMU keeps as a ring."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._tail = b""
        self.count = 0

    def look(self) -> None:
        """Take what came since."""
        with contextlib.suppress(Refused, ValueError):
            told = self._monitor.execute("ringbuf-read", device="console", size=1 << 16, format="base64")
            data = base64.b64decode(str(told))
            self.count += len(data)
            self._tail = (self._tail + data)[-_TAIL:]

    @property
    def asks_for_login(self) -> bool:
        """Whether it ends with the question who wants in."""
        return _LOGIN.search(_CODES.sub(b"", self._tail)[-_LINE:]) is not None

    @property
    def text(self) -> str:
        """For people, without what only terminals understand."""
        plain = _CODES.sub(b"", self._tail).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return plain.decode("utf-8", "replace")
