# SPDX-License-Identifier: Apache-2.0
"""The process that has the write sessions of agents: a session belongs to one process, and those that answer agents
are several. They hand on what they are asked through a socket in the data folder (`passing.py`).

`python -m keepstone.server.receiver --data DIR` is started by the server. When it dies, its sessions are over, and
the agents begin their backups again; nothing of them was visible.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import msgspec

from keepstone.control.sessions.registry import Registry
from keepstone.decoders import from_msgpack
from keepstone.env import Env
from keepstone.errors import KeepstoneError
from keepstone.server import logs, parent
from keepstone.server.choices import installed
from keepstone.server.passing import ANSWER, ASKED, place, read
from keepstone.server.rounds import Chore, Rounds

__all__ = ["main"]

_log = logging.getLogger("keepstone.server.receiver")  # also where this is the program
_BACKLOG = 128
_SWEEP = 60.0  # seconds between two looks for sessions that nobody uses


class Receiver:
    """Answers at the socket of the data folder `root`, each connection by a thread of its own."""

    def __init__(self, env: Env, root: Path, registry: Registry) -> None:
        self._registry = registry
        self._rounds = Rounds(env, "sweep", [Chore("giving up sessions that nobody uses", _SWEEP, registry.sweep)])
        self._path = place(root)
        self._path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path))
        self._path.chmod(0o600)
        self._listener.listen(_BACKLOG)

    def run(self) -> None:
        """Until `stop`."""
        self._rounds.start()
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                break
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
        self._registry.close()

    def stop(self) -> None:
        """Take no more connections, and give up all sessions."""
        self._rounds.stop()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while (head := read(connection, ASKED.size)) is not None:
                length, size = ASKED.unpack(head)
                about, body = read(connection, length), read(connection, size)
                if about is None or body is None:
                    return
                status, answer = self._answer(about, memoryview(body))
                connection.sendall(ANSWER.pack(status, len(answer)))
                connection.sendall(answer)

    def _answer(self, about: bytearray, body: memoryview) -> tuple[int, bytes]:
        try:
            machine, verb, session, first = from_msgpack(tuple[bytes, str, str, int]).decode(about)
            return 200, self._registry.ask(UUID(bytes=machine), verb, session, first, body)
        except KeepstoneError as error:
            return error.status, msgspec.msgpack.encode((error.code, str(error)))
        except Exception:
            _log.exception("a fault while an agent's call was answered")
            return 500, msgspec.msgpack.encode(("InternalServerError", "a fault of the service; its log says more"))


def receive(root: Path) -> None:
    """Answer until the server says to stop."""
    plane = installed(Env(), root).plane()
    try:
        receiver = Receiver(plane.env, root, Registry(plane))
        signal.signal(signal.SIGTERM, lambda *_: receiver.stop())
        signal.signal(signal.SIGINT, lambda *_: receiver.stop())
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        parent.hear(lambda _: None, receiver.stop)
        parent.say_ready()
        receiver.run()
    finally:
        plane.database.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Be a receiver; the exit code."""
    given = parent.options("receiver", "Has agents' uploads.").parse_args(arguments)
    logs.to_stderr(given.process, given.log_level)
    return parent.run("receiver", lambda: receive(given.data))


if __name__ == "__main__":
    sys.exit(main())
