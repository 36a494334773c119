# SPDX-License-Identifier: Apache-2.0
"""What this machine remembers of a store: the newest head that it has seen.

A store that is older than this was rolled back, by a restored copy or by somebody with access to the storage. The
memory lies with the cache, outside the store; without it nothing can be said.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from keepstone.env import Env

__all__ = ["Seen", "recall", "remember"]


class Seen(msgspec.Struct, frozen=True):
    """Sequence and digest of a head."""

    sequence: int
    digest: str


def recall(cache: Path | None) -> Seen | None:
    """What was remembered; None where nothing is."""
    if cache is None:
        return None
    try:
        return msgspec.json.decode((cache / "head.json").read_bytes(), type=Seen)
    except (OSError, msgspec.MsgspecError):
        return None


def remember(env: Env, cache: Path | None, seen: Seen) -> None:
    """Remember a newer head; never an older one. A cache that cannot be written is no failure."""
    before = recall(cache)
    if cache is None or (before is not None and before.sequence >= seen.sequence):
        return
    try:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside = str(cache / f"head.{env.random(4).hex()}")
        fd = env.fs.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            env.fs.write(fd, msgspec.json.encode(seen))
        finally:
            env.fs.close(fd)
        env.fs.rename(beside, str(cache / "head.json"))
    except OSError:
        return
