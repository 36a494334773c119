# SPDX-License-Identifier: Apache-2.0
"""The commands of `keepstone agent`."""

from __future__ import annotations

import click

from keepstone.cli.lazy import LazyGroup

__all__ = ["agent"]


@click.group(
    cls=LazyGroup,
    commands={
        "register": ("keepstone.cli.agent.register:register", "Register this machine with a vault."),
        "run": ("keepstone.cli.agent.run:run", "Be the agent, until a signal says to stop."),
        "status": ("keepstone.cli.agent.register:status", "Show who this machine is to its vault."),
        "unregister": ("keepstone.cli.agent.register:unregister", "Forget who this machine is."),
    },
)
def agent() -> None:
    """This machine's agent: it backs up what its service asks for, and restores it."""
