# SPDX-License-Identifier: Apache-2.0
"""A service in the background: a fork of the command that started it, away from its terminal.

What the interpreter itself says when it dies is in `log/crash.log`, which is empty where all is well.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from keepstone.errors import KeepstoneError
from keepstone.server import logs, probe

__all__ = ["PATIENCE", "Background", "fork"]

PATIENCE = 60.0
"""Seconds until it has to answer."""
_PAUSE = 0.02
_SHOWN = 10  # lines of the log


class Background:
    """The process in the background, to the one that began it."""

    def __init__(self, pid: int, folder: Path, pipe: int) -> None:
        self.pid = pid
        self._folder = folder
        self._pipe = pipe

    def wait(self, url: str, ca: Path, patience: float = PATIENCE) -> None:
        """Until the service is well. `KeepstoneError` with the end of its log where it ends before, or takes longer;
        it does not run then."""
        until = time.monotonic() + patience
        while True:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                raise self._failed(f"the service ended with {code} before it answered")
            if self._is_ready():
                found = probe.health(url, ca)
                if found is not None and found.well:
                    return
                time.sleep(_PAUSE)
            if time.monotonic() > until:
                self.end()
                raise self._failed(f"the service did not answer within {patience:.0f} seconds, and was ended")

    def _is_ready(self) -> bool:
        """Look for a moment: the pipe is closed when it is, and when it is gone."""
        return bool(select.select([self._pipe], [], [], _PAUSE)[0])

    def end(self) -> None:
        """Stop it, and wait."""
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGTERM)
            os.waitpid(self.pid, 0)

    def _failed(self, what: str) -> KeepstoneError:
        lines = logs.tail(self._folder, _SHOWN)
        shown = "\n".join(["; its log ends so:", *lines]) if lines else f"; it wrote nothing to {self._folder}"
        return KeepstoneError(f"{what}{shown}")


def fork(folder: Path, run: Callable[[Callable[[], None]], None]) -> Background:
    """Go on with `run` in the background; its log lies in `folder`. It calls what it is given when it is ready."""
    sys.stdout.flush()
    sys.stderr.flush()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    heard, told = os.pipe()
    pid = os.fork()
    if pid:
        os.close(told)
        return Background(pid, folder, heard)
    code = 1
    try:
        _detach(folder)
        run(lambda: os.close(told))
        code = 0
    except BaseException:
        logging.getLogger(__name__).exception("the service ended over a fault")
    finally:
        logging.shutdown()
        os._exit(code)  # what stands on the stack belongs to the command


def _detach(folder: Path) -> None:
    """Away from the terminal, and from the folder that the command was called in."""
    os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    crash = os.open(folder / "crash.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for target, source in ((0, null), (1, null), (2, crash)):
        os.dup2(source, target)
    os.close(null)
    os.close(crash)
