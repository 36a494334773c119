# SPDX-License-Identifier: Apache-2.0
"""What this machine remembers of a store: the newest head that it has seen, and where verify found damage.

A store that is older than this was rolled back, by a restored copy or by somebody with access to the storage. The
memory lies with the cache, outside the store; without it nothing can be said.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from keepstone.decoders import from_json
from keepstone.env import Env
from keepstone.files import have_folders, read_file, write_all

__all__ = ["Seen", "recall", "recall_damage", "remember", "remember_damage"]


class Seen(msgspec.Struct, frozen=True):
    """Sequence and digest of a head."""

    sequence: int
    digest: str


def recall(env: Env, cache: Path | None) -> Seen | None:
    """What was remembered; None where nothing is."""
    if cache is None:
        return None
    try:
        return from_json(Seen).decode(read_file(env.fs, cache / "head.json"))
    except (OSError, msgspec.MsgspecError):
        return None


def remember(env: Env, cache: Path | None, seen: Seen) -> None:
    """Remember a newer head; never an older one."""
    before = recall(env, cache)
    if before is None or before.sequence < seen.sequence:
        _write(env, cache, "head.json", msgspec.json.encode(seen))


def recall_damage(env: Env, cache: Path | None) -> frozenset[str]:
    """The names of the packs in which the last verify found damage: a backup does not build on them."""
    if cache is None:
        return frozenset()
    try:
        return frozenset(from_json(list[str]).decode(read_file(env.fs, cache / "damaged.json")))
    except (OSError, msgspec.MsgspecError):
        return frozenset()


def remember_damage(env: Env, cache: Path | None, packs: list[str]) -> None:
    """Replace what `recall_damage` gives."""
    if packs or recall_damage(env, cache):
        _write(env, cache, "damaged.json", msgspec.json.encode(packs))


def _write(env: Env, cache: Path | None, name: str, data: bytes) -> None:
    """Put a small file into the cache; one that cannot be written is no failure."""
    if cache is None:
        return
    beside = cache / f"{name}.{env.random(4).hex()}"
    try:
        have_folders(env.fs, cache)
        fd = env.fs.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            write_all(env.fs, fd, data)
        finally:
            env.fs.close(fd)
        env.fs.rename(beside, cache / name)
    except OSError:
        with contextlib.suppress(OSError):
            env.fs.unlink(beside)
