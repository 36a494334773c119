# SPDX-License-Identifier: Apache-2.0
"""Where Keepstone keeps what is not in a store: platform keys, recovery kits, and caches.

Precedence: an explicit argument, then the environment, then the platform's own folders. `KEEPSTONE_HOME` moves all
of it under one folder. Keys and kits are precious; everything under `cache` can be deleted at any time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`keys` and `kits` hold secrets (folders of mode 0700), `cache` holds what can be rebuilt."""

    keys: Path
    kits: Path
    cache: Path

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """The settings of this user on this machine."""
        environ = os.environ if environ is None else environ
        home = environ.get("KEEPSTONE_HOME")
        if home:
            root = Path(home).absolute()
            return cls(keys=root / "keys", kits=root / "kits", cache=root / "cache")
        import platformdirs

        data = Path(platformdirs.user_data_dir("keepstone", appauthor=False))
        return cls(
            keys=data / "keys",
            kits=data / "kits",
            cache=Path(platformdirs.user_cache_dir("keepstone", appauthor=False)),
        )
