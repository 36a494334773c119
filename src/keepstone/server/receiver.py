# SPDX-License-Identifier: Apache-2.0
"""The process to which agents write and from which they read: a write session belongs to one process, and those that
answer are several. They hand on connections for transfers as they come (`passing.py`), before TLS has begun.

`python -m keepstone.server.receiver --data DIR` is started by the server. When it dies, its sessions are over, and
the agents begin their backups again; nothing of them was visible.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from keepstone.agentapi.exchange import Exchange, Hangup
from keepstone.agentapi.transfers import Transfers
from keepstone.control.sessions.registry import Registry
from keepstone.env import Env
from keepstone.remote.tls import TlsConnection
from keepstone.remote.wire import TRANSFER
from keepstone.server import logs, parent
from keepstone.server.answerers import RENEW
from keepstone.server.choices import installed
from keepstone.server.metrics import Metrics
from keepstone.server.passing import listening, received
from keepstone.server.processes import Processes
from keepstone.server.rounds import Chore, Rounds

__all__ = ["main"]

_log = logging.getLogger("keepstone.server.receiver")  # also where this is the program
_SWEEP = 60.0  # seconds between two looks for sessions that nobody uses
_STRANGERS = 256  # connections that have not proved who they are, at a time
_MOST = 4096  # connections
_GREETING = 10.0  # seconds for TLS to begin
_NAP = 0.5  # seconds
_WIRE = 64 << 10  # bytes of a connection that are read at once: hundreds may have as many
_STACK = 512 << 10  # bytes of a connection's thread; nothing in it goes deep


class Receiver:
    """Serves the connections that come to the data folder `root`, each in a thread of its own."""

    def __init__(self, env: Env, root: Path, registry: Registry, transfers: Transfers) -> None:
        self._tls = root / "tls"
        self._registry = registry
        self._transfers = transfers
        self._rounds = Rounds(env, "sweep", [Chore("giving up sessions that nobody uses", _SWEEP, registry.sweep)])
        self._strangers = threading.BoundedSemaphore(_STRANGERS)
        self._room = threading.BoundedSemaphore(_MOST)
        self._listener = listening(root)
        self._listener.settimeout(_NAP)
        self.renew()

    def renew(self) -> None:
        """Use the certificate that is in the folder now for connections from now on."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._tls / "server.pem", self._tls / "server.key")
        context.load_verify_locations(self._tls / "ca.pem")
        context.verify_mode = ssl.CERT_OPTIONAL
        context.set_alpn_protocols([TRANSFER])
        self._context = context

    def run(self) -> None:
        """Until `stop`."""
        threading.stack_size(_STACK)
        self._rounds.start()
        while True:
            try:
                connection = received(self._listener)
            except TimeoutError:  # for a signal that the system handed to another thread
                continue
            except OSError:
                break
            if connection is None:
                continue
            if not self._room.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
        self._registry.close()

    def stop(self) -> None:
        """Take no more connections, and give up all sessions."""
        self._rounds.stop()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, contextlib.suppress(Hangup):
                secured = self._greeted(connection)
                if secured is not None:
                    self._transfers.serve(Exchange(secured), secured.certificate)
        finally:
            self._room.release()

    def _greeted(self, connection: socket.socket) -> TlsConnection | None:
        """TLS has begun; None where it cannot, or too many others are about to."""
        if not self._strangers.acquire(blocking=False):
            return None
        try:
            secured = TlsConnection(connection, self._context, wire=_WIRE)
            secured.greet(_GREETING)
            return secured
        except OSError:  # whatever a stranger did
            return None
        finally:
            self._strangers.release()


def receive(root: Path, name: str) -> None:
    """Serve until the server says to stop."""
    plane = installed(Env(), root).plane()
    try:
        registry = Registry(plane)
        answered = Metrics(plane, name, partial(Processes.read, root)).answered
        receiver = Receiver(plane.env, root, registry, Transfers(plane, registry, answered))
        signal.signal(signal.SIGTERM, lambda *_: receiver.stop())
        signal.signal(signal.SIGINT, lambda *_: receiver.stop())
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        parent.hear(lambda line: receiver.renew() if line == RENEW else None, receiver.stop)
        parent.say_ready()
        receiver.run()
    finally:
        plane.database.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Be a receiver; the exit code."""
    given = parent.options("receiver", "Agents write to it and read from it.").parse_args(arguments)
    logs.to_stderr(given.process, given.log_level)
    return parent.run("receiver", lambda: receive(given.data, given.process))


if __name__ == "__main__":
    sys.exit(main())
