# SPDX-License-Identifier: Apache-2.0
"""Looks for what is wrong and that nobody reports: items without new points, deletions that cannot be taken back much
longer, journals that lag, certificates that end.

Each look finds all that is wrong of its kind. What is new becomes an alert; an alert whose cause is not found any more
is resolved. Nothing is counted twice by looking twice, and what people have closed is not raised again while it lasts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
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
from keepstone.files import exists, read_file
from keepstone.vault import Health, Policy, StoredPolicy, Vault, health, zone
from keepstone.vault.alerts import RULES, Condition, Kind, Subject, wanted

__all__ = ["Watch"]

_LAG = timedelta(minutes=5)
_SOON = timedelta(days=2)  # as Azure
_LAST = timedelta(days=90)  # in which everybody has to learn of a new authority
_RENEWED = timedelta(days=25)  # the service renews its certificate 30 days before the end
_CONFIGURED = "ConfigureBackup"
_PORTION = 100
_LOOKED_FOR = [kind for kind, rule in RULES.items() if rule.lasting]


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
            query = sa.select(alerts.c.subject, alerts.c.id).where(alerts.c.condition == Condition.FIRED)
            rows = connection.execute(query.where(alerts.c.kind.in_(_LOOKED_FOR))).all()
            going_on: dict[str, UUID] = {row.subject: row.id for row in rows}
            found = dict(self._unhealthy(connection, living, going_on))
            found |= self._purges(connection, living)
            found |= self._lagging(connection, living)
            found |= self._certificates()
            everybody = targets.everybody(self._plane, connection)
        by_key = {subject.key: subject for subject in found}
        for keys in _portions(going_on.keys() - by_key.keys()):
            with self._plane.database.change() as connection:
                mine = alerts.c.id.in_([going_on[key] for key in keys])
                of_vaults = alerts.c.vault.is_not(None)
                resolve(connection, self._plane.env, mine, of_vaults)
                resolve(connection, self._plane.env, mine, ~of_vaults, tell=everybody)
        for keys in _portions(by_key.keys() - going_on.keys()):
            with self._plane.database.change() as connection:
                for key in keys:
                    self._raise(connection, by_key[key], found[by_key[key]], everybody)

    def _raise(self, connection: sa.Connection, subject: Subject, one: _Wrong, everybody: list[UUID]) -> None:
        place = self._plane.place
        resource = one.vault.path if one.vault is not None else f"/subscriptions/{place.subscription}"
        tell = everybody if one.vault is None else None
        fire(connection, self._plane.env, subject, one.message, resource=resource, entity=one.entity, tell=tell)

    def _unhealthy(
        self, connection: sa.Connection, living: Mapping[UUID, Vault], going_on: Collection[str]
    ) -> Iterator[tuple[Subject, _Wrong]]:
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
            subject = Subject(kind=Kind.ITEM_UNHEALTHY, vault=row.vault, item=row.id)
            if subject.key not in going_on and not _is_late(policy, _configured(connection, row.id, since), now):
                continue
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
            if not exists(self._plane.env.fs, path):
                continue
            end = x509.load_pem_x509_certificate(read_file(self._plane.env.fs, path)).not_valid_after_utc
            if end - now < left:
                subject = Subject(kind=Kind.CERTIFICATE_ENDING, part=name)
                yield subject, _Wrong(None, "the service", f"{what} ends at {end:%Y-%m-%d %H:%M} UTC")


def _is_late(policy: Policy, since: datetime, now: datetime) -> bool:
    return health(since, policy.parts[0].schedule, zone(policy.zone), now) is Health.UNHEALTHY


def _configured(connection: sa.Connection, item: UUID, since: datetime) -> datetime:
    """When somebody said last how the item is protected, where that was later."""
    newest = sa.func.max(jobs.c.created)
    query = sa.select(newest).where(jobs.c.item == item, jobs.c.operation == _CONFIGURED)
    return max(since, connection.execute(query).scalar() or since)


def _portions(keys: Collection[str]) -> Iterator[list[str]]:
    """So many at a time that others can write between two."""
    rest = sorted(keys)
    for at in range(0, len(rest), _PORTION):
        yield rest[at : at + _PORTION]
