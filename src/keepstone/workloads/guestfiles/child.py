# SPDX-License-Identifier: Apache-2.0
"""The process that looks at a disk: `python -m keepstone.workloads.guestfiles.child SIZE MEMORY SECONDS FD`.

It speaks over its standard input, a socket, and memory that it shares, FD (`wire.py`), and reaches nothing else
(`jail.py`). A request that takes more than so many SECONDS of computing ends it (setitimer(2)); so does the end of its
parent.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
from collections.abc import Iterator

import msgspec

# All that is ever needed is loaded before the doors close, decoders of text among it.
from keepstone.workloads.guestfiles import jail, lvm, sleuth, volumes, xfs
from keepstone.workloads.guestfiles.blocks import Blocks
from keepstone.workloads.guestfiles.filesystems import FileSystem
from keepstone.workloads.guestfiles.wire import (
    BLOCKS,
    DATA,
    DONE,
    FAILED,
    HEADER,
    MOST,
    PART,
    PIECE,
    REQUEST,
    SHARED,
    WANT,
    WANTED,
    Item,
    List,
    Read,
    Request,
    Volume,
    Volumes,
)

__all__ = ["main"]

_ = lvm, sleuth, xfs
_PIPE = 0
_encoder = msgspec.msgpack.Encoder()
_requests = msgspec.msgpack.Decoder(Request)


def main() -> None:
    """Answer until the parent has gone."""
    size, memory, seconds, shared = map(int, sys.argv[1:])
    child = _Child(size, memoryview(mmap.mmap(shared, SHARED)))
    os.close(shared)
    for encoding in ("utf-8", "utf-16-le", "ascii", "latin-1"):
        "".encode(encoding)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    jail.enter(memory)
    while True:
        kind, body = _receive()
        if kind != REQUEST:
            sys.exit(2)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            child.answer(_requests.decode(body))
        except MemoryError:
            _send(FAILED, b"it takes more memory than a disk may")
        except Exception as error:
            _send(FAILED, str(error)[:1000].encode("utf-8", "replace") or type(error).__name__.encode())
        signal.setitimer(signal.ITIMER_PROF, 0)


class _Child:
    def __init__(self, size: int, shared: memoryview) -> None:
        self._shared = shared
        self._disk = Blocks(size, self._ask)
        self._volumes: list[tuple[Volume, FileSystem | None]] | None = None

    def answer(self, request: Request) -> None:
        """Send what is asked for."""
        if self._volumes is None:
            self._volumes = volumes.found(self._disk)
        match request:
            case Volumes():
                _send(PART, _encoder.encode([volume for volume, _ in self._volumes]))
            case List(volume, inode):
                items = self._filesystem(volume).items(inode)
                items.sort(key=lambda item: item.name)
                for batch in _batches(items):
                    _send(PART, _encoder.encode(batch))
            case Read(pieces):
                room = MOST
                for piece in pieces:
                    filesystem = self._filesystem(piece.volume)
                    length = min(piece.length, PIECE)
                    try:
                        data = filesystem.read(piece.inode, piece.stream, piece.packed, piece.offset, length)
                    except (OSError, RuntimeError, ValueError):
                        data = b""
                    self._shared[room : room + len(data)] = data
                    room += length
                    _write(HEADER.pack(DATA, len(data)))
        _send(DONE, b"")

    def _filesystem(self, volume: int) -> FileSystem:
        found = self._volumes[volume][1] if self._volumes else None
        if found is None:
            raise OSError("there is no file system")
        return found

    def _ask(self, offset: int, length: int) -> bytes:
        """Blocks of the disk."""
        parts = []
        while length:
            count = min(length, MOST)
            _send(WANT, WANTED.pack(offset, count))
            kind, got = HEADER.unpack(_exactly(HEADER.size))
            if kind != BLOCKS or got != count:
                raise OSError("the disk cannot be read there")
            parts.append(bytes(self._shared[:count]))
            offset, length = offset + count, length - count
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _batches(items: list[Item]) -> Iterator[list[Item]]:
    """As many at a time as go into a message."""
    batch, size = list[Item](), 0
    for item in items:
        size += 150 + len(item.name) + len(item.target) + 20 * len(item.extents or ())
        batch.append(item)
        if size >= MOST // 4:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _send(kind: int, body: bytes) -> None:
    _write(HEADER.pack(kind, len(body)) + body)


def _write(message: bytes) -> None:
    left = memoryview(message)
    while left:
        left = left[os.write(_PIPE, left) :]


def _receive() -> tuple[int, bytes]:
    kind, length = HEADER.unpack(_exactly(HEADER.size))
    return kind, _exactly(length)


def _exactly(count: int) -> bytes:
    data = bytearray(count)
    view, done = memoryview(data), 0
    while done < count:
        got = os.readv(_PIPE, [view[done:]])
        if not got:
            sys.exit(0)
        done += got
    return bytes(data)


if __name__ == "__main__":
    main()
