# SPDX-License-Identifier: Apache-2.0
"""The program: its groups of commands, and how it ends.

Exit codes: 0 done; 1 failed; 2 the request makes no sense; 3 something named does not exist; 4 done with warnings;
5 not allowed; 6 refused by a lock or guard; 10 no store there; 11 aborted by a reclaim; 12 wrong key; 130 interrupted.
Those of failures stand in the tree of errors.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, TextIO

import click

from keepstone import __version__
from keepstone.cli.console import Console
from keepstone.cli.lazy import LazyGroup

__all__ = ["main"]

INTERRUPTED = 130


@click.group(
    cls=LazyGroup,
    commands={
        "up": ("keepstone.cli.service.up:up", "Start the service."),
        "down": ("keepstone.cli.service.down:down", "Stop the service."),
        "doctor": ("keepstone.cli.service.doctor:doctor", "Check the service, and say what to do."),
        "az-setup": ("keepstone.cli.service.az_setup:az_setup", "Make a service principal, and show how az logs in."),
        "login": ("keepstone.cli.client.login:login", "Log in at a service."),
        "logout": ("keepstone.cli.client.login:logout", "Forget the login."),
        "user": ("keepstone.cli.client.user:user", "People who log in with a name and a password."),
        "overview": ("keepstone.cli.client.overview:overview", "Vaults at a look."),
        "group": ("keepstone.cli.client.group:group", "Resource groups: what vaults lie in."),
        "vault": ("keepstone.cli.client.vault:vault", "Vaults."),
        "policy": ("keepstone.cli.client.policy:policy", "When items are backed up, and how long points are kept."),
        "container": ("keepstone.cli.client.container:container", "Machines, and whatever else holds items."),
        "vm": ("keepstone.cli.client.vm:vm", "Virtual machines."),
        "hypervisor": ("keepstone.cli.client.hypervisor:hypervisor", "Hosts whose machines are found by themselves."),
        "storage": (
            "keepstone.cli.client.storage:storage",
            "Folders that disks of virtual machines are restored into.",
        ),
        "item": ("keepstone.cli.client.item:item", "Protected items."),
        "protection": ("keepstone.cli.client.protection:protection", "Protect items, back them up, and stop it again."),
        "recoverypoint": ("keepstone.cli.client.recoverypoint:recoverypoint", "Recovery points of an item."),
        "find": ("keepstone.cli.client.versions:find", "Find files and their versions in all points."),
        "diff": ("keepstone.cli.client.versions:diff", "Show what is different in two points."),
        "restore": ("keepstone.cli.client.restore:restore", "Restore files, disks and machines."),
        "drill": ("keepstone.cli.client.drill:drill", "Start points to see whether they do."),
        "report": ("keepstone.cli.client.report:report", "How vaults grow, and how items keep to their policies."),
        "agent": ("keepstone.cli.agent.group:agent", "The agent of this machine, whose vault may be elsewhere."),
        "alert": ("keepstone.cli.client.alert:alert", "Alerts, and whom to tell of them."),
        "job": ("keepstone.cli.client.job:job", "Jobs: backups, restores, and whatever else was done."),
        "store": ("keepstone.cli.store.group:store", "Back up to a store and restore from it."),
    },
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", message="keepstone %(version)s")
def keepstone() -> None:
    """Recovery points that are yours: deduplicated, encrypted, crash-safe."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code. `arguments` default to those of the process."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    console = Console.of(given)
    try:
        with _terminable():
            code = _run(given, console)
    except BrokenPipeError:  # whoever read our output has gone
        code = 1
    except KeyboardInterrupt:
        console.fail("Interrupted", "interrupted; nothing that was acknowledged is lost")
        code = INTERRUPTED
    return code if _flushed() else code or 1


def _flushed() -> bool:
    """Whether the standard output took everything. What it did not take must not fail again when the process ends."""
    output: TextIO | None = sys.stdout  # None where it was closed before the program began
    if output is None:
        return True
    try:
        output.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())
        return False
    return True


def _run(given: list[str], console: Console) -> int:
    try:
        result: Any = keepstone.main(given, prog_name="keepstone", standalone_mode=False, obj=console)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except SystemExit as end:  # click's answer to a reader that has gone
        return end.code if isinstance(end.code, int) else 1
    except click.Abort:  # at a prompt
        raise KeyboardInterrupt from None
    except click.exceptions.NoArgsIsHelpError as error:
        console.fail("BadRequest", "no command is given" if console.json else f"no command is given\n{error.message}")
        return error.exit_code
    except click.ClickException as error:
        console.fail("BadRequest", _usage(error))
        return error.exit_code
    except (BrokenPipeError, KeyboardInterrupt):
        raise
    except Exception as error:
        from keepstone.cli.failing import report

        return report(error, console)


def _usage(error: click.ClickException) -> str:
    """A click error as one sentence that says where help is."""
    message = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    return f"{message}; see `{context.command_path} --help`" if context is not None else message


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM and SIGHUP end the command as an interrupt does: leases are given back and partial files removed."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup wants it
                before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
