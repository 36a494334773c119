# SPDX-License-Identifier: Apache-2.0
"""Where a command speaks: results on stdout, everything else on stderr.

With `--json` stdout carries one JSON object at the end, the result or the error. With `--json-progress` there are
events before it, one JSON object a line, each with an `event`. Nothing here ever sees a secret but the passphrase of
a recovery kit, once.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

__all__ = ["Console", "pass_console"]

_WARNED = 4
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

            for line in lines:
                click.echo(text(line))

    def event(self, name: str, **values: Any) -> None:
        """Something happened; only programs that asked for it hear of it."""
        if self.events:
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
        self.say(f"keepstone: warning: {path + ': ' if path else ''}{message}")

    def fail(self, code: str, message: str) -> None:
        """The command failed: a sentence for people, and for programs an object with a stable code."""
        click.echo(f"keepstone: {message}", err=True)
        if self.json:
            _print_json({**self.detail, "error": {"code": code, "message": message}, **self._warnings()})

    def ending(self) -> int:
        """The exit code of a command that did what it was to do."""
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

    click.echo(msgspec.json.encode(plain(value)))
    sys.stdout.flush()


pass_console = click.make_pass_decorator(Console)
