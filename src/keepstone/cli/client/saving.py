# SPDX-License-Identifier: Apache-2.0
"""Bytes that come from a service, into a file or the standard output: what is cut off goes on where it was.

A file has its name when it is whole. Until then it lies beside that under a name that says what of, so that only the
rest of the same thing is ever put behind it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

from keepstone.cli.client.refusals import UNREACHABLE
from keepstone.cli.progress import Meter
from keepstone.errors import KeepstoneError, NotFound, TargetExists, UsageError
from keepstone.objects import failure

__all__ = ["save", "send"]

Pieces = Callable[[int], Iterator[bytes]]
"""The bytes from a position on."""
_AWAY = 60.0  # seconds for which nothing may come
_PAUSE = 1.0  # seconds between two tries


def save(pieces: Pieces, size: int | None, target: Path, what: str, meter: Meter) -> None:
    """Make the new file `target`. `size`: None where nobody knows, and then nothing goes on. `what`: names the bytes.

    `TargetExists`, `NotFound`; `ServiceUnavailable` where nothing comes for long.
    """
    if os.path.lexists(target):
        raise TargetExists(f"{target} is there already; choose another file")
    part = target.with_name(f".{target.name}.{blake2b(what.encode(), digest_size=8).hexdigest()}.part")
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_TRUNC if size is None else os.O_APPEND)
    try:
        with os.fdopen(os.open(part, flags, 0o600), "r+b") as file:
            meter.done = begin = file.seek(0, os.SEEK_END)
            _take(pieces, size, begin, file, meter)
            file.flush()
            os.fsync(file.fileno())
        os.link(part, target)  # and not over what somebody has put there meanwhile
        part.unlink()
    except FileExistsError as error:
        raise TargetExists(f"{target} is there by now; what came is {part}") from error
    except OSError as error:
        raise failure(error, os.fspath(target), missing=NotFound) from error


def send(pieces: Pieces, size: int | None, meter: Meter) -> None:
    """To the standard output. `UsageError` where that is a terminal."""
    if sys.stdout.isatty():
        raise UsageError("bytes do not belong on a terminal; name a file by --target, or send them into a program")
    _take(pieces, size, 0, sys.stdout.buffer, meter)
    sys.stdout.buffer.flush()


def _take(pieces: Pieces, size: int | None, at: int, stream: BinaryIO, meter: Meter) -> None:
    """Write everything from `at` on."""
    until = time.monotonic() + _AWAY
    while size is None or at < size:
        try:
            for piece in pieces(at):
                stream.write(piece)
                at += len(piece)
                meter.advance(len(piece))
                until = time.monotonic() + _AWAY
            if size is None or at == size:
                return
            if at > size:
                raise KeepstoneError(f"{at} bytes came where there are {size}; remove what came, and try again")
        except KeepstoneError as error:
            if error.code != UNREACHABLE or time.monotonic() > until:
                raise
            if size is None and at:
                raise type(error)(
                    f"{error}. An archive broke off, which cannot go on; try again, or restore it, which leaves out "
                    "what is damaged"
                ) from error
        time.sleep(_PAUSE)
