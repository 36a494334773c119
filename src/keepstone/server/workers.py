# SPDX-License-Identifier: Apache-2.0
"""The worker processes of a server: started, listened to, started anew when they die, and stopped at the end.

Each has a thread here, which reads what the worker says (its log) until it ends. A worker's stdin is a pipe whose other
end only the server has: when it closes, because the server says so or because the server is gone, the worker stops.

Invariants
* The jobs of a worker that died are free for others at once: the thread has seen it end.
* A worker that dies soon after its start is started anew ever later, up to `_LONGEST` seconds.
"""

from __future__ import annotations

import logging
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import sqlalchemy as sa

from keepstone.env import Env
from keepstone.jobs import JobQueue
from keepstone.server import logs

__all__ = ["PATIENCE", "PROGRAM", "Workers"]

_log = logging.getLogger(__name__)
PROGRAM = (sys.executable, "-m", "keepstone.server.worker")
"""What a worker is; `--data`, `--owner`, `--process` and `--log-level` follow."""
PATIENCE = 20.0
"""Seconds that a worker may take to stop; more than it takes by itself."""
_FIRST, _LONGEST = 0.1, 30.0  # seconds before it is started anew
_HEALTHY = 60.0  # seconds that it must have lived to count as one that does


class Workers:
    """`count` of them on the data folder `root`. `restarted` is called for each that died."""

    def __init__(
        self,
        env: Env,
        root: Path,
        queue: JobQueue,
        count: int,
        *,
        level: str = "info",
        program: Sequence[str] = PROGRAM,
        restarted: Callable[[], None] = lambda: None,
    ) -> None:
        self._env = env
        self._queue = queue
        self._command = [*program, "--data", str(root), "--log-level", level]
        self._restarted = restarted
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._threads = [
            threading.Thread(target=self._look_after, args=(f"worker-{number + 1}",), name=f"worker-{number + 1}")
            for number in range(count)
        ]

    def start(self) -> None:
        """Start them all."""
        for thread in self._threads:
            thread.start()

    def alive(self) -> int:
        """How many run now."""
        with self._lock:
            return sum(process.poll() is None for process in self._processes.values())

    def tell(self) -> None:
        """Tell them to stop, and wait for nothing."""
        with self._lock:
            self._stopping.set()
            for process in self._processes.values():
                _close(process)
                if process.poll() is None:
                    process.terminate()  # for one that still begins, and does not listen yet

    def stop(self) -> None:
        """Tell them to stop, wait until they have, and end those that have not after `PATIENCE` seconds."""
        self.tell()
        until = self._env.boot_time() + int(PATIENCE * 1e9)
        begun = [thread for thread in self._threads if thread.ident is not None]
        for thread in begun:
            thread.join(max(0.0, (until - self._env.boot_time()) / 1e9))
        with self._lock:
            for name, process in self._processes.items():
                if process.poll() is None:
                    _log.error("%s has not stopped within %.0f seconds and is killed", name, PATIENCE)
                    process.kill()
        for thread in begun:
            thread.join()

    def _look_after(self, name: str) -> None:
        pause = _FIRST
        while True:
            began = self._env.boot_time()
            owner = f"{socket.gethostname()}/{name}/{secrets.token_hex(6)}"
            process = self._spawn(name, owner)
            if process is None:
                return
            code = self._listen(name, process)
            if self._stopping.is_set():
                self._bury(owner)
                return
            lived = (self._env.boot_time() - began) / 1e9
            pause = _FIRST if lived > _HEALTHY else min(_LONGEST, 2 * pause)
            ended = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
            _log.error("%s %s after %.1f seconds; it is started anew in %.1f", name, ended, lived, pause)
            self._bury(owner)
            self._restarted()
            if self._stopping.wait(pause):
                return

    def _spawn(self, name: str, owner: str) -> subprocess.Popen[str] | None:
        with self._lock:
            if self._stopping.is_set():
                return None
            process = subprocess.Popen(
                [*self._command, "--owner", owner, "--process", name],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,  # a Ctrl-C at the terminal is for the server
            )
            self._processes[name] = process
            return process

    def _listen(self, name: str, process: subprocess.Popen[str]) -> int:
        """Until it ends; how it did."""
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                logs.relay(line.rstrip("\n"), name)
        code = process.wait()
        with self._lock:
            _close(process)
        return code

    def _bury(self, owner: str) -> None:
        try:
            count = self._queue.bury(owner)
        except sa.exc.SQLAlchemyError as error:  # then their leases end
            _log.warning("the jobs of a worker that died have to wait: %s", error)
            return
        if count:
            _log.warning("%d jobs of a worker that died go on with others", count)


def _close(process: subprocess.Popen[str]) -> None:
    if process.stdin is not None and not process.stdin.closed:
        process.stdin.close()
