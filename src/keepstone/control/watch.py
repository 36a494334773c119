# SPDX-License-Identifier: Apache-2.0
"""Looks for what is wrong and that nobody reports: items without new points, deletions that cannot be taken back much
longer, journals that lag, certificates that end.

Each look finds all that is wrong of its kind. What is new becomes an alert; an alert whose cause is not found any more
is resolved. Nothing is counted twice by looking twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from cryptography import x509

from keepstone.catalogue import alerts, every, first, items, jobs, outbox, policies, vaults
from keepstone.control import items as control
from keepstone.control import policies as stored
from keepstone.control import targets
from keepstone.control.alerts import fire, resolve
from keepstone.control.plane import Plane
from keepstone.vault import Health, Policy, StoredPolicy, Vault, health, zone
from keepstone.vault.alerts import Condition, Kind, Subject, wanted

__all__ = ["Watch"]

_LAG = timedelta(minutes=5)
_SOON = timedelta(days=2)  # as Azure
_LAST = timedelta(days=90)  # in which everybody has to learn of a new authority
_RENEWED = timedelta(days=25)  # the service renews its certificate 30 days before the end
_CONFIGURED = "ConfigureBackup"


@dataclass(frozen=True, slots=True)
class _Wrong:
    """What to raise. `vault`: None for the service itself."""

    vault: Vault | None
    entity: str
    message: str


class Watch:
    """One for each process: it remembers which entries of journals waited when it looked last."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._waiting: dict[UUID, tuple[int, int]] = {}

    def look(self) -> None:
        """Look at everything."""
        with self._plane.look() as connection:
            living = {vault.id: vault for vault in every(connection, Vault, vaults.c.deleted.is_(None))}
            found = {
                Kind.ITEM_UNHEALTHY: dict(self._unhealthy(connection, living)),
                Kind.PURGE_UPCOMING: dict(self._purges(connection, living)),
                Kind.JOURNAL_LAGGING: dict(self._lagging(connection, living)),
            }
        found[Kind.CERTIFICATE_ENDING] = dict(self._certificates())
        for kind, wrong in found.items():
            self._tell(kind, wrong)

    def _tell(self, kind: Kind, wrong: Mapping[Subject, _Wrong]) -> None:
        env = self._plane.env
        by_key = {subject.key: subject for subject in wrong}
        with self._plane.database.change() as connection:
            mine = alerts.c.kind == kind, alerts.c.condition == Condition.FIRED
            going_on = dict(connection.execute(sa.select(alerts.c.subject, alerts.c.id).where(*mine)).all())
            everybody = targets.everybody(self._plane, connection) if kind is Kind.CERTIFICATE_ENDING else None
            for key in going_on.keys() - by_key.keys():
                resolve(connection, env, alerts.c.id == going_on[key], tell=everybody)
            for key in by_key.keys() - going_on.keys():
                subject = by_key[key]
                one = wrong[subject]
                resource = (
                    one.vault.path if one.vault is not None else f"/subscriptions/{self._plane.place.subscription}"
                )
                fire(connection, env, subject, one.message, resource=resource, entity=one.entity, tell=everybody)

    def _unhealthy(self, connection: sa.Connection, living: Mapping[UUID, Vault]) -> Iterator[tuple[Subject, _Wrong]]:
        """Items whose second run after their newest point has passed. One without a point is judged from its beginning,
        one that was resumed from there."""
        now = self._plane.env.utc()
        known: dict[UUID, Policy] = {}
        query = sa.select(items.c.id, items.c.vault, items.c.friendly, items.c.policy, items.c.created, items.c.newest)
        protected = items.c.state == control.PROTECTED, items.c.deleted.is_(None), items.c.policy.is_not(None)
        for row in connection.execute(query.where(*protected)).all():
            if row.policy not in known:
                kept = first(connection, StoredPolicy, policies.c.id == row.policy)
                assert kept is not None
                known[row.policy] = stored.parsed(kept)
            policy, since = known[row.policy], row.newest or row.created
            if row.vault not in living or not _is_late(policy, since, now):
                continue
            configured = sa.select(sa.func.max(jobs.c.created)).where(
                jobs.c.item == row.id, jobs.c.operation == _CONFIGURED
            )
            since = max(since, connection.execute(configured).scalar() or since)
            if _is_late(policy, since, now):
                subject = Subject(kind=Kind.ITEM_UNHEALTHY, vault=row.vault, item=row.id)
                last = f"since {row.newest:%Y-%m-%d %H:%M} UTC" if row.newest else "yet"
                message = f"'{row.friendly}' has no new recovery point {last}, and two runs of its policy have passed"
                yield subject, _Wrong(living[row.vault], row.friendly, message)

    def _purges(self, connection: sa.Connection, living: Mapping[UUID, Vault]) -> Iterator[tuple[Subject, _Wrong]]:
        """Deleted items that can be taken back for two days at most."""
        soon = items.c.purge <= self._plane.env.utc() + _SOON
        for row in connection.execute(sa.select(items).where(items.c.deleted.is_not(None), soon)).all():
            vault = living.get(row.vault)
            if vault is not None and row.purge - row.deleted > _SOON and wanted(Kind.PURGE_UPCOMING, vault.properties):
                subject = Subject(kind=Kind.PURGE_UPCOMING, vault=row.vault, item=row.id)
                message = (
                    f"the backup data of '{row.friendly}' is removed for good from {row.purge:%Y-%m-%d %H:%M} UTC on"
                )
                yield subject, _Wrong(vault, row.friendly, message)

    def _lagging(self, connection: sa.Connection, living: Mapping[UUID, Vault]) -> Iterator[tuple[Subject, _Wrong]]:
        """Vaults with an entry that waited already some minutes ago."""
        now = self._plane.env.boot_time()
        count, oldest = sa.func.count(), sa.func.min(outbox.c.sequence)
        rows = connection.execute(sa.select(outbox.c.vault, oldest, count).group_by(outbox.c.vault)).all()
        before, self._waiting = self._waiting, {}
        for vault, sequence, number in rows:
            seen, since = before.get(vault, (sequence, now))
            self._waiting[vault] = sequence, since if seen == sequence else now
            if seen == sequence and now - since >= _LAG.total_seconds() * 1e9 and vault in living:
                message = f"{number} changes of vault '{living[vault].name}' are not in its store yet"
                yield (
                    Subject(kind=Kind.JOURNAL_LAGGING, vault=vault),
                    _Wrong(living[vault], living[vault].name, message),
                )

    def _certificates(self) -> Iterator[tuple[Subject, _Wrong]]:
        """Those of the service that everybody comes to."""
        now = self._plane.env.utc()
        for name, left, what in (
            ("ca.pem", _LAST, "the authority that all clients trust"),
            ("server.pem", _RENEWED, "the service's certificate, which should have been renewed,"),
        ):
            path = self._plane.root / "tls" / name
            if not path.exists():
                continue
            end = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
            if end - now < left:
                subject = Subject(kind=Kind.CERTIFICATE_ENDING, part=name)
                yield subject, _Wrong(None, "the service", f"{what} ends at {end:%Y-%m-%d %H:%M} UTC")


def _is_late(policy: Policy, since: datetime, now: datetime) -> bool:
    return health(since, policy.parts[0].schedule, zone(policy.zone), now) is Health.UNHEALTHY
