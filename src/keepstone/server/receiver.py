# SPDX-License-Identifier: Apache-2.0
"""The process that has the write sessions of agents: a session belongs to one process, and those that answer agents
are several. They hand on what they are asked through a socket in the data folder (`passing.py`).

`python -m keepstone.server.receiver --data DIR` is started by the server. When it dies, its sessions are over, and
the agents begin their backups again; nothing of them was visible.
"""

from __future__ import annotations

import argparse
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

__all__ = ["main"]

_log = logging.getLogger("keepstone.server.receiver")  # also where this is the program
_BACKLOG = 128
_SWEEP = 60.0  # seconds


class Receiver:
    """Answers at the socket of the data folder `root`, each connection by a thread of its own."""

    def __init__(self, root: Path, registry: Registry) -> None:
        self._registry = registry
        self._over = threading.Event()
        self._path = place(root)
        self._path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path))
        self._path.chmod(0o600)
        self._listener.listen(_BACKLOG)

    def run(self) -> None:
        """Until `stop`."""
        threading.Thread(target=self._sweep, daemon=True).start()
        while not self._over.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                break
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
        self._registry.close()

    def _sweep(self) -> None:
        while not self._over.wait(_SWEEP):
            try:
                self._registry.sweep()
            except KeepstoneError as error:
                _log.warning("sessions that nobody uses could not be given up: %s", error)

    def stop(self) -> None:
        """Take no more connections, and give up all sessions."""
        self._over.set()
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
        receiver = Receiver(root, Registry(plane))
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
    parser = argparse.ArgumentParser(prog="python -m keepstone.server.receiver", description="Has agents' uploads.")
    parser.add_argument("--data", type=Path, required=True, help="the server's data folder")
    parser.add_argument("--process", required=True, help="what names it in the log")
    parser.add_argument("--log-level", choices=logs.LEVELS, default="info")
    given = parser.parse_args(arguments)
    logs.to_stderr(given.process, given.log_level)
    from keepstone.cli.process import tune

    tune()
    try:
        receive(given.data)
    except KeepstoneError as error:
        _log.error("%s", error, extra={"code": error.code})
        return error.exit_code
    except Exception:
        _log.exception("this receiver fell over a fault")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
