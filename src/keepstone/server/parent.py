# SPDX-License-Identifier: Apache-2.0
"""The server, as a process that it has started sees it: who tells it what to do by its arguments and its stdin, and
hears it on its stderr. The server's side of this is `children.py`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from keepstone.errors import KeepstoneError
from keepstone.server import logs

__all__ = ["READY", "hear", "options", "run", "say_ready"]

READY = '{"ready":true}'
"""The line that says so, among those of the log."""


def options(kind: str, about: str) -> argparse.ArgumentParser:
    """What the server tells every process of a `kind` when it starts one."""
    parser = argparse.ArgumentParser(prog=f"python -m keepstone.server.{kind}", description=about)
    parser.add_argument("--data", type=Path, required=True, help="the server's data folder")
    parser.add_argument("--process", required=True, help="what names it in the log and in figures; nobody else has it")
    parser.add_argument("--log-level", choices=logs.LEVELS, default="info")
    return parser


def run(kind: str, work: Callable[[], None], *, connections: bool = False) -> int:
    """Do the work of such a process, which holds thousands of `connections` or moves data; its exit code. What it falls
    over is in the log."""
    from keepstone.cli.process import tune

    log = logging.getLogger(f"keepstone.server.{kind}")
    tune(connections=connections)
    try:
        work()
    except KeepstoneError as error:
        log.error("%s", error, extra={"code": error.code})
        return error.exit_code
    except Exception:
        log.exception("this %s fell over a fault", kind)
        return 1
    return 0


def hear(line: Callable[[str], None], gone: Callable[[], None]) -> None:
    """Call `line` for each from now on, and `gone` when the server says no more; on a thread of its own."""

    def listen() -> None:
        rest = b""
        while data := os.read(sys.stdin.fileno(), 4096):  # the object itself would be locked when the process ends
            *lines, rest = (rest + data).split(b"\n")
            for each in lines:
                line(each.decode())
        gone()

    threading.Thread(target=listen, name="listen", daemon=True).start()


def say_ready() -> None:
    """Tell the server that this process does its work from now on."""
    print(READY, file=sys.stderr, flush=True)
