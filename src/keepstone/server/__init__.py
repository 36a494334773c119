# SPDX-License-Identifier: Apache-2.0
"""The service as processes: a server, which keeps time and looks after the others; answerers, which answer at its port;
and workers, which run its jobs. One data folder.

Who holds the folder's lock is the server (`instance.py`). It starts the others and keeps them alive (`children.py`).
"""

from __future__ import annotations

import pathlib

__all__ = ["serve"]


def serve(root: pathlib.Path, host: str, port: int, *, answerers: int | None = None, workers: int = 1) -> None:
    """Serve the installation in `root`, which has begun, in this process until a signal says to stop. `answerers`: how
    many; as many as help where that is None."""
    from keepstone.server.starting import Start

    with Start.prepare(root, host, port) as start:
        start.run(answerers=answerers, workers=workers)
