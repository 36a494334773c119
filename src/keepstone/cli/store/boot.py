# SPDX-License-Identifier: Apache-2.0
"""`keepstone store boot`: a machine goes on from a recovery point at once."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keepstone.cli.console import Console
from keepstone.cli.opening import Opening, store_command
from keepstone.cli.progress import metered
from keepstone.cli.render import safe, text
from keepstone.cli.store.drill import accel_option, memory_option

if TYPE_CHECKING:
    from keepstone.workloads.running import Network, Running

__all__ = ["boot"]

_SOCKET = click.Path(path_type=Path, dir_okay=False)
_BRIDGE = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_VNC = 5900  # the port of display 0
_GRACE = 60.0  # seconds that a guest has to shut down


@store_command(name="boot")
@click.argument("name", metavar="POINT")
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), required=True, metavar="DIR",
              help="Where its images are: a new folder, or that of an earlier run.")  # fmt: skip
@click.option("--move", is_flag=True, help="Copy the disks there while it runs, then let it run on by itself.")
@click.option("--network", default="none", show_default=True, metavar="user|none|bridge=NAME",
              help="What it is connected to.")  # fmt: skip
@click.option("--vnc", metavar="ADDRESS", help="Its screen: HOST:PORT of this machine, or the path of a socket.")
@click.option("--qmp", type=_SOCKET, metavar="SOCKET", help="One more monitor, at this new socket.")
@click.option("--agent", type=_SOCKET, metavar="SOCKET", help="Its guest agent, at this new socket [default: in DIR].")
@memory_option
@accel_option
@click.option("--item", metavar="NAME", help="Choose among the points of this item.")
def boot(
    console: Console,
    opening: Opening,
    name: str,
    folder: Path,
    move: bool,
    network: str,
    vnc: str | None,
    qmp: Path | None,
    agent: Path | None,
    memory: int | None,
    accel: str | None,
    item: str | None,
) -> int:
    """Start the machine of POINT straight from the store, and go on from there.

    What it writes goes to images in DIR, which stay: the same command goes on where it was. Until it is moved the
    machine reads the store and ends with the command, which Ctrl-C shuts down. Give the command with --move, or once
    more with --move while it runs; when all is copied the machine runs on by itself, and the command ends.
    """
    from keepstone.workloads.running import Accel, move_running, startable
    from keepstone.workloads.running import boot as start

    connected, screen = _network(network), _screen(vnc)
    store = opening.store()
    env = store.context.env
    point = store.points.find(name, deleted=True, item=None if item is None else text(item))
    place = Path(os.path.abspath(folder))
    result: dict[str, Any] = {"point": point.id, "item": point.record.item, "folder": str(place)}
    if move and place.is_dir():
        with metered(console, "move") as meter:
            moved = move_running(env, place, point.id, meter)
        if moved:
            console.result({**result, "state": "moved"}, [f"the machine in {safe(str(place))} needs the store no more"])
            return console.ending()
    with (
        store.reader(point) as reader,
        start(
            env,
            startable(reader),
            place,
            point=point.id,
            network=connected,
            vnc=screen,
            monitor=None if qmp is None else Path(os.path.abspath(qmp)),
            agent=None if agent is None else Path(os.path.abspath(agent)),
            memory=None if memory is None else memory << 20,
            accel=None if accel is None else Accel(accel),
        ) as running,
    ):
        about: dict[str, Any] = {"process": running.process, "qmp": str(running.second or running.monitor),
                 "agent": str(running.agent), "console": str(running.console)}  # fmt: skip
        console.event("running", point=point.id, **about)
        console.say(
            f"recovery point {point.short} runs, process {running.process}; its monitor is {safe(about['qmp'])}"
        )
        try:
            if move:
                with metered(console, "move") as meter:
                    running.move(meter)
            state = _until_it_ends(console, running)
        except KeyboardInterrupt:
            console.say("asking the machine to shut down; Ctrl-C once more ends it at once")
            state = "shut down" if running.stop(_GRACE) else "ended"
        result |= {**about, "state": state, "read": running.read}
    lines = [f"the machine {state}; its images are in {safe(str(place))}"]
    if state == "moved":
        lines = [f"the machine runs on by itself, process {running.process}, on its images in {safe(str(place))}"]
    console.result(result, lines)
    return console.ending()


def _until_it_ends(console: Console, running: Running) -> str:
    """Or needs the store no more: then it is let go."""
    while True:
        ended = running.wait(1)
        if ended is not None:
            if ended.status:
                console.warn(f"QEMU ended with {ended.status}: {safe(ended.said)}")
            return "ended"
        if not running.needs_point:
            running.let_go()
            return "moved"
        error = running.unread()
        if error is not None:
            console.warn(f"the machine stood still, because its disk could not be read: {error}")


def _network(value: str) -> Network:
    from keepstone.errors import UsageError
    from keepstone.workloads.running import Network

    kind, _, bridge = value.partition("=")
    if value in ("none", "user") or (kind == "bridge" and _BRIDGE.fullmatch(bridge)):
        return Network(kind, bridge)
    raise UsageError(f"{value!r} is no network; write --network none, user, or bridge=NAME")


def _screen(value: str | None) -> str:
    """As QEMU's option has it. It asks for no password, so nobody else may reach it."""
    from keepstone.disks.nbd import Address
    from keepstone.errors import TargetExists, UsageError

    if value is None:
        return ""
    if "/" in value or ":" not in value:
        path = os.path.abspath(value)
        if "," in path:
            raise UsageError(f"{value}: a path with a comma cannot be given to QEMU; take another")
        if os.path.lexists(path):
            raise TargetExists(f"{path}: there is something already; remove it if nobody uses it")
        return f"unix:{path}"
    try:
        address = Address.of(value)
    except UsageError as error:
        raise UsageError(
            f"{value!r} is no place for a screen; write 127.0.0.1:PORT, or the path of a socket"
        ) from error
    if not address.loopback or address.port < _VNC:
        raise UsageError(
            f"{value}: whoever reaches the screen has the machine; write 127.0.0.1:{_VNC} or a higher port, or a path"
        )
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port - _VNC}"
