# SPDX-License-Identifier: Apache-2.0
"""`keepstone up`: starts a service."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keepstone.cli.console import Console
from keepstone.cli.service.data import service_command
from keepstone.errors import UsageError

if TYPE_CHECKING:
    from keepstone.control.installation import Welcome
    from keepstone.server.starting import Start

__all__ = ["up"]

_LEVELS = ("debug", "info", "warning", "error")


@service_command(name="up")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8443,
    show_default=True,
    metavar="NUMBER",
    help="The port that it listens at; 0 takes a free one.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="The address that it listens at; 0.0.0.0 or :: for all.",
)
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="NAME",
    help="Another name by which clients find this machine; again for more.",
)
@click.option(
    "--location",
    metavar="NAME",
    help="The region that its vaults are in, chosen at the first start [default: onprem1].",
)
@click.option(
    "--database",
    metavar="URL",
    envvar="KEEPSTONE_DATABASE",
    help="PostgreSQL in place of a file, chosen at the first start [also: KEEPSTONE_DATABASE].",
)
@click.option(
    "--allow",
    "allowed",
    multiple=True,
    metavar="PATH",
    help="Let its own workers back up from PATH and restore to it, and to nothing else; again for more. Later starts "
    "remember it; / takes it back.",
)
@click.option(
    "--snapshots",
    metavar="PATH",
    help="Let machines of this host's hypervisors keep snapshots, with their files in PATH, for as many days as their "
    "policies say. Later starts remember it; an empty PATH takes it back.",
)
@click.option(
    "--answerers",
    type=click.IntRange(1, 64),
    metavar="NUMBER",
    help="How many processes answer [default: one for each core, and two at most].",
)
@click.option(
    "--workers",
    type=click.IntRange(0, 64),
    default=1,
    show_default=True,
    metavar="NUMBER",
    help="How many jobs may run at once.",
)
@click.option("--detach", is_flag=True, help="Go into the background, and return when the service answers.")
@click.option("--log-level", type=click.Choice(_LEVELS), default="info", show_default=True, help="What it logs.")
def up(
    console: Console,
    root: Path,
    *,
    port: int,
    host: str,
    names: tuple[str, ...],
    location: str | None,
    database: str | None,
    allowed: tuple[str, ...],
    snapshots: str | None,
    answerers: int | None,
    workers: int,
    detach: bool,
    log_level: str,
) -> None:
    """Start the service of the data folder, which the first start makes.

    The first start shows the administrator's password, once. In the foreground the log goes to the standard error, one
    JSON object a line, and Ctrl-C stops the service; with --detach it is in `log/keepstone.log` in the data folder, and
    `keepstone down` stops the service.
    """
    from keepstone.cli.process import tune
    from keepstone.server import logs
    from keepstone.server.starting import Start

    paths = [os.path.abspath(path) for path in allowed]
    kept = os.path.abspath(snapshots) if snapshots else snapshots
    if kept and not os.path.isdir(kept):
        raise UsageError(f"there is no folder {kept} for snapshots; make it, on the disk that is to hold them")
    with Start.prepare(root, host, port, database=database, names=names, allowed=paths, snapshots=kept) as start:
        welcome = start.begin(location)
        tune()  # not before: the heap would keep what the hash of a password takes
        result = _result(root, start, welcome)
        console.detail = result  # what only the first start can tell is told, whatever comes
        if welcome is not None and not console.json:
            for line in _greeting(welcome):
                console.line(line)
        lines = [f"Keepstone answers at {start.address.url}; its authority is {start.installation.ca}"]
        lines += [f"The portal is {result['portal']}"]

        def run(ready: Callable[[], None]) -> None:
            start.run(answerers=answerers, workers=workers, level=log_level, ready=ready)

        if detach:
            result["pid"] = _detached(start, root, run, log_level)
            console.result(result, [*lines, f"It runs as process {result['pid']}, and logs to {root / 'log'}"])
        else:
            logs.to_stderr("server", log_level)
            run(lambda: console.result(result, lines))


def _result(root: Path, start: Start, welcome: Welcome | None) -> dict[str, Any]:
    plane = start.installation.plane()
    plane.database.close()  # a connection is not for two processes
    result: dict[str, Any] = {
        "endpoint": start.address.url,
        "portal": f"{start.address.url}/portal/",
        "data": str(root),
        "ca": str(start.installation.ca),
        "tenant": plane.place.tenant,
        "subscription": plane.place.subscription,
        "location": plane.place.location,
    }
    if welcome is not None:
        result["first_start"] = {
            "administrator": welcome.login,
            "password": welcome.password,
            "recovery_key": str(welcome.recovery_key),
        }
    return result


def _greeting(welcome: Welcome) -> list[str]:
    return [
        "This is the first start. The password is shown this once: write it down.",
        f"  administrator:  {welcome.login}",
        f"  password:       {welcome.password}",
        f"  recovery key:   {welcome.recovery_key}",
        "                  Keep a copy of this file away from this machine: it opens the recovery kits of all vaults.",
        "Next, `keepstone az-setup` makes a service principal, and says how az logs in.",
        "",
    ]


def _detached(start: Start, root: Path, run: Callable[[Callable[[], None]], None], level: str) -> int:
    """The process in the background."""
    from keepstone.server import background, logs

    folder = root / "log"

    def begin(ready: Callable[[], None]) -> None:
        logs.to_file(folder, "server", level)
        run(ready)

    begun = background.fork(folder, begin)
    start.close()  # in this process
    try:
        begun.wait(start.address.probe, start.installation.ca)
    except KeyboardInterrupt:
        begun.end()
        raise
    return begun.pid
