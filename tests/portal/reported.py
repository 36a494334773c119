# SPDX-License-Identifier: Apache-2.0
"""Days and outcomes that a test cannot wait for: points, drills and alerts of a service that runs, written into its
database as the service itself writes them. What pages show of them is proved by that, not that they come about."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from types import TracebackType
from typing import Self
from uuid import UUID

import sqlalchemy as sa

from keepstone.catalogue import items, jobs, points, policies, vaults
from keepstone.control import alerts, drills
from keepstone.control.installation import Installation
from keepstone.control.plane import Plane
from keepstone.env import Env
from keepstone.vault.alerts import Kind, Subject
from tests.portal.house import HOSTILE, House

__all__ = ["Records", "Written"]

PICTURE = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360606060000000050001a5f6"
    "45400000000049454e44ae426082"
)
"""A PNG of one point."""


@dataclass(frozen=True)
class Written:
    """What pages show of. `missing`: the day on which a point of the machine is."""

    machine: str
    drill: str
    alert: str
    missing: str


class Records:
    """The database of a house, within the block. `about`: what its alerts are about."""

    def __init__(self, house: House, about: str = HOSTILE) -> None:
        self.house, self.about = house, about

    @cached_property
    def plane(self) -> Plane:
        """As another process of the service has it."""
        return Installation(Env(), self.house.service.root).plane()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.plane.database.close()

    @property
    def vault(self) -> UUID:
        """The only one."""
        with self.plane.look() as connection:
            return UUID(str(connection.execute(sa.select(vaults.c.id).where(vaults.c.deleted.is_(None))).scalar_one()))

    def machine(self, name: str, *, group: str = "g1", protect: bool = True) -> str:
        """A virtual machine with a disk image; the id of its item."""
        image = self.house.data.parent / f"{name}.img"
        image.write_bytes(bytes(1 << 20))
        self.house.run("vm", "create", "-g", group, "-n", name, "--disk", image)
        if not protect:
            return ""
        self.house.run("protection", "enable-for-vm", "--vm", name)
        return next(
            str(one["id"]) for one in self.house.run("item", "list") if one["properties"]["friendlyName"] == name
        )

    def item(self, identity: str) -> UUID:
        """What the database calls it."""
        with self.plane.look() as connection:
            query = sa.select(items.c.id).where(items.c.name == identity.rpartition("/")[2])
            return UUID(str(connection.execute(query).scalar_one()))

    def aged(self, item: UUID, days: int) -> None:
        """As if it were protected like this for so long."""
        then = self.plane.env.utc() - timedelta(days=days)
        with self.plane.database.change() as connection:
            policy = sa.select(items.c.policy).where(items.c.id == item).scalar_subquery()
            connection.execute(items.update().where(items.c.id == item).values(created=then))
            connection.execute(jobs.update().where(jobs.c.item == item).values(created=then))
            connection.execute(policies.update().where(policies.c.id == policy).values(changed=then))

    def points(self, item: UUID, days: int, but: frozenset[int] = frozenset(), kept: int = 0) -> None:
        """One in each night of so many days until yesterday, but for some. `kept`: for how many days, if not for
        ever."""
        chance, now = random.Random(1), self.plane.env.utc()
        midnight = datetime(now.year, now.month, now.day, tzinfo=UTC)
        rows, newest = [], midnight
        for ago in range(days, -1, -1):
            if ago in but or midnight - timedelta(days=ago) + timedelta(hours=23) > now:
                continue
            for part in range(1 if ago % 9 else 4):
                number, newest = (
                    chance.getrandbits(60),
                    midnight - timedelta(days=ago) + timedelta(hours=23, minutes=part),
                )
                rows.append(
                    {
                        "item": item, "name": str(number), "vault": self.vault, "commit_id": f"{number:015x}",
                        "made": newest, "until": newest + timedelta(days=kept) if kept else None,
                        "type": "Full", "consistency": "AppConsistent", "logical": (40 << 30) + (days - ago << 27),
                        "fresh": 1 << 28, "stored": chance.randrange(1 << 27, 1 << 28), "warnings": 0,
                    }
                )  # fmt: skip
        with self.plane.database.change() as connection:
            connection.execute(points.insert(), rows)
            connection.execute(items.update().where(items.c.id == item).values(newest=newest))

    def drill(
        self, item: UUID, ago: timedelta, level: str, picture: bytes, console: str = "login: ", note: str = HOSTILE
    ) -> str:
        """What one found out; its name. `note`: what it says of a file system that it cannot read."""
        up = level in ("agent", "login")
        with self.plane.look() as connection:
            point = connection.execute(
                sa.select(points.c.name).where(points.c.item == item).order_by(points.c.made.desc()).limit(1)
            ).scalar_one()
        outcome = {
            "reason": "its serial console asks for a login" if up else "nothing came over its serial console",
            "total": 31.5, "read": 300 << 20, "size": 40 << 30, "accel": "kvm", "memory": 1 << 30, "shut_down": up,
            "console": console,
            "file_systems": [
                {"state": "mounted", "kind": "ext4", "name": "/", "size": 38 << 30, "used": 3 << 30},
                {"state": "unreadable", "kind": "xfs", "disk": "data", "volume": "1", "note": note},
            ],
        }  # fmt: skip
        made = drills.Drill(
            id=self.plane.new_id(), item=item, point=str(point), began=self.plane.env.utc() - ago, level=level,
            seconds=12.25 if up else None, outcome=outcome,
        )  # fmt: skip
        with self.plane.change() as change:
            drills.add(change, made, picture)
        return str(made.id)

    def alert(self, message: str, kind: Kind = Kind.STORE_DAMAGED, part: str = "") -> str:
        """One of the vault; its id."""
        with self.plane.change() as change:
            subject = Subject(kind=kind, vault=self.vault, part=part)
            alerts.fire(
                change.connection, self.plane.env, subject, message, resource=self.house.vault, entity=self.about
            )
            found = alerts.listing(change.connection, limit=100)
        return next(one.path for one in found if one.message == message)


@contextmanager
def reported(house: House, name: str) -> Iterator[Written]:
    """A machine of half a year, with drills, and alerts. What is of `name` is this one's own."""
    with Records(house) as records:
        identity = records.machine(name)
        records.machine(f"{name}-spare", protect=False)
        item = records.item(identity)
        records.aged(item, 200)
        records.points(item, 160, frozenset({5, 20, 21, 60}))
        records.drill(item, timedelta(days=9), "none", b"", "")
        drill = records.drill(item, timedelta(days=2), "login", PICTURE, f"{HOSTILE}\nweb login: ")
        alert = records.alert(f"a pack of {name} is damaged", part=name)
        records.alert(f"a job of {name} failed", Kind.JOB_FAILURE, name)
        missing = records.plane.env.utc().date() - timedelta(days=20)
        yield Written(identity, f"{identity}/drills/{drill}", alert, f"{missing}")
