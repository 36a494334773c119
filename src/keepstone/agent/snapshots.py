# SPDX-License-Identifier: Apache-2.0
"""Which snapshots the virtual machines of this host keep still: its service knows what it was told, and asks.

They all go where this machine has no folder for them any more (`backup.snapshots` of `agent.toml`), or hardly any room
in it: others may need that.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from keepstone.agent.configuration import Configuration
from keepstone.agent.paths import Paths
from keepstone.env import Env
from keepstone.errors import KeepstoneError, SourceMissing, UsageError
from keepstone.workloads.hypervisors.near import still_kept
from keepstone.workloads.machines import Room

if TYPE_CHECKING:
    from keepstone.agent.job import Order, Report

__all__ = ["look"]


class _Asked(msgspec.Struct, frozen=True):
    """An item, see `wire.LOOK`."""

    item: str
    name: str
    source: dict[str, Any]
    stamps: list[int] = []
    none: bool = False


def look(env: Env, order: Order, configuration: Configuration, report: Report) -> list[dict[str, Any]]:
    """Let those go whose time is over, or all of an item; which of those that the service knows of are `gone`. What
    cannot be looked at now is a warning. `UsageError`."""
    try:
        items = msgspec.convert(order.work.arguments.get("items"), list[_Asked])
    except msgspec.ValidationError as error:
        raise UsageError(f"the service asks about snapshots in a way that this agent does not know: {error}") from error
    paths = Paths(configuration, order.folders.configuration, order.folders)
    none = not _has_room(env, configuration.backup.snapshots)
    told = []
    for one in items:
        report.check()
        try:
            paths.hypervisor(one.source)
            there = still_kept(env, one.source, one.item, none=none or one.none)
        except SourceMissing:
            there = []  # QEMU has ended, and nothing of them is left
        except KeepstoneError as error:
            report.warn(b"", f"the snapshots of {one.name} were not looked at: {error}")
            continue
        told.append({"item": one.item, "gone": [stamp for stamp in one.stamps if stamp not in there]})
    report.step(f"the snapshots of {len(told)} machines were looked at")
    return told


def _has_room(env: Env, folder: str | None) -> bool:
    try:
        return folder is not None and not Room(env, Path(folder)).ends()
    except OSError:
        return False
