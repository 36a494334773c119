# SPDX-License-Identifier: Apache-2.0
"""The worker processes of a server: children whose jobs are free for others as soon as they are dead."""

from __future__ import annotations

import logging
import secrets
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial

import sqlalchemy as sa

from keepstone.control.plane import Plane
from keepstone.jobs import JobQueue
from keepstone.server.children import Birth, Children

__all__ = ["PROGRAM", "Workers"]

_log = logging.getLogger(__name__)
PROGRAM = (sys.executable, "-m", "keepstone.server.worker")
"""What a worker is; `--data`, `--owner`, `--process`, `--log-level` and `--listen` follow."""


class Workers(Children):
    """`count` of them on the data folder of `plane`. `host`: where they listen, for those who recover files. `died` and
    `changed` as of `Children`."""

    def __init__(
        self,
        plane: Plane,
        count: int,
        *,
        host: str = "127.0.0.1",
        level: str = "info",
        program: Sequence[str] = PROGRAM,
        died: Callable[[], None] = lambda: None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        def birth(name: str) -> Birth:
            owner = f"{socket.gethostname()}/{name}/{secrets.token_hex(6)}"
            given = ["--data", str(plane.root), "--log-level", level, "--owner", owner, "--process", name]
            given += ["--listen", host]
            return Birth([*program, *given], bury=partial(_bury, plane.queue, owner))

        super().__init__(plane.env, "worker", count, birth, died=died, changed=changed)


def _bury(queue: JobQueue, owner: str) -> None:
    try:
        count = queue.bury(owner)
    except sa.exc.SQLAlchemyError as error:  # then their leases end
        _log.warning("the jobs of a worker that died have to wait: %s", error)
        return
    if count:
        _log.warning("%d jobs of a worker that died go on with others", count)
