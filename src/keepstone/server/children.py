# SPDX-License-Identifier: Apache-2.0
"""Processes of one kind that a server keeps alive: started, listened to, started anew when they die, and stopped at the
end.

Each has a thread here, which reads what it says (its log) until it ends. A child's stdin is a pipe whose other end only
the server has: it is told by lines what to do, and when the pipe closes, because the server says so or because the
server is gone, it stops. The child's side of this is `parent.py`.

Invariants
* What has to be done for one that died is done at once: the thread has seen it end.
* One that dies soon after its start is started anew ever later, up to `_LONGEST` seconds.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from keepstone.env import Env
from keepstone.server import logs
from keepstone.server.parent import READY

__all__ = ["PATIENCE", "Birth", "Children"]

_log = logging.getLogger(__name__)
PATIENCE = 20.0
"""Seconds that a child may take to stop; more than it takes by itself."""
_FIRST, _LONGEST = 0.1, 30.0  # seconds before it is started anew
_HEALTHY = 60.0  # seconds that it must have lived to count as one that does
_CHUNK = 1 << 16  # what a pipe holds: many lines of its log are one piece of work here


def _nothing() -> None:
    return


@dataclass(frozen=True, slots=True)
class Birth:
    """What a new process is. `descriptors`: open files that it gets too. `bury`: what is done when it has ended."""

    command: Sequence[str]
    descriptors: tuple[int, ...] = ()
    bury: Callable[[], None] = _nothing


class Children:
    """`count` of them, each named after its `kind`. `birth`: how one begins, by its name; asked again for each that
    takes the place of another.

    `ready` is called when one says that it is, `died` when one has that nobody told to stop, `changed` when one has
    begun or ended; each by a thread of its own.
    """

    def __init__(
        self,
        env: Env,
        kind: str,
        count: int,
        birth: Callable[[str], Birth],
        *,
        ready: Callable[[], None] = _nothing,
        died: Callable[[], None] = _nothing,
        changed: Callable[[], None] = _nothing,
    ) -> None:
        self.wanted = count
        self.restarts = 0
        self._env = env
        self._birth = birth
        self._ready, self._died, self._changed = ready, died, changed
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._begun = threading.Semaphore(0)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        names = [f"{kind}-{number + 1}" for number in range(count)]
        self._threads = [threading.Thread(target=self._look_after, args=(name,), name=name) for name in names]

    def start(self) -> None:
        """Start them all, beside one another; when this returns each has begun, or could not, and `changed` knows."""
        for thread in self._threads:
            thread.start()
        for _ in self._threads:
            self._begun.acquire()

    def alive(self) -> dict[str, int]:
        """Those that run now: their names and process ids."""
        with self._lock:
            return {name: process.pid for name, process in sorted(self._processes.items()) if process.poll() is None}

    def send(self, line: str) -> None:
        """Tell all that run. One that begins now may hear of it, or not."""
        with self._lock:
            for process in self._processes.values():
                if process.stdin is not None and not process.stdin.closed:
                    with contextlib.suppress(BrokenPipeError):  # it has died just now
                        process.stdin.write(f"{line}\n".encode())
                        process.stdin.flush()

    def tell(self) -> None:
        """Tell them to stop, and wait for nothing."""
        with self._lock:
            self._stopping.set()
            for process in self._processes.values():
                _close(process)
                if process.poll() is None:
                    process.terminate()  # for one that still begins, and does not listen yet

    def hurry(self) -> None:
        """Tell them not to wait for anybody while they stop."""
        with self._lock:
            for process in self._processes.values():
                if process.poll() is None:
                    process.send_signal(signal.SIGINT)

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
            birth = self._birth(name)
            ended = self._live(name, birth)
            if not ended:
                return
            if self._stopping.is_set():
                self._changed()
                birth.bury()
                return
            lived = (self._env.boot_time() - began) / 1e9
            pause = _FIRST if lived > _HEALTHY else min(_LONGEST, 2 * pause)
            _log.error("%s %s after %.1f seconds; it is started anew in %.1f", name, ended, lived, pause)
            with self._lock:
                self.restarts += 1
            self._changed()
            birth.bury()
            self._died()
            if self._stopping.wait(pause):
                return

    def _live(self, name: str, birth: Birth) -> str:
        """From its begin to its end; how it ended, in words, or nothing where it is not to begin."""
        try:
            process = self._spawn(name, birth)
            if process is None:
                return ""
            self._changed()
        except OSError as error:  # such as no room for another process
            return f"could not be started ({error})"
        finally:
            self._begun.release()
        code = self._listen(name, process)
        return f"was killed by signal {-code}" if code < 0 else f"ended with {code}"

    def _spawn(self, name: str, birth: Birth) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._stopping.is_set():
                return None
            process = subprocess.Popen(
                birth.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=birth.descriptors,
                start_new_session=True,  # a Ctrl-C at the terminal is for the server
            )
            self._processes[name] = process
            return process

    def _listen(self, name: str, process: subprocess.Popen[bytes]) -> int:
        """Until it ends; how it did."""
        assert process.stderr is not None
        rest = b""
        with process.stderr as pipe:
            while data := os.read(pipe.fileno(), _CHUNK):
                *lines, rest = (rest + data).split(b"\n")
                self._heard(name, lines)
        self._heard(name, [rest])
        code = process.wait()
        with self._lock:
            _close(process)
        return code

    def _heard(self, name: str, lines: Sequence[bytes]) -> None:
        said = [line.decode(errors="replace") for line in lines if line]
        logs.relay([line for line in said if line != READY], name)
        if READY in said:
            self._ready()


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None and not process.stdin.closed:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
