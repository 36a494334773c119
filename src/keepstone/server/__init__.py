# SPDX-License-Identifier: Apache-2.0
"""The service as processes: a server, which answers and keeps time, and workers, which run its jobs; one data folder.

Who holds the folder's lock is the server (`instance.py`). It starts the workers and looks after them (`workers.py`).
"""

from __future__ import annotations

import pathlib

__all__ = ["serve"]


def serve(root: pathlib.Path, host: str, port: int, *, workers: int = 1) -> None:
    """Serve the installation in `root`, which has begun, in this process until a signal says to stop."""
    from keepstone.server.starting import Start

    with Start.prepare(root, host, port) as start:
        start.run(workers=workers)
