# SPDX-License-Identifier: Apache-2.0
"""Where this machine keeps the key files and recovery kits of its stores.

A store's key file is `<store id>.key`. While it is being rotated the next one lies beside it as `<store id>.key.new`;
whichever of the two opens the store is the right one, so a rotation may be interrupted anywhere.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keepstone.settings import Settings

__all__ = ["key_file", "key_files", "next_key_file", "place_for_kit"]


def key_file(settings: Settings, store_id: str) -> Path:
    """The key file of a store."""
    return settings.keys / f"{store_id}.key"


def next_key_file(settings: Settings, store_id: str) -> Path:
    """The key file that a rotation makes."""
    return settings.keys / f"{store_id}.key.new"


def key_files(settings: Settings, store_id: str) -> list[Path]:
    """The key files to try: the store's, and what an interrupted rotation left."""
    following = next_key_file(settings, store_id)
    return [key_file(settings, store_id), *([following] if following.exists() else [])]


def place_for_kit(settings: Settings, store_id: str, chosen: Path | None, store: Path) -> Path:
    """Where a new recovery kit of this store goes. Earlier ones stay good, so none is overwritten: `AlreadyExists`.
    Nor may it lie in the store, with which it would be lost: `UsageError`."""
    from keepstone.errors import AlreadyExists, UsageError

    if (chosen or settings.kits).resolve().is_relative_to(store.resolve()):
        raise UsageError(f"{chosen or settings.kits} is in the store itself; keep the recovery kit away from it")
    if chosen is not None:
        if chosen.exists():
            raise AlreadyExists(f"{chosen} is there already; choose another file for the recovery kit")
        return chosen
    names = (f"{store_id}.age" if number == 1 else f"{store_id}.{number}.age" for number in count(1))
    return next(path for name in names if not (path := settings.kits / name).exists())
