# SPDX-License-Identifier: Apache-2.0
"""All handlers, by the operations that they carry out. Those of machines take much with them, and come when one is
needed."""

from __future__ import annotations

from collections.abc import Mapping

from keepstone.control.drills import DRILL
from keepstone.control.file_recovery import SERVE
from keepstone.control.hypervisors import DISCOVER
from keepstone.control.looks import LOOK
from keepstone.control.plane import Plane
from keepstone.control.work.backup import backup
from keepstone.control.work.footprint import COUNT, count
from keepstone.control.work.let_go import let_go
from keepstone.control.work.purge import PURGE, purge
from keepstone.control.work.reclaim import RECLAIM, reclaim
from keepstone.control.work.restore import RESTORE, restore
from keepstone.control.work.verify import VERIFY, verify
from keepstone.jobs import BACKUP, Context, Handler

__all__ = ["handlers", "standing"]


def handlers(plane: Plane) -> Mapping[str, Handler]:
    """The handlers by their operations."""
    return {
        BACKUP: lambda context: backup(plane, context),
        RESTORE: lambda context: restore(plane, context),
        PURGE: lambda context: purge(plane, context),
        RECLAIM: lambda context: reclaim(plane, context),
        COUNT: lambda context: count(plane, context),
        VERIFY: lambda context: verify(plane, context),
        DRILL: lambda context: _drill(plane, context),
        DISCOVER: lambda context: _look(plane, context),
        LOOK: lambda context: let_go(plane, context),
    }


def standing(plane: Plane, host: str) -> Mapping[str, Handler]:
    """Those of jobs that stand until somebody ends them. `host`: the address at which the service listens."""
    return {SERVE: lambda context: _serve(plane, context, host)}


def _drill(plane: Plane, context: Context) -> None:
    from keepstone.control.work.drill import drill

    drill(plane, context)


def _look(plane: Plane, context: Context) -> None:
    from keepstone.control.work.discover import look

    look(plane, context)


def _serve(plane: Plane, context: Context, host: str) -> None:
    from keepstone.control.work.serve import serve

    serve(plane, context, host)
