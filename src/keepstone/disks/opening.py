# SPDX-License-Identifier: Apache-2.0
"""Disks of this machine, in whatever format they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from keepstone.disks.detecting import FORMATS, RAW, detect
from keepstone.disks.raw import RawSource
from keepstone.env import Env
from keepstone.errors import UsageError

if TYPE_CHECKING:
    from keepstone.disks.mapped import MappedSource
    from keepstone.disks.qcow2 import Qcow2Source

__all__ = ["Disk", "open_disk"]

Disk: TypeAlias = "RawSource | MappedSource | Qcow2Source"


def open_disk(
    env: Env,
    path: Path,
    format: str | None = None,
    *,
    folders: Sequence[Path] = (),
    allowed: Callable[[Path], object] | None = None,
) -> Disk:
    """The disk in this image or block device. `format`: one of `FORMATS`; by default what name and content both say.

    `folders`: where parents and data files may lie, besides the folder of the image. `allowed` is called with each of
    them before it is opened, and raises where it must not be.

    `SourceMissing` where something of it is not there, `SourceFailed` where it is damaged, `Unsupported` where nobody
    here knows it, `UsageError` where it is not what it is said to be.
    """
    found = detect(env, path) if format is None else format
    if found == RAW:
        return RawSource(env, path)
    if found not in FORMATS:
        raise UsageError(f"there is no format {found}; choose one of {', '.join(FORMATS)}")
    from keepstone.disks.foreign import open_image  # only what needs it pays for it

    return open_image(env, path, found, folders, allowed)
