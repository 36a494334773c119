# SPDX-License-Identifier: Apache-2.0
"""The log of a service: one JSON object a line, on stderr or in files that are kept small.

`time` (UTC), `level`, `process` and `message` are always there; `request`, `correlation`, `operation`, `status`,
`seconds`, `job`, `code` where they are known, and `trace` where a fault of Keepstone itself is told.

The server alone writes the files. The processes that it has started write their lines to a pipe, which it reads.

No code logs a secret. What looks like one in the text of somebody else (an exception, a statement of SQL) is struck
out.
"""

from __future__ import annotations

import logging
import logging.handlers
import re
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

from keepstone.decoders import from_json

__all__ = ["FILE", "LEVELS", "Lines", "relay", "struck_out", "tail", "to_file", "to_stderr"]

LEVELS = ("debug", "info", "warning", "error")
FILE = "keepstone.log"
_LARGEST, _FILES = 10_000_000, 5  # bytes of a file; files besides the one that is written
_FIELDS = ("request", "correlation", "operation", "status", "seconds", "job", "code")
_OURS = ("keepstone", "uvicorn")  # who else speaks is heard from warnings on
_SECRETS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\[parameters: [^\n]*"), "[parameters: …]"),  # as SQLAlchemy quotes those of a statement
    (re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(-----END|$)", re.DOTALL), r"\1…\2"),
    (re.compile(r"\beyJ[\w-]+\.[\w-]+(\.[\w-]+)?"), "…"),  # JSON Web Token
    (re.compile(r"(?i)\b(bearer|basic) +[\w.~+/=-]+"), r"\1 …"),
    (re.compile(r"\bAGE-SECRET-KEY-1\w+"), "…"),
    (re.compile(r"\$argon2\w*\$[\w$=,+/]+"), "…"),
    (re.compile(r"(://[^\s:/@]*):[^\s/@]+@"), r"\1:…@"),
    (re.compile(r"(?i)((?:secret|password|passphrase|token|assertion|signature)['\"]?[=:] ?['\"]?)[^&\s'\",}]+"),
     r"\1…"),
)  # fmt: skip


class Lines(logging.Formatter):
    """`process`: who writes. `about`: fields of every line, whichever thread writes it; may be set at any time."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self.process = process
        self.about: Mapping[str, str] = {}

    def format(self, record: logging.LogRecord) -> str:
        """Lines that were relayed stay as they are."""
        relayed = getattr(record, "line", None)
        if isinstance(relayed, str):
            return relayed
        line: dict[str, Any] = {
            "time": f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%dT%H:%M:%S.%f}Z",
            "level": record.levelname.lower(),
            "process": self.process,
            "message": struck_out(record.getMessage()),
            **self.about,
        }
        for name in _FIELDS:
            value = getattr(record, name, None)
            if value is not None:
                line[name] = value
        if record.exc_info:
            line["trace"] = struck_out(self.formatException(record.exc_info))
        return msgspec.json.encode(line, enc_hook=str).decode()


def struck_out(text: str) -> str:
    """The text without what looks like a secret."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def to_stderr(process: str, level: str) -> Lines:
    """Log to stderr from now on."""
    return _begin(logging.StreamHandler(sys.stderr), process, level)


def to_file(folder: Path, process: str, level: str) -> Lines:
    """Log to files in `folder` from now on: the newest is `FILE`, then `FILE.1` …"""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(
        folder / FILE, maxBytes=_LARGEST, backupCount=_FILES, encoding="utf-8"
    )
    return _begin(handler, process, level)


def _begin(handler: logging.Handler, process: str, level: str) -> Lines:
    lines = Lines(process)
    handler.setFormatter(lines)
    root = logging.getLogger()
    for other in root.handlers[:]:
        root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for name in _OURS:
        logging.getLogger(name).setLevel(level.upper())
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # what cannot be written must not be told where it cannot be written
    threading.excepthook = _fallen
    return lines


def _fallen(arguments: threading.ExceptHookArgs) -> None:
    name = arguments.thread.name if arguments.thread is not None else "?"
    if arguments.exc_value is not None:
        logging.getLogger(__name__).error("thread %s fell over a fault", name, exc_info=arguments.exc_value)


def relay(lines: Sequence[str], process: str) -> None:
    """Pass on what another process wrote: lines of its log as they are, many by one write, and anything else as what it
    said in its distress."""
    log = logging.getLogger(__name__)
    for ours, some in groupby(lines, _is_ours):
        if ours:
            log.handle(logging.makeLogRecord({"name": log.name, "levelno": logging.INFO, "line": "\n".join(some)}))
        else:
            for line in some:
                log.error("%s: %s", process, line)


def _is_ours(line: str) -> bool:
    try:
        from_json(dict[str, Any]).decode(line)
    except msgspec.DecodeError:
        return False
    return True


def tail(folder: Path, count: int) -> list[str]:
    """The last lines of the log in `folder`."""
    try:
        with (folder / FILE).open(encoding="utf-8", errors="replace") as file:
            return [line.rstrip("\n") for line in deque(file, count)]
    except FileNotFoundError:
        return []
