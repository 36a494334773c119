# SPDX-License-Identifier: Apache-2.0
"""An export of an NBD server as a disk to write to."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from keepstone.disks.nbd.address import Address
from keepstone.disks.nbd.client import Connection
from keepstone.disks.nbd.connections import Connections
from keepstone.env import Env
from keepstone.errors import SourceFailed, StorageError, UsageError
from keepstone.objects import Buffer

__all__ = ["NbdSink"]


class NbdSink:
    """A `BlockSink` over an export that can be written. It is there before and after: `abort` leaves what was written.

    `changed`: how many bytes were to be written or made zeros. Threads and `patience` as of `NbdSource`, beside which
    it can be used. `UsageError` where the server lets nobody write, `SourceMissing` and `AccessDenied` as a
    `Connection` raises them, `StorageFull`; `StorageError` for all else, also where the server goes away or breaks the
    protocol.
    """

    def __init__(
        self,
        env: Env,
        address: str | Path | Address,
        export: str = "",
        *,
        tls: ssl.SSLContext | None = None,
        patience: float = 60.0,
    ) -> None:
        self.address = address if isinstance(address, Address) else Address.of(address, export)
        self._connections = Connections(env, self.address, [], tls, patience)
        agreed = self._connections.agreed
        self._smallest = agreed.smallest
        self._edges = threading.Lock()
        self._counting = threading.Lock()
        self.size = agreed.size
        self.changed = 0
        if not agreed.writable:
            self._connections.close()
            raise UsageError(f"{self.address} is read-only; have the server export it writable")

    def __enter__(self) -> NbdSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.abort()

    def write(self, offset: int, data: Buffer) -> None:
        view = memoryview(data).cast("B")
        with self._changing(offset, len(view)) as connection:
            head, tail = offset % self._smallest, -(offset + len(view)) % self._smallest
            if not head and not tail:
                connection.write_from(view, offset)
                return
            with self._edges:  # nobody else changes these blocks between reading and writing them
                room = memoryview(bytearray(head + len(view) + tail))
                connection.read_into(room, offset - head)
                room[head : head + len(view)] = view
                connection.write_from(room, offset - head)

    def zero(self, offset: int, length: int) -> None:
        begin = min(-(-offset // self._smallest) * self._smallest, offset + length)
        end = max((offset + length) // self._smallest * self._smallest, begin)
        for at, stop in ((offset, begin), (end, offset + length)):
            if at < stop:  # a part of a block
                self.write(at, bytes(stop - at))
        with self._changing(begin, end - begin) as connection:
            connection.zero(begin, end - begin)

    def finish(self) -> None:
        """As the port says; a server that has several connections flushes for all of them ("Transmission flags")."""
        with self._one() as connection:
            connection.flush()
        self._connections.close()

    def abort(self) -> None:
        self._connections.close()

    @contextlib.contextmanager
    def _changing(self, offset: int, length: int) -> Iterator[Connection]:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise UsageError(f"bytes {offset} to {offset + length} are not in {self.address} ({self.size} bytes)")
        with self._counting:
            self.changed += length
        with self._one() as connection:
            yield connection

    @contextlib.contextmanager
    def _one(self) -> Iterator[Connection]:
        try:
            with self._connections.one() as connection:
                yield connection
        except SourceFailed as error:
            raise StorageError(str(error)) from error
