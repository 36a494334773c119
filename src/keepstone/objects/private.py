# SPDX-License-Identifier: Apache-2.0
"""Files that are their owner's alone: keys, kits, secrets. Whole and durable, or not there."""

from __future__ import annotations

from pathlib import Path

from keepstone.env import Env
from keepstone.errors import AlreadyExists, NotFound
from keepstone.files import sync_folder, write_new
from keepstone.objects.failure import failure

__all__ = ["replace_private", "write_private"]


def write_private(env: Env, path: Path, data: bytes) -> None:
    """Write a new file that only its owner may read, durable on return; its missing folders as well.

    `AlreadyExists` where there is something, and what else the operating system says; nothing is left behind then.
    """
    try:
        write_new(env.fs, path, data)
    except FileExistsError as error:
        raise AlreadyExists(f"{path} is there already; choose another file") from error
    except OSError as error:
        raise failure(error, str(path), missing=NotFound) from error


def replace_private(env: Env, source: Path, target: Path) -> None:
    """Give a file the name of another one, durable on return."""
    try:
        env.fs.rename(source, target)
        sync_folder(env.fs, target.parent)
    except OSError as error:
        raise failure(error, str(target)) from error
