# SPDX-License-Identifier: Apache-2.0
"""Connections to one export of an NBD server, for several threads."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator
from functools import partial

from keepstone.disks.nbd.address import Address
from keepstone.disks.nbd.agreement import Agreement
from keepstone.disks.nbd.client import Connection
from keepstone.env import Env
from keepstone.errors import KeepstoneError, SourceFailed, UsageError

__all__ = ["Connections"]

_FURTHER = 5.0  # seconds until a further connection is given up, which a server may take and never answer


class Connections:
    """As many as there are threads that want one, and as the server allows. `agreed`: what it offers on each of them.

    Once one of them broke in the middle, none is given any more: what answers later may be another disk. Raises what
    `Connection` does.
    """

    def __init__(
        self, env: Env, address: Address, contexts: list[str], tls: ssl.SSLContext | None, patience: float
    ) -> None:
        if address.tls and tls is None:
            tls = ssl.create_default_context()
        self._make: Callable[[float], Connection] = partial(Connection, env, address, contexts, tls)
        self._address = address
        first = self._make(patience)
        self.agreed: Agreement = first.agreed
        self._further = min(patience, _FURTHER)
        self._idle = [first]
        self._count = 1
        self._limit = max(1, min(env.threads, 8)) if self.agreed.multiple else 1
        self._lost: KeepstoneError | None = None
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def one(self) -> Iterator[Connection]:
        """A connection of the caller's own for a while."""
        connection = self._take()
        try:
            yield connection
        except KeepstoneError as error:
            if connection.lost:
                self._lost = self._lost or error
            raise
        finally:
            self._give(connection)

    def _take(self) -> Connection:
        with self._changed:
            while True:
                if self._lost is not None:
                    raise SourceFailed(f"{self._address}: it is not used any more, since {self._lost}")
                if self._idle:
                    return self._idle.pop()
                if self._count < self._limit:
                    self._count += 1
                    break
                if not self._count:
                    raise UsageError(f"{self._address}: it is closed")
                self._changed.wait()
        return self._another() or self._take()

    def _another(self) -> Connection | None:
        """A further connection; None where there is none to be had, as there is no more from then on."""
        connection = None
        try:
            connection = self._make(self._further)
            if connection.agreed == self.agreed:
                return connection
            connection.close()
        except KeepstoneError:
            pass
        with self._changed:
            self._count -= 1
            self._limit = max(1, self._count)
            self._changed.notify_all()
        return None

    def _give(self, connection: Connection) -> None:
        with self._changed:
            if connection.lost or not self._limit:
                connection.close()
                self._count -= 1
            else:
                self._idle.append(connection)
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._limit = 0
            self._count -= len(self._idle)
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
