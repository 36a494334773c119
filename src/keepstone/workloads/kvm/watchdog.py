# SPDX-License-Identifier: Apache-2.0
"""The process that thaws a guest if we cannot: its own, so that it outlives ours.

    python -I -S watchdog.py FD SECONDS

It holds the agent's connection and one end of a pipe. It is told over the pipe that all is well (`_WELL`); when the
pipe ends before that, because we died or let go, or when SECONDS have passed, it thaws: it sends the command over our
connection, behind whatever we sent, and waits until the agent has done it, as long as `_LAST` seconds. While it does so
nobody else reaches the agent.

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

__all__ = ["Watchdog"]

_WELL, _ACTED = b"\1", b"\2"
_LAST = 900.0
_AGAIN = 5.0
_SIGN = b"1802658125"  # no other client asks for this one: theirs are below 2**31, and this is a fixed one above 1.8e9


class Watchdog:
    """Watches from now on; `connection` is the agent's, `seconds` the time within which it must be dismissed.

    `OSError` where it cannot be started.
    """

    def __init__(self, connection: int, seconds: float) -> None:
        command = [sys.executable, "-I", "-S", __file__, str(connection), str(seconds)]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[connection],
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

    def dismiss(self) -> bool:
        """All is well, the guest is thawed. Whether it never had to do anything: then the connection is nobody else's
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


def _main(descriptor: int, seconds: float) -> None:
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
    with socket.socket(fileno=descriptor) as agent:
        _thaw(agent)


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
    _main(int(sys.argv[1]), float(sys.argv[2]))
