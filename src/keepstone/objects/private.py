# SPDX-License-Identifier: Apache-2.0
"""Files that are their owner's alone: keys, kits, secrets. Whole and durable, or not there."""

from __future__ import annotations

import os
from pathlib import Path

from keepstone.env import Env
from keepstone.errors import AlreadyExists, NotFound
from keepstone.objects.failure import failure

__all__ = ["replace_private", "write_private"]


def write_private(env: Env, path: Path, data: bytes) -> None:
    """Write a new file that only its owner may read, durable on return; its missing folders as well.

    `AlreadyExists` where there is something, and what else the operating system says; nothing is left behind then.
    """
    fs = env.fs
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = fs.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[fs.write(descriptor, view) :]
            fs.fsync(descriptor)
        except BaseException:
            fs.unlink(path)
            raise
        finally:
            fs.close(descriptor)
        _sync(env, path.parent)
    except FileExistsError as error:
        if not path.parent.is_dir():
            raise NotFound(f"{path}: {path.parent} is no folder; check the path") from error
        raise AlreadyExists(f"{path} is there already; choose another file") from error
    except OSError as error:
        raise failure(error, str(path), missing=NotFound) from error


def replace_private(env: Env, source: Path, target: Path) -> None:
    """Give a file the name of another one, durable on return."""
    try:
        env.fs.rename(source, target)
        _sync(env, target.parent)
    except OSError as error:
        raise failure(error, str(target)) from error


def _sync(env: Env, folder: Path) -> None:
    descriptor = env.fs.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        env.fs.fsync(descriptor)
    finally:
        env.fs.close(descriptor)
