# SPDX-License-Identifier: Apache-2.0
"""`keepstone agent run`."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keepstone.cli.agent.option import agent_command
from keepstone.cli.console import Console

if TYPE_CHECKING:
    from keepstone.agent.system import Folders

__all__ = ["run"]


@agent_command(name="run")
@click.option(
    "--config",
    "configuration",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What this machine allows, and its limits [default: agent.toml, where there is one].",
)
def run(console: Console, folders: Folders, *, configuration: Path | None) -> None:
    """Be the agent of this machine: wait for jobs and do them, until a signal says to stop."""
    import logging
    from dataclasses import replace

    from keepstone.agent.configuration import ConfigurationFile
    from keepstone.agent.identity import Identity
    from keepstone.agent.service import Agent
    from keepstone.env import Env

    env = Env()
    path = (configuration or folders.configuration).absolute()
    settings = ConfigurationFile(env, path, needed=configuration is not None).load()
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s")
    agent = Agent(env, Identity.load(env, folders.state), replace(folders, configuration=path))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: agent.stop())
    agent.run()
