# SPDX-License-Identifier: Apache-2.0
"""What the processes of a service know of one another, in its folder `run`.

`processes.json` tells those that answer who runs. The server writes it whenever one begins or ends; another file takes
its place each time, so nobody reads half of it. `counts/` has what each of those that answer has counted.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from keepstone.decoders import from_json

__all__ = ["Kind", "Processes", "counts"]


class Kind(msgspec.Struct, frozen=True):
    """`wanted`: how many should run. `alive`: those that do, by name: their process ids. `restarts`: how many died and
    were started anew since the server began."""

    wanted: int = 0
    alive: dict[str, int] = {}
    restarts: int = 0


class Processes(msgspec.Struct, frozen=True, kw_only=True):
    """`server`: its process id."""

    server: int
    answerers: Kind = Kind()
    receivers: Kind = Kind()
    workers: Kind = Kind()

    @classmethod
    def read(cls, root: Path) -> Processes:
        """Those of the service in `root`, which runs. `FileNotFoundError` where none ever did."""
        return from_json(cls).decode(_path(root).read_bytes())

    def write(self, root: Path) -> None:
        """For `read`. By one thread at a time."""
        path = _path(root)
        made = path.with_suffix(".new")
        made.write_bytes(msgspec.json.encode(self) + b"\n")
        made.replace(path)

    @property
    def pids(self) -> dict[str, int]:
        """All of them by name."""
        return {"server": self.server, **self.answerers.alive, **self.receivers.alive, **self.workers.alive}


def counts(root: Path) -> Path:
    """The folder of what is counted; the server makes it anew when it begins (`metrics.py`)."""
    return root / "run" / "counts"


def _path(root: Path) -> Path:
    return root / "run" / "processes.json"
