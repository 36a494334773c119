# SPDX-License-Identifier: Apache-2.0
"""A point of a machine as a folder: a new file for each disk, and `machine.json`, which says what machine it was."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from keepstone.disks.writing import FORMATS, RAW, Format
from keepstone.env import Env
from keepstone.errors import KeepstoneError
from keepstone.files import exists, make_folder
from keepstone.objects import failure, write_private
from keepstone.workloads.images import Lost
from keepstone.workloads.machines.restore import restore_disks
from keepstone.workloads.machines.root import Disk, Role
from keepstone.workloads.machines.view import PointOfMachine
from keepstone.workloads.progress import Progress

__all__ = ["DESCRIPTION", "Restored", "described", "placed", "restore_machine"]

DESCRIPTION = "machine.json"


@dataclass(frozen=True, slots=True)
class Restored:
    """`files`: by their disks. `lost`: what could not be had, with the disk that it is of."""

    folder: Path
    files: dict[str, Path]
    lost: list[tuple[Disk, Lost]]


def described(machine: PointOfMachine, files: dict[str, Path] | None = None) -> dict[str, Any]:
    """What a point says of its machine, for programs. `files`: what its disks are called there."""
    about = machine.about
    moment = datetime.fromtimestamp(about.moment // 10**9, UTC)
    names = files or {disk.name: Path(f"{disk.name}.raw") for disk in about.disks}
    return {
        "name": about.name,
        "moment": f"{moment:%Y-%m-%dT%H:%M:%SZ}",
        "consistency": {
            "level": str(about.consistency.level),
            "reason": about.consistency.reason,
            "frozen_seconds": round(about.consistency.frozen / 10**9, 3),
        },
        "disks": [
            {
                "name": disk.name,
                "size": disk.size,
                "role": str(disk.role),
                "bus": disk.bus,
                "file": names[disk.name].name,
            }
            for disk in about.disks
        ],
        "excluded": about.excluded,
        "definition": {name: _readable(document) for name, document in about.definition.items()},
    }


def placed(machine: PointOfMachine, folder: Path, format: str | None = None) -> dict[str, Path]:
    """The file that each disk becomes there, by its name."""
    return {disk.name: folder / (disk.name + _format(disk, format).suffixes[0]) for disk in machine.about.disks}


def restore_machine(
    env: Env,
    machine: PointOfMachine,
    folder: Path,
    progress: Progress,
    *,
    names: Collection[str] = (),
    format: str | None = None,
) -> Restored:
    """Restore these disks, or all, into a folder, which is made where it is missing. `format`: of its disks; what
    firmware keeps stays raw. Nothing that exists is overwritten. `NotFound` for a name that is none, and what
    `restore_into` raises: the error says what is there and whole then."""

    files = placed(machine, folder, format)
    before = [path for path in files.values() if exists(env.fs, path)]
    told = described(machine, files)
    try:
        make_folder(env.fs, folder)
        done = restore_disks(
            env, machine, lambda disk: (files[disk.name], _format(disk, format)), progress, names=names
        )
        write_private(env, folder / DESCRIPTION, json.dumps(told, indent=2).encode())
    except (KeepstoneError, OSError) as error:
        known = error if isinstance(error, KeepstoneError) else failure(error, str(folder))
        whole = [os.fspath(path) for path in files.values() if exists(env.fs, path) and path not in before]
        if whole:  # one that failed is gone again
            known.args = (f"{known}. {', '.join(whole)} is there and whole; take it away before you try again",)
        raise known from error
    lost = [(disk, piece) for disk, pieces in done for piece in pieces]
    return Restored(folder, {disk.name: files[disk.name] for disk, _ in done}, lost)


def _format(disk: Disk, format: str | None) -> Format:
    return FORMATS[format if format and disk.role is Role.DISK else RAW]


def _readable(document: bytes) -> Any:
    """A document as JSON has it, else as text."""
    try:
        return json.loads(document)
    except (ValueError, RecursionError):
        return document.decode("utf-8", "backslashreplace")
