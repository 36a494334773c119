# SPDX-License-Identifier: Apache-2.0
"""A thousand schedules that fall due at once: real folders, real workers, one vault.

Each folder has two small files, so what is measured is what a backup costs whatever it backs up. All schedules are set
to one moment, and the table of jobs says when a worker took each.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from bench.measure import Failed
from bench.service.estate import GROUP, Estate
from bench.service.served import Served
from keepstone.catalogue import jobs, schedules
from keepstone.control import containers, items, vaults
from keepstone.control.installation import Installation
from keepstone.control.plane import Plane
from keepstone.control.sources import item_name
from keepstone.env import Env
from keepstone.jobs import BACKUP, Status
from keepstone.vault import Vault

__all__ = ["measure"]

_VAULT = "vault-02"
_WORKERS = 2
_PATIENCE = 600.0


def measure(root: Path, estate: Estate, count: int) -> dict[str, float]:
    """Seconds from the moment until all are asked for, all have started, and all have ended well."""
    plane = Installation(Env(), root).plane()
    try:
        with plane.look() as connection:
            vault = vaults.find(connection, plane.place.subscription, GROUP, _VAULT)
        _protect(plane, vault, root.parent / "sources", count)  # a service does not back up itself
        with Served(root, estate.who, workers=_WORKERS) as server:
            server.settle()
            _wait(plane, jobs.c.status == Status.QUEUED, 0)  # what workers find at their start
            due = plane.env.utc() + timedelta(seconds=2)
            with plane.database.change() as connection:
                connection.execute(schedules.update().where(schedules.c.vault == vault.id).values(due=due))
            over = jobs.c.status.in_((Status.COMPLETED, Status.WARNED, Status.FAILED, Status.CANCELLED))
            _wait(plane, over & (jobs.c.vault == vault.id) & (jobs.c.operation == BACKUP), count)
        return _figures(plane, vault, due) | {"due": count, "workers": _WORKERS}
    finally:
        plane.database.close()


def _protect(plane: Plane, vault: Vault, sources: Path, count: int) -> None:
    chosen = {"protectedItemType": "MabFileFolderProtectedItem", "policyId": f"{vault.path}/backupPolicies/FilesPolicy"}
    with plane.change() as change:
        for number in range(count):
            folder = sources / f"{number:05}"
            folder.mkdir(parents=True)
            (folder / "own.txt").write_text(f"{number}\n" * 100)
            (folder / "shared.txt").write_text("the same in each\n" * 100)
            wanted = chosen | {"sourcePath": str(folder)}
            items.protect(change, vault, containers.local_name(), item_name(str(folder)), wanted, "")


def _wait(plane: Plane, which: sa.ColumnElement[bool], count: int) -> None:
    """Until there are so many such jobs."""
    until = time.monotonic() + _PATIENCE
    query = sa.select(sa.func.count()).select_from(jobs).where(which)
    while time.monotonic() < until:
        with plane.look() as connection:
            if connection.execute(query).scalar_one() == count:
                return
        time.sleep(0.5)
    raise Failed(f"the workers took longer than {_PATIENCE:.0f} seconds")


def _figures(plane: Plane, vault: Vault, due: datetime) -> dict[str, float]:
    mine = jobs.c.vault == vault.id, jobs.c.operation == BACKUP
    newest = sa.select(sa.func.max(jobs.c.created), sa.func.max(jobs.c.started), sa.func.max(jobs.c.ended))
    with plane.look() as connection:
        bad = connection.execute(
            sa.select(sa.func.count()).where(*mine, jobs.c.status != Status.COMPLETED)
        ).scalar_one()
        asked, started, ended = connection.execute(newest.where(*mine)).one()
    if bad:
        raise Failed(f"{bad} of the backups did not end well")
    return {
        "asked_s": (asked - due).total_seconds(),
        "started_s": (started - due).total_seconds(),
        "ended_s": (ended - due).total_seconds(),
    }
