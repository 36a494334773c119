# SPDX-License-Identifier: Apache-2.0
"""The process that thaws a guest if we cannot: its own, so that it outlives ours.

    python -I -S watchdog.py SECONDS FD
    python -I -S watchdog.py SECONDS COMMAND...

It holds one end of a pipe, and is told over it that all is well (`_WELL`). When the pipe ends before that, because we
died or let go, or when SECONDS have passed, it thaws, and goes on trying for as long as `_LAST` seconds. It does so by
the agent's connection, if it was given that: it sends the command behind whatever we sent, and waits until the agent
has done it; while it does so nobody else reaches the agent. Or it runs a command, until that succeeds. What we run to
freeze the guest has the pipe as well, so that a thaw never comes before a freeze that is still on its way.

Run as a program it needs the standard library only, and starts in hundredths of a second. A signal to our group or
session does not reach it, and SIGTERM, which a service manager sends to all, does not end it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

__all__ = ["Watchdog"]

_WELL, _ACTED = b"\1", b"\2"
_LAST = 900.0
_AGAIN = 5.0
_SOON = 0.5
_PATIENCE = 60.0
_OVER = (b"failed to get domain", b"domain is not running")  # as virsh says it
_ENVIRONMENT = {**os.environ, "LC_ALL": "C"}
_SIGN = b"1802658125"  # no other client asks for this one: theirs are below 2**31, and this is a fixed one above 1.8e9


class Watchdog:
    """Watches from now on. `way`: the agent's connection, or a command that thaws; `seconds`: the time within which it
    must be dismissed. `OSError` where it cannot be started.
    """

    def __init__(self, way: int | Sequence[str], seconds: float) -> None:
        words = [str(way)] if isinstance(way, int) else way
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(seconds), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[way] if isinstance(way, int) else [],
            start_new_session=True,
            cwd="/",
        )
        assert process.stdin is not None
        assert process.stdout is not None
        self._pipe, self._told = process.stdin, process.stdout
        try:
            watches = self._told.read(1)
            process.wait()  # it has a child that watches, which is nobody's here
            if not watches:
                raise OSError("the process that thaws the guest did not start")
        except BaseException:
            self.let_go()
            raise

    @property
    def pipe(self) -> int:
        """For whatever else freezes the guest."""
        return self._pipe.fileno()

    def dismiss(self) -> bool:
        """All is well, the guest is thawed. Whether it never had to do anything: then a connection is nobody else's
        on return; otherwise what was read from it may have been answers to the watchdog."""
        with contextlib.suppress(OSError):  # it thawed because its time was over, and ended
            self._pipe.write(_WELL)
            self._pipe.flush()
        self._close()
        with self._told:
            return self._told.read(1) != _ACTED

    def let_go(self) -> None:
        """It thaws, as soon as the agent listens; nobody waits for that."""
        self._close()
        self._told.close()

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            self._pipe.close()


def _main(seconds: float, way: list[str]) -> None:
    if os.fork():
        return
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    os.write(1, b"\1")
    readable, _, _ = select.select([0], [], [], seconds)
    if readable and os.read(0, 1) == _WELL:
        return
    with contextlib.suppress(OSError):
        os.write(1, _ACTED)
    if len(way) > 1:
        _run(way)
        return
    with socket.socket(fileno=int(way[0])) as agent:
        _thaw(agent)


def _run(command: list[str]) -> None:
    """Run it until it succeeds, or says that there is no such guest any more."""
    end = time.monotonic() + _LAST
    while time.monotonic() < end:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE, env=_ENVIRONMENT, check=False
            )
            if done.returncode == 0 or any(words in done.stderr for words in _OVER):
                return
        time.sleep(_SOON)


def _thaw(agent: socket.socket) -> None:
    """Send it until the agent has answered what stands behind it."""
    sync = b'\xff{"execute":"guest-sync-delimited","arguments":{"id":%b}}\n' % _SIGN
    end = time.monotonic() + _LAST
    told = b""
    agent.settimeout(_AGAIN)
    while time.monotonic() < end:
        try:
            agent.sendall(b'\xff{"execute":"guest-fsfreeze-thaw"}\n' + sync)
            while _SIGN not in told:
                data = agent.recv(4096)
                if not data:
                    return  # the machine is gone
                told = told[-64:] + data
        except TimeoutError:
            continue
        except OSError:
            return
        return


if __name__ == "__main__":
    _main(float(sys.argv[1]), sys.argv[2:])
