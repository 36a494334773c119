# SPDX-License-Identifier: Apache-2.0
"""A server as people start one, over HTTPS on the loopback interface, and who may log in there."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from keepstone.catalogue import jobs
from keepstone.control import people, vaults
from keepstone.control.installation import Installation
from keepstone.control.plane import Plane
from keepstone.control.work.reclaim import RECLAIM
from keepstone.env import Env
from keepstone.identity import Principal, new_secret
from keepstone.jobs import Status

__all__ = ["LOCATION", "PROGRAM", "Credentials", "Server", "serving"]

LOCATION = "onprem1"
PROGRAM = (sys.executable, "-c", "import sys; from keepstone.cli import main; sys.exit(main())")
_PATIENCE = 60.0
_OPEN = (Status.QUEUED, Status.RUNNING, Status.CANCELLING)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a service principal logs in with, and the object id that role assignments name."""

    client: str
    secret: str = field(repr=False)
    id: str


class Server:
    """A server that answers at `url`. `plane`: the same installation, opened in this process."""

    def __init__(self, root: Path, said: dict[str, Any], installation: Installation, plane: Plane) -> None:
        self.root = root
        self.url: str = said["endpoint"]
        self.ca = Path(said["ca"])
        self.tenant: str = said["tenant"]
        self.subscription: str = said["subscription"]
        self.plane = plane
        self._issuer = installation.issuer(self.tenant)
        self._numbers = count(1)

    def principal(self, *roles: str, scope: str = "/") -> Credentials:
        """Somebody new who has these roles."""
        client, secret = f"client-{next(self._numbers)}", new_secret(self.plane.env)
        with self.plane.change() as change:
            who = people.add(change, "app", client, client, secret)
            for role in roles:
                people.assign(change, scope, who.id, role)
        return Credentials(client, secret, who.id)

    def token(self, credentials: Credentials) -> str:
        """What somebody would get for his credentials."""
        who = Principal(credentials.id, credentials.client)
        return self._issuer.issue(who, f"{self.url}/", f"{self.url}/{self.tenant}/v2.0")

    def settle(self, job: str) -> None:
        """Until a job is over: az would ask every 30 seconds."""
        self._until_none(jobs.c.id == UUID(job))

    def settle_all(self, group: str, vault: str) -> None:
        """Until all jobs of a vault are over."""
        with self.plane.look() as connection:
            found = vaults.find(connection, self.subscription, group, vault)
        self._until_none(jobs.c.vault == found.id)

    def until_begun(self, job: str) -> None:
        """Until somebody works at a job."""
        self._until_none(jobs.c.id == UUID(job), (Status.QUEUED,))

    def _until_none(self, which: sa.ColumnElement[bool], of: Sequence[Status] = _OPEN) -> None:
        end = time.monotonic() + _PATIENCE
        query = sa.select(jobs.c.id, jobs.c.operation, jobs.c.status).where(which, jobs.c.status.in_(of))
        while True:
            with self.plane.look() as connection:
                waiting = connection.execute(query).all()
            if not waiting:
                return
            assert time.monotonic() < end, f"not over yet: {waiting}"
            time.sleep(0.05)

    def waiting_job(self, group: str, vault: str) -> str:
        """A job of the vault's own that will be due when nobody waits for it any more."""
        about = {"entity": vault}
        with self.plane.change() as change:
            found = vaults.find(change.connection, self.subscription, group, vault)
            due = change.now + timedelta(days=1)
            return str(self.plane.queue.enqueue(change.connection, RECLAIM, about, vault=found.id, due=due))

    def group(self, name: str) -> str:
        """The id of a resource group."""
        return f"/subscriptions/{self.subscription}/resourceGroups/{name}"

    def vault(self, group: str, name: str) -> str:
        """The id of a vault."""
        return f"{self.group(group)}/providers/Microsoft.RecoveryServices/vaults/{name}"

    def keepstone(self, command: str, *more: str) -> dict[str, Any]:
        """What a command of Keepstone on this server prints. `more`: arguments that are not to be split at spaces."""
        return _keepstone(self.root, command, *more)


@contextmanager
def serving(root: Path) -> Iterator[Server]:
    """A new installation in `root`, and its server until the end."""
    said = _keepstone(root, "up", "--port", "0", "--location", LOCATION, "--detach")
    try:
        installation = Installation(Env(), root)
        plane = installation.plane()
        yield Server(root, said, installation, plane)
        plane.database.close()
    finally:
        _keepstone(root, "down")


def _keepstone(root: Path, command: str, *more: str) -> dict[str, Any]:
    done = subprocess.run(
        [*PROGRAM, *command.split(), "--data", str(root), "--json", *more],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=_PATIENCE,
    )
    assert done.returncode == 0, f"keepstone {command} ended with {done.returncode}: {done.stderr}"
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result
