# SPDX-License-Identifier: Apache-2.0
"""A store of Keepstone in a folder, worked on by the command that people use."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from bench.measure import Cost, Failed, allocated, measure
from bench.peers import Keepstone, Room

__all__ = ["Shelf", "need"]


def need(*programs: str) -> None:
    """`Failed` where one of these is not there."""
    missing = [name for name in programs if shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin") is None]
    if missing:
        raise Failed(f"needs {', '.join(missing)}; scripts/tools.sh installs them")


class Shelf:
    """An empty store beneath `folder`."""

    def __init__(self, folder: Path) -> None:
        self._room, self._tool = Room(folder), Keepstone()
        for place in (self._room.home, self._room.target):
            place.mkdir(parents=True)
        measure(self._tool.init(self._room))

    @property
    def room(self) -> Room:
        return self._room

    def run(self, verb: str, *arguments: object) -> Cost:
        """What `keepstone store VERB` costs. `Failed`."""
        return measure(self._tool.command(self._room, verb, *map(str, arguments)))

    def told(self, verb: str, *arguments: object) -> tuple[Cost, dict[str, Any]]:
        """The same, and its result."""
        cost = self.run(verb, *arguments, "--json")
        result: dict[str, Any] = json.loads(cost.output)
        return cost, result

    def stored(self) -> int:
        """Bytes that the store occupies."""
        return allocated(self._room.store)
