# SPDX-License-Identifier: Apache-2.0
"""From an exception to an exit code and a sentence: the only place where it is decided."""

from __future__ import annotations

import os
import traceback

from keepstone.cli.console import Console
from keepstone.errors import KeepstoneError
from keepstone.objects import failure

__all__ = ["report"]


def report(error: Exception, console: Console) -> int:
    """Say what happened; the exit code."""
    if console.debug:
        traceback.print_exception(error)
    if isinstance(error, OSError):
        error = failure(error, os.fsdecode(error.filename) if error.filename else "the operating system")
    if isinstance(error, KeepstoneError):
        console.fail(error.code, str(error) + console.done())
        return error.exit_code
    hint = "" if console.debug else "; run it again with --debug and report what it prints"
    console.fail("InternalError", f"internal error: {type(error).__name__}: {error}{hint}")
    return 1
