# SPDX-License-Identifier: Apache-2.0
"""Where Keepstone keeps what is not in a store: platform keys, recovery kits, caches, and the folder of a service.

Precedence: an explicit argument, then the environment, then the platform's own folders. `KEEPSTONE_HOME` moves all
of it under one folder, `KEEPSTONE_DATA` is the folder of the service alone. Keys, kits and the service are precious;
everything under `cache` can be deleted at any time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

__all__ = ["Settings"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """`keys`, `kits` and `service` hold secrets (folders of mode 0700), `cache` holds what can be rebuilt."""

    keys: Path
    kits: Path
    cache: Path
    service: Path

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """The settings of this user on this machine."""
        environ = os.environ if environ is None else environ
        home = environ.get("KEEPSTONE_HOME")
        service = environ.get("KEEPSTONE_DATA")
        own = Path(service).absolute() if service else None
        if home:
            root = Path(home).absolute()
            return cls(keys=root / "keys", kits=root / "kits", cache=root / "cache", service=own or root / "service")
        import platformdirs

        data = Path(platformdirs.user_data_dir("keepstone", appauthor=False))
        return cls(
            keys=data / "keys",
            kits=data / "kits",
            cache=Path(platformdirs.user_cache_dir("keepstone", appauthor=False)),
            service=own or data / "service",
        )
