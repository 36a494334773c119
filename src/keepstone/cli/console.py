# SPDX-License-Identifier: Apache-2.0
"""Where a command speaks: results on stdout, everything else on stderr.

With `--json` stdout carries one JSON object at the end, the result or the error. With `--json-progress` there are
events before it, one JSON object a line, each with an `event`. Nothing here ever sees a secret but the passphrase of
a recovery kit, once.

A standard output that is full or closed fails the command, when its work is done: `StorageFull`, `StorageError`.
"""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

import click

from keepstone.errors import StorageError

__all__ = ["Console", "pass_console"]

_WARNED = 4
_QUIET_WARNINGS = 20  # that are shown to who wants to hear little
_WARNINGS = 1000  # that a result carries; all of them have been shown by then


@dataclass(slots=True)
class Console:
    """How this run speaks. `detail`: what a failure adds to its error, such as what was done before it came."""

    json: bool = False
    events: bool = False
    debug: bool = False
    quiet: bool = False
    warnings: list[dict[str, str]] = field(default_factory=list)
    warned: int = 0
    detail: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, arguments: Sequence[str]) -> Console:
        """As the arguments ask for; found before they are parsed, so that a wrong one is reported in the right form."""
        options = arguments[: arguments.index("--")] if "--" in arguments else arguments
        events = "--json-progress" in options
        return cls(
            json=events or "--json" in options,
            events=events,
            debug="--debug" in options,
            quiet="--quiet" in options or "-q" in options,
        )

    def result(self, result: Mapping[str, Any], lines: Sequence[str] = ()) -> None:
        """What the command has to say: `result` for programs, `lines` for people."""
        if self.json:
            _print_json({**result, **self._warnings()})
        else:
            from keepstone.cli.render import text

            _print("".join(f"{text(line)}\n" for line in lines))

    def line(self, line: str) -> None:
        """A line of a result that is long, as soon as it is known; programs get it with the result."""
        _print(f"{line}\n")

    def event(self, name: str, **values: Any) -> None:
        """Something happened; only programs that asked for it hear of it."""
        if self.events:
            with contextlib.suppress(
                OSError, StorageError
            ):  # the work goes on; the result will not come through either
                _print_json({"event": name, **values})

    def say(self, line: str) -> None:
        """For people, beside the result."""
        if not self.quiet:
            click.echo(line, err=True)

    def warn(self, message: str, path: str = "") -> None:
        """Something is not as it should be; the command goes on, and will end with 4."""
        self.warned += 1
        if len(self.warnings) < _WARNINGS:
            self.warnings.append({"path": path, "message": message} if path else {"message": message})
        self.event("warning", path=path, message=message)
        if not self.quiet or self.warned <= _QUIET_WARNINGS:
            click.echo(f"keepstone: warning: {path + ': ' if path else ''}{message}", err=True)

    def fail(self, code: str, message: str) -> None:
        """The command failed: a sentence for people, and for programs an object with a stable code."""
        click.echo(f"keepstone: {message}", err=True)
        if self.json:
            with contextlib.suppress(OSError, StorageError):  # what cannot be written has been said
                _print_json({**self.detail, "error": {"code": code, "message": message}, **self._warnings()})

    def confirm(self, question: str, yes: bool) -> None:
        """Ask whoever is at the terminal, unless it was said before; `click.Abort` where the answer is no."""
        if not yes and self.asks:
            click.confirm(question, abort=True, err=True)

    @property
    def asks(self) -> bool:
        """Whether somebody is there who can answer."""
        return sys.stdin.isatty()

    def done(self) -> str:
        """What a failure must not hide from people: the recovery points that were made before it came."""
        made = [point["short"] for point in self.detail.get("points", ())]
        return f"; made before that, and safe: recovery point {', '.join(made)}" if made else ""

    def ending(self) -> int:
        """The exit code of a command that did what it was to do."""
        if self.quiet and self.warned > _QUIET_WARNINGS:
            click.echo(f"keepstone: {self.warned - _QUIET_WARNINGS:,} more warnings", err=True)
        return _WARNED if self.warned else 0

    def _warnings(self) -> dict[str, Any]:
        return {"warnings": self.warnings, "warning_count": self.warned} if self.warned else {}

    @property
    def terminal(self) -> bool:
        """Whether somebody watches."""
        return sys.stderr.isatty()


def _print_json(value: Mapping[str, Any]) -> None:
    import msgspec

    from keepstone.cli.render import plain

    _print(msgspec.json.encode(plain(value)).decode() + "\n")


def _print(content: str) -> None:
    """Write to the standard output, through to the system."""
    output: TextIO | None = sys.stdout  # None where it was closed before the program began
    try:
        if output is None:
            raise OSError(errno.EBADF, "it is closed")
        click.echo(content, nl=False)
        output.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        from keepstone.objects import failure

        raise failure(error, "the standard output") from error


pass_console = click.make_pass_decorator(Console)
