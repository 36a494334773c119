# SPDX-License-Identifier: Apache-2.0
"""`keepstone store drill`: does a recovery point start?"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keepstone.cli.console import Console
from keepstone.cli.opening import Opening, store_command
from keepstone.cli.render import duration, safe, size, text

if TYPE_CHECKING:
    from keepstone.workloads.running import FileSystem, Outcome

__all__ = ["accel_option", "drill", "memory_option"]

_NOT_UP = 4

memory_option = click.option("--memory", type=click.IntRange(64, 1 << 24), metavar="MIB",
    help="Memory of the machine [default: its own].")  # fmt: skip
accel_option = click.option("--accel", type=click.Choice(["kvm", "tcg"]), envvar="KEEPSTONE_ACCEL",
    help="What runs it [default: KVM where it is seen to work; also: KEEPSTONE_ACCEL].")  # fmt: skip


@store_command(name="drill")
@click.argument("name", metavar="POINT")
@memory_option
@click.option("--time-limit", type=click.IntRange(1), default=600, show_default=True, metavar="SECONDS",
              help="How long it may take until it is up.")  # fmt: skip
@click.option("--screenshot", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Put a picture of its screen into this new file (PNG).")  # fmt: skip
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Where it may write meanwhile [default: TMPDIR].")  # fmt: skip
@accel_option
@click.option("--item", metavar="NAME", help="Choose among the points of this item.")
def drill(
    console: Console,
    opening: Opening,
    name: str,
    memory: int | None,
    time_limit: int,
    screenshot: Path | None,
    folder: Path | None,
    accel: str | None,
    item: str | None,
) -> int:
    """Start the machine of POINT where it reaches nobody, see whether it comes up, and throw it away.

    It is up when its guest agent answers or its serial console asks for a login; the command ends with 0 then, else
    with 4. It gets at most 2 GiB of memory unless --memory says more, no network, and what it writes is dropped. Its
    file systems are looked at from within, and in the point.
    """
    from keepstone.errors import TargetExists
    from keepstone.workloads.running import Accel, startable
    from keepstone.workloads.running import drill as run

    if screenshot is not None and screenshot.exists():
        raise TargetExists(f"{screenshot} is there already; take another name")
    store = opening.store()
    env = store.context.env
    point = store.points.find(name, deleted=True, item=None if item is None else text(item))
    with store.reader(point) as reader:
        machine = startable(reader)
        console.say(f"starting {safe(machine.about.name)} of {point.short}")
        outcome = run(
            env,
            machine,
            Path(os.path.abspath(folder or tempfile.gettempdir())),
            memory=None if memory is None else memory << 20,
            seconds=time_limit,
            accel=None if accel is None else Accel(accel),
        )
    if screenshot is not None and outcome.screenshot:
        with open(screenshot, "xb", opener=lambda path, flags: os.open(path, flags | os.O_CLOEXEC, 0o600)) as file:
            file.write(outcome.screenshot)
    told = _told(outcome)
    console.result({"point": point.id, "item": point.record.item, **told}, list(_lines(outcome)))
    return console.ending() if outcome.level.is_up else _NOT_UP


def _told(outcome: Outcome) -> dict[str, Any]:
    import msgspec

    told: dict[str, Any] = msgspec.to_builtins(outcome)
    del told["screenshot"]  # which is a file
    return told


def _lines(outcome: Outcome) -> Iterator[str]:
    after = "" if outcome.seconds is None else f" after {duration(outcome.seconds)}"
    yield f"{outcome.level}: {safe(outcome.reason)}{after}"
    yield f"it read {size(outcome.read)} of {size(outcome.size)}; {outcome.accel}, {size(outcome.memory)} of memory"
    for one in outcome.file_systems:
        yield f"  {_described(one)}"
    if not outcome.level.is_up and outcome.console.strip():
        yield "the end of its console:"
        for line in outcome.console.splitlines()[-10:]:
            yield f"  {safe(line)}"


def _described(one: FileSystem) -> str:
    where = f"{one.disk}/{one.volume}".rstrip("/") if one.disk else "guest"
    used = f"{size(one.used)} of {size(one.size)}" if one.used else size(one.size)
    parts = [str(one.state), where, one.kind, one.name, used, f"({one.note})" if one.note else ""]
    return safe("  ".join(part for part in parts if part))
