# SPDX-License-Identifier: Apache-2.0
"""The process that has a machine, so that nothing of it is left when we are gone.

    python -I -S keeper.py

It stands between us and QEMU: QEMU is its child, and dies with it (prctl(2), PR_SET_PDEATHSIG), and it ends QEMU and
removes what it was told to remove when our end of its pipe closes, whether we closed it, failed, or were killed. It is
there before the first file is. Until `release` nothing outlives us; after it the machine goes on without us, and the
keeper waits for its end, to remove the sockets.

What is said over the pipe is one JSON document a line. From us: `Task` first, then `Start`, `Word`. To us: `Told`.

Run as a program it needs the standard library only. A signal to our group or session does not reach it, and SIGTERM,
which a service manager sends to all, does not end it; QEMU hears that one itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Ended", "Keeper"]

_PDEATHSIG = 1  # PR_SET_PDEATHSIG, linux/prctl.h
_SAID = 4096  # bytes of QEMU's last words
_GRACE = 10.0  # seconds that QEMU has to close its images
_SLICE = 0.2  # seconds for which one who waits keeps others from talking


@dataclass(frozen=True, slots=True)
class Ended:
    """`status`: exit code, negative for a signal. `said`: its last words."""

    status: int
    said: str


class Keeper:
    """Looks after `remove`, files that are there no more at the end, and `folder`, which it makes, for us alone, and
    removes with all that is in it. `hold`: descriptors that stay open as long as it lives.

    `OSError` where it cannot be started or the folder not be made.
    """

    def __init__(self, *, folder: Path | None = None, remove: Sequence[Path] = (), hold: Sequence[int] = ()) -> None:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=hold,
            start_new_session=True,
            cwd="/",
        )
        assert process.stdin is not None
        assert process.stdout is not None
        self._pipe, self._told = process.stdin, process.stdout
        self._rest = b""
        self._lock = threading.Lock()
        self._ended: Ended | None = None
        self._closed = False
        try:
            process.wait()  # it has a child that keeps, which is nobody's here
            self._say(folder=None if folder is None else str(folder), remove=[str(path) for path in remove])
            answer = self._hear(None)
            if answer is None or "failed" in answer:
                code = None if answer is None else answer["failed"]
                raise OSError(code, os.strerror(code) if code else "the keeper of the machine did not start")
        except BaseException:
            self.close()
            raise

    def start(self, command: Sequence[str], *, largest: int | None = None) -> int:
        """Start it; its process. `largest`: bytes of a file that it writes. `OSError` where it cannot be started."""
        with self._lock:
            self._say(command=list(command), largest=largest)
            answer = self._hear(None)
        if answer is None or "pid" not in answer:
            raise OSError("the keeper of the machine is gone")
        return int(answer["pid"])

    def wait(self, seconds: float | None) -> Ended | None:
        """How it ended; None where it has not within this time. Any thread may ask."""
        end = None if seconds is None else time.monotonic() + seconds
        while self._ended is None:
            left = _SLICE if end is None else min(_SLICE, end - time.monotonic())
            with self._lock:
                self._note(self._hear(max(0.0, left)))
            if end is not None and time.monotonic() >= end:
                break
        return self._ended

    def _note(self, answer: dict[str, Any] | None) -> None:
        if answer is not None and "ended" in answer:
            self._ended = Ended(int(answer["ended"]), str(answer["said"]))

    def release(self) -> None:
        """The machine goes on without us. `OSError` where it has ended."""
        with self._lock:
            self._say(word="release")
            answer = self._hear(None)
            self._note(answer)
            if answer is None or "released" not in answer:
                raise OSError("the machine has ended")
        self._shut()

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(OSError, ValueError):
            self._say(word="kill")

    def close(self) -> None:
        """End it, unless it was released: QEMU closes its images. All is removed on return. Harmless when repeated."""
        if self._closed:
            return
        with contextlib.suppress(OSError):
            self._pipe.close()
        with contextlib.suppress(OSError):
            while os.read(self._told.fileno(), 4096):
                pass
        self._shut()

    def _shut(self) -> None:
        self._closed = True
        with contextlib.suppress(OSError):
            self._pipe.close()
        self._told.close()

    def _say(self, **words: Any) -> None:
        self._pipe.write(json.dumps(words).encode() + b"\n")
        self._pipe.flush()

    def _hear(self, seconds: float | None) -> dict[str, Any] | None:
        """One answer; None where none comes in time. One that ended without a word was killed."""
        end = None if seconds is None else time.monotonic() + seconds
        while b"\n" not in self._rest:
            left = None if end is None else max(0.0, end - time.monotonic())
            readable, _, _ = select.select([self._told], [], [], left)
            if not readable:
                return None
            data = os.read(self._told.fileno(), 4096)
            if not data:
                return {"ended": -signal.SIGKILL, "said": "its keeper was killed"}
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer


# ---------------------------------------------------------------------- the process


def _main() -> None:
    if os.fork():
        return
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    lines = _lines()
    task = next(lines, None)
    if task is None:
        return
    folder, remove = task["folder"], task["remove"]
    try:
        if folder is not None:
            os.mkdir(folder, 0o700)
    except OSError as error:
        _tell(failed=error.errno)
        return
    _tell(ready=True)
    ended: dict[str, Any] = {}
    try:
        start = next(lines, None)
        if start is not None and "command" in start:
            ended = _run(start["command"], start["largest"])
    finally:
        for path in remove:
            with contextlib.suppress(OSError):
                os.unlink(path)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    if ended:
        _tell(**ended)


def _lines() -> Any:
    """What is said to us, until nobody says anything any more."""
    rest = b""
    while True:
        while b"\n" not in rest:
            data = os.read(0, 1 << 16)
            if not data:
                return
            rest += data
        line, _, rest = rest.partition(b"\n")
        yield json.loads(line)


def _tell(**words: Any) -> None:
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(words).encode() + b"\n")


def _run(command: list[str], largest: int | None) -> dict[str, Any]:
    """Have it run until it ends, or has to; how it ended."""
    wake, woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    said, saying = os.pipe2(os.O_CLOEXEC)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # until the child listens to it
    keeper, child = os.getpid(), os.fork()
    if not child:
        _become(command, largest, keeper, saying)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    os.close(saying)
    _tell(pid=child)
    tail = b""
    waits = [0, said, wake]
    deadline: float | None = None
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        readable, _, _ = select.select(waits, [], [], left)
        if said in readable:
            data = os.read(said, 4096)
            tail = (tail + data)[-_SAID:]
            if not data:
                waits.remove(said)
        if wake in readable:
            os.read(wake, 4096)
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            while select.select([said], [], [], 0)[0] and (data := os.read(said, 4096)):
                tail = (tail + data)[-_SAID:]
            return {"ended": os.waitstatus_to_exitcode(status), "said": tail.decode("utf-8", "replace").strip()}
        if deadline is not None and time.monotonic() >= deadline:
            os.kill(child, signal.SIGKILL)
            deadline = None
        if 0 in readable:
            words = os.read(0, 4096)
            if b"release" in words:
                waits.remove(0)
                _tell(released=True)
            elif b"kill" in words:
                os.kill(child, signal.SIGKILL)
            elif not words:
                waits.remove(0)
                os.kill(child, signal.SIGTERM)
                deadline = time.monotonic() + _GRACE


def _become(command: list[str], largest: int | None, keeper: int, saying: int) -> None:
    """The program itself, in the child."""
    try:
        ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != keeper:
            os._exit(1)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a file that becomes too large is an error of that write
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(saying, 1)
        os.dup2(saying, 2)
        os.execvp(command[0], command)
    except BaseException as error:
        os.write(2, f"{command[0]}: {error}".encode())
    finally:
        os._exit(127)


if __name__ == "__main__":
    _main()
