# SPDX-License-Identifier: Apache-2.0
"""`keepstone down`: stops a service."""

from __future__ import annotations

from pathlib import Path

import click

from keepstone.cli.console import Console
from keepstone.cli.service.data import service_command

__all__ = ["down"]


@service_command(name="down")
@click.option(
    "--timeout", type=click.FloatRange(0), default=60.0, show_default=True, metavar="SECONDS",
    help="How long it may take.",
)  # fmt: skip
def down(console: Console, root: Path, *, timeout: float) -> None:
    """Stop the service of the data folder, and wait until it has stopped.

    Requests in flight are answered. A job that does not end within seconds goes on from its last checkpoint after the
    next `keepstone up`. Where no service runs, nothing is done.
    """
    from keepstone.errors import StoreMissing
    from keepstone.server import instance
    from keepstone.server.choices import Choices

    stopped = instance.stop(root, timeout)
    if stopped is None and Choices.of(root) is None:
        raise StoreMissing(f"there is no Keepstone service in {root}; check --data")
    if stopped is None:
        console.result({"stopped": False}, [f"no service runs in {root}"])
    else:
        line = f"the service in {root} (process {stopped.pid}) has stopped"
        console.result({"stopped": True, "pid": stopped.pid}, [line])
