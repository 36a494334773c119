# SPDX-License-Identifier: Apache-2.0
"""How a process tells its service manager that it is ready, what it is at, and that it lives: sd_notify(3)."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import MutableMapping

from keepstone.env import Env

__all__ = ["Notifier"]

_log = logging.getLogger(__name__)


class Notifier:
    """Tells the service manager how this process is, where one wants to know (`NOTIFY_SOCKET`, sd_notify(3)).

    It takes its variables out of `environ`, so that no command of the agent speaks for it. A manager that does not
    listen is nobody's failure. Safe for several threads.
    """

    def __init__(self, env: Env, environ: MutableMapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self._env = env
        self._address = _address(environ.pop("NOTIFY_SOCKET", ""))
        usec, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        wanted = self._address is not None and usec.isdigit() and int(usec) > 0 and pid in ("", str(os.getpid()))
        self.watchdog = int(usec) / 1e6 if wanted else None
        """Seconds within which `alive` has to be called, each time; None where nobody watches."""
        self._next = 0

    def ready(self, status: str = "") -> None:
        """The process does its work from now on."""
        self._send("READY=1", status)

    def status(self, text: str) -> None:
        """What it is at, for `systemctl status`."""
        self._send(status=text)

    def stopping(self) -> None:
        """It is about to end."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """It goes on. Cheap: it may be called far more often than anybody wants to know; the manager is told four times
        within the time that it gives."""
        if self.watchdog is None:
            return
        now = self._env.boot_time()
        if now >= self._next:
            self._next = now + int(self.watchdog * 1e9 / 4)
            self._send("WATCHDOG=1")

    def _send(self, state: str = "", status: str = "") -> None:
        if self._address is None or sys.platform == "win32":
            return
        lines = [state] if state else []
        if status:
            lines.append("STATUS=" + " ".join(status.split()))
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.sendto("\n".join(lines).encode("utf-8", "replace"), socket.MSG_DONTWAIT, self._address)
        except OSError as error:
            _log.debug("the service manager does not listen: %s", error)


def _address(text: str) -> str | None:
    if text.startswith("@"):  # abstract
        return "\0" + text[1:]
    return text if text.startswith("/") else None
