# SPDX-License-Identifier: Apache-2.0
"""An export of an NBD server as a disk to read from."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

from keepstone.disks.nbd.address import Address
from keepstone.disks.nbd.connections import Connections
from keepstone.disks.nbd.protocol import ALLOCATION, DIRTY_BITMAP, Dirty, State
from keepstone.disks.port import Extent
from keepstone.env import Env
from keepstone.errors import SourceFailed, UsageError
from keepstone.objects import PAGE

__all__ = ["NbdSource"]

_ASKED = 0xFFFF0000  # bytes that one question for extents is about, at most


class NbdSource:
    """A `BlockSource` over an export that does not change.

    `bitmap`: the name of a dirty bitmap of QEMU on the server. `extents` of this name, or of `since` where the state
    from which the bitmap counts has another one, gives what it calls dirty, and where the server does not have it, as
    for any other name, the whole disk; `tracked` says which. `state`: what `token` gives.

    Several threads have a connection each, where the server allows it. `patience`: seconds in which a request has to
    be answered. Once the connection broke in the middle, the source gives nothing any more: what answers later may be
    another disk. Raises what `Connection` does; `UsageError` where the address is none.
    """

    def __init__(
        self,
        env: Env,
        address: str | Path | Address,
        export: str = "",
        *,
        bitmap: str | None = None,
        since: str | None = None,
        state: str | None = None,
        tls: ssl.SSLContext | None = None,
        patience: float = 60.0,
    ) -> None:
        place = address if isinstance(address, Address) else Address.of(address, export)
        contexts = [ALLOCATION] if bitmap is None else [ALLOCATION, DIRTY_BITMAP + bitmap]
        self._connections = Connections(env, place, contexts, tls, patience)
        agreed = self._connections.agreed
        self.address = place
        self.size = agreed.size
        self.block_size = max(PAGE, agreed.smallest)
        self._smallest = agreed.smallest
        self._state = state
        self._bitmap = None if bitmap is None else DIRTY_BITMAP + bitmap
        self._since = since or bitmap
        self._contexts = set(agreed.contexts.values())

    def __enter__(self) -> NbdSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._connections.close()

    @property
    def tracked(self) -> bool:
        """Whether the server has the bitmap."""
        return self._bitmap in self._contexts

    def token(self) -> str | None:
        """What the caller calls this state; None where he did not say."""
        return self._state

    def extents(self, since: str | None = None) -> Iterator[Extent]:
        """As the port says. What the server calls zero is, also where it changed."""
        bitmap = self._bitmap if self.tracked and since is not None and since == self._since else None
        return _joined(_whole(self._walk(bitmap), self.size, self.block_size))

    def _walk(self, bitmap: str | None) -> Iterator[Extent]:
        """What was asked for, in the lengths that the server has it."""
        at = 0
        if not self._contexts and self.size:
            yield Extent(0, self.size, zero=False)
            return
        while at < self.size:
            length = min(_ASKED, self.size - at)
            with self._connections.one() as connection:
                found = connection.block_status(at, length)
            runs = {name: _cut(found[name], length) for name in found}
            if bitmap is None and ALLOCATION not in runs:
                runs[ALLOCATION] = [(length, 0)]
            for count, allocation, dirty in _beside(runs.get(ALLOCATION), runs.get(bitmap) if bitmap else None):
                if bitmap is None or dirty & Dirty.DIRTY:
                    yield Extent(at, count, zero=bool(allocation & State.ZERO))
                at += count
            if at % self._smallest:
                raise SourceFailed(f"{self.address}: it has an extent that ends within one of its blocks; see its log")

    def pread_into(self, buffer: memoryview, offset: int) -> int:
        wanted = min(len(buffer), self.size - offset)
        if offset < 0 or wanted < 0:
            raise UsageError(f"{self.address} has no byte {offset}; it is {self.size} bytes long")
        if not wanted:
            return 0
        head, tail = offset % self._smallest, -(offset + wanted) % self._smallest
        with self._connections.one() as connection:
            if not head and not tail:
                connection.read_into(buffer[:wanted], offset)
            else:
                room = memoryview(bytearray(head + wanted + tail))
                connection.read_into(room, offset - head)
                buffer[:wanted] = room[head : head + wanted]
        return wanted


def _cut(runs: list[tuple[int, int]], length: int) -> list[tuple[int, int]]:
    """No more of them than `length` bytes: the last one may go on behind what was asked for."""
    kept = []
    for count, flags in runs:
        count = min(count, length)
        if not count:
            break
        kept.append((count, flags))
        length -= count
    return kept


def _beside(
    first: list[tuple[int, int]] | None, second: list[tuple[int, int]] | None
) -> Iterator[tuple[int, int, int]]:
    """(length, flags, flags) of two lists of the same bytes, as far as both go; flags 0 of one that is not there."""
    if first is None or second is None:
        for count, flags in first or second or ():
            yield count, flags if first is not None else 0, flags if second is not None else 0
        return
    ones, twos = iter(first), iter(second)
    left, a = next(ones)
    right, b = next(twos)
    with contextlib.suppress(StopIteration):
        while True:
            count = min(left, right)
            yield count, a, b
            left, right = left - count, right - count
            if not left:
                left, a = next(ones)
            if not right:
                right, b = next(twos)


def _whole(extents: Iterable[Extent], size: int, block: int) -> Iterator[Extent]:
    """The same in whole blocks, none of them twice; a block that is zeros in part is data."""
    end = 0
    for extent in extents:
        stop = extent.end if extent.end == size else extent.end // block * block
        start = -(-extent.offset // block) * block
        if not extent.zero or start >= stop:
            parts = [(extent.offset, extent.end, False)]
        else:
            parts = [(extent.offset, start, False), (start, stop, True), (stop, extent.end, False)]
        for begin, finish, zero in parts:
            if begin == finish:
                continue
            begin = max(end, begin // block * block)
            finish = min(size, -(-finish // block) * block)
            if begin < finish:
                yield Extent(begin, finish - begin, zero)
                end = finish


def _joined(extents: Iterable[Extent]) -> Iterator[Extent]:
    """The same, neighbours of one kind as one."""
    last: Extent | None = None
    for extent in extents:
        if last is not None and last.end == extent.offset and last.zero == extent.zero:
            last = Extent(last.offset, last.length + extent.length, extent.zero)
            continue
        if last is not None:
            yield last
        last = extent
    if last is not None:
        yield last
