# SPDX-License-Identifier: Apache-2.0
"""Where a passphrase comes from: a file (`-` is the standard input), a command, the environment, or somebody at the
terminal; never an argument."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass

import click

from keepstone.errors import AccessDenied, UsageError, WrongKey

__all__ = ["Secret"]

_LIMIT = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """Not read before it is needed. `what` names it to people; the options are those of the command line.

    `variable`: of the environment. `option`: what the options that give it begin with.
    """

    what: str = "passphrase"
    file: str | None = None
    command: str | None = None
    variable: str = "KEEPSTONE_PASSPHRASE"
    option: str = "--passphrase"

    @property
    def given(self) -> bool:
        """Whether it can be read without asking anybody."""
        return self.file is not None or self.command is not None or bool(os.environ.get(self.variable))

    def read(self, *, new: bool = False) -> bytes:
        """The secret; a `new` one is asked for twice.

        `WrongKey` where there is nobody to ask, `UsageError` where its source gives nothing.
        """
        if self.file is not None and self.command is not None:
            raise UsageError(f"{self.option}-file and {self.option}-command exclude each other; give one of them")
        if self.file is not None:
            return self._from_file(self.file)
        if self.command is not None:
            return self._from_command(self.command)
        if value := os.environ.get(self.variable):
            return os.fsencode(value)
        return self._asked(new)

    def _from_file(self, path: str) -> bytes:
        if path == "-":
            return self._line(sys.stdin.buffer.read(_LIMIT), "the standard input")
        try:
            with open(path, "rb") as file:
                return self._line(file.read(_LIMIT), f"the file {path}")
        except PermissionError as error:
            raise AccessDenied(f"{path}: {error.strerror}; check who may read the {self.what}'s file") from error
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}; check {self.option}-file") from error

    def _from_command(self, command: str) -> bytes:
        import subprocess

        try:
            words = shlex.split(command)
            ended = subprocess.run(words, stdout=subprocess.PIPE, stdin=None, check=False)
        except (OSError, ValueError, IndexError) as error:
            raise UsageError(f"the command of {self.option}-command cannot be run ({error}); check it") from error
        if ended.returncode:
            raise UsageError(f"the command of {self.option}-command ended with {ended.returncode}; run it by hand")
        return self._line(ended.stdout, f"the command of {self.option}-command")

    def _line(self, data: bytes, source: str) -> bytes:
        """The first and only line."""
        line, _, rest = data.partition(b"\n")
        line = line.removesuffix(b"\r")
        if not line or rest.strip():
            raise UsageError(f"{source} holds no {self.what}, which is one line; check it")
        return line

    def _asked(self, new: bool) -> bytes:
        if not sys.stdin.isatty():
            raise WrongKey(
                f"the {self.what} is needed and there is no terminal to ask at; give it by {self.option}-file, "
                f"{self.option}-command or {self.variable}"
            )
        text: str = click.prompt(self.what.capitalize(), hide_input=True, confirmation_prompt=new, err=True)
        return text.encode()
