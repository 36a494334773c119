# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with a service, and what to do about it: one check for one thing that people look after.

A check only looks. Each finds all that is wrong with its thing, or says how well it is; what it stumbles over itself is
a finding too.
"""

from __future__ import annotations

import os
import ssl
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import msgspec
import sqlalchemy as sa
from cryptography import x509

from keepstone.catalogue import Database, every, jobs, operations, outbox, vaults
from keepstone.catalogue.migrate import version
from keepstone.control.installation import Installation
from keepstone.control.plane import Plane
from keepstone.env import Env
from keepstone.errors import KeepstoneError
from keepstone.jobs import LEASE, Status
from keepstone.server import instance, probe
from keepstone.server.choices import installed
from keepstone.vault import Vault

__all__ = ["Finding", "examine"]

_FOLDERS = ("", "tls", "keys", "kits", "vaults", "cache", "run", "log")
_SECRET = ("", "tls", "keys", "kits", "run", "log")  # folders whose files nobody else may read
_LEAST_BYTES = 1 << 30
_LEAST_SHARE = 0.02
_RENEWED = timedelta(days=25)  # the server renews 30 days before the end
_LAST = timedelta(days=90)  # in which everybody has to learn of a new authority
_AHEAD = timedelta(minutes=1)  # by which clocks may differ
_YOUNG = timedelta(minutes=10)  # a store of this age may be of a vault that is being made
_LONG = timedelta(hours=1)
_SHOWN = 5


class Finding(msgspec.Struct, frozen=True):
    """`check`: what was looked at. `todo`: what to do; empty where all is well."""

    check: str
    ok: bool
    message: str
    todo: str = ""


class _Wrong(Exception):
    """What a check found wrong."""

    def __init__(self, message: str, todo: str) -> None:
        super().__init__(message)
        self.todo = todo


@dataclass(frozen=True, slots=True)
class _Patient:
    """What is looked at."""

    env: Env
    root: Path
    installation: Installation
    plane: Plane
    running: instance.Running | None


def examine(env: Env, root: Path) -> Iterator[Finding]:
    """Look at everything. `StoreMissing` where there is no service."""
    installation = installed(env, root)
    yield _finding("data folder", lambda: _modes(root))
    yield _finding("free space", lambda: _space(root))
    try:
        plane = installation.plane()
    except (KeepstoneError, sa.exc.SQLAlchemyError) as error:
        yield Finding("database", False, _sentence(error), "bring it back, or do as this says; then look again")
        return
    try:
        patient = _Patient(env, root, installation, plane, instance.running(root))
        for name, check in _CHECKS.items():
            yield _finding(name, partial(check, patient))
    finally:
        plane.database.close()


def _finding(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, check())
    except _Wrong as wrong:
        return Finding(name, False, str(wrong), wrong.todo)
    except (KeepstoneError, sa.exc.SQLAlchemyError, OSError) as error:
        return Finding(name, False, f"this could not be looked at: {_sentence(error)}", "mend that first")


def _sentence(error: Exception) -> str:
    """Without the statement of SQL that it happened in."""
    return str(error.orig if isinstance(error, sa.exc.DBAPIError) and error.orig is not None else error)


def _modes(root: Path) -> str:
    wrong = []
    for name in _FOLDERS:
        folder = root / name
        if folder.is_dir() and folder.stat().st_mode & 0o077:
            wrong.append(folder)
    for name in _SECRET:
        folder = root / name
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode) and mode & 0o077:
                wrong.append(path)
    if wrong:
        raise _Wrong(
            f"others may read {_some([str(path) for path in wrong])}",
            f"chmod -R go= {root}; and where others have had access, think of what they may have read",
        )
    owner = root.stat().st_uid
    if owner != os.geteuid() and os.geteuid() != 0:
        raise _Wrong(f"{root} belongs to user {owner}, and not to this one", "run Keepstone as its owner")
    return f"{root} is for its owner alone"


def _space(root: Path) -> str:
    for place in dict.fromkeys((root, (root / "vaults").resolve())):
        found = os.statvfs(place)
        free, share = found.f_bavail * found.f_frsize, found.f_bavail / max(1, found.f_blocks)
        if free < _LEAST_BYTES or share < _LEAST_SHARE:
            raise _Wrong(
                f"{place} has {free >> 20:,} MiB left ({share:.1%})",
                "make room, or delete recovery points; backups fail when it is full, restores do not",
            )
        if found.f_files and found.f_favail < 10_000:
            raise _Wrong(f"{place} has room for {found.f_favail:,} more files", "remove files that nobody needs")
    return f"{free >> 30:,} GiB are free ({share:.0%})"


def _database(patient: _Patient) -> str:
    database = patient.plane.database
    current = version(database)  # the newest: otherwise it would not have opened
    if database.is_sqlite:
        _intact(database)
        return f"it is intact, and at the newest step ({current})"
    return f"it answers, and is at the newest step ({current})"


def _intact(database: Database) -> None:
    try:
        with database.look() as connection:
            found = "; ".join(map(str, connection.exec_driver_sql("pragma quick_check(5)").scalars()))
    except sa.exc.DatabaseError as error:
        found = _sentence(error)
    if found != "ok":
        raise _Wrong(
            f"the database is damaged: {found}",
            "stop the service and put back a copy of keepstone.db from before; the vaults' stores are whole without it",
        )


def _certificate(patient: _Patient) -> str:
    tls = patient.root / "tls"
    again = f"remove {tls / 'server.pem'} and {tls / 'server.key'}, then `keepstone down` and `keepstone up`"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls / "server.pem", tls / "server.key")
        certificate = x509.load_pem_x509_certificate((tls / "server.pem").read_bytes())
        authority = x509.load_pem_x509_certificate((tls / "ca.pem").read_bytes())
        certificate.verify_directly_issued_by(authority)
    except FileNotFoundError as error:
        raise _Wrong(f"{error.filename or tls / 'server.pem'} is not there", again) from error
    except Exception as error:
        raise _Wrong(f"the certificate in {tls} cannot be used: {error or type(error).__name__}", again) from error
    now = patient.env.utc()
    if not certificate.not_valid_before_utc <= now:
        raise _Wrong(f"the certificate begins at {certificate.not_valid_before_utc}", "set the clock of this machine")
    if authority.not_valid_after_utc - now < _LAST:
        raise _Wrong(
            f"the authority of this service ends at {authority.not_valid_after_utc}",
            f"remove {tls} and start the service again; all clients have to trust the new ca.pem then",
        )
    left = certificate.not_valid_after_utc - now
    if left < _RENEWED:
        raise _Wrong(f"the certificate ends at {certificate.not_valid_after_utc}", again)
    return f"it is good for {left.days} days, and renewed by itself"


def _clock(patient: _Patient) -> str:
    with patient.plane.look() as connection:
        seen = [
            connection.execute(sa.select(sa.func.max(column))).scalar()
            for column in (jobs.c.created, operations.c.started, vaults.c.changed)
        ]
        there = None
        if not patient.plane.database.is_sqlite:
            there = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
    now = patient.env.utc()
    newest_seen = max((moment for moment in seen if moment is not None), default=now)
    if newest_seen - now > _AHEAD:
        raise _Wrong(
            f"it is {now:%Y-%m-%d %H:%M:%S} UTC here, and the database knows of {newest_seen:%Y-%m-%d %H:%M:%S}",
            "set the clock of this machine (NTP); schedules and retention go by it",
        )
    if there is not None and abs(there - now) > _AHEAD:
        raise _Wrong(
            f"it is {now:%H:%M:%S} here and {there:%H:%M:%S} where the database runs",
            "set the clocks of both machines (NTP)",
        )
    return f"it is {now:%Y-%m-%d %H:%M:%S} UTC, after all that the database knows of"


def _stores(patient: _Patient) -> str:
    with patient.plane.look() as connection:
        known = every(connection, Vault, order=vaults.c.key)
    wrong = []
    for vault in known:
        try:
            patient.plane.stores.open(vault.id)
        except (KeepstoneError, OSError) as error:
            wrong.append(f"the store of vault '{vault.name}' ({vault.id.hex}) does not open: {error}")
    if wrong:
        raise _Wrong(
            _some(wrong),
            "put the named files back from a copy; `keepstone store verify --store DIR --kit KIT` looks closer, and "
            f"the kits lie in {patient.root / 'kits'}",
        )
    return f"those of all {len(known)} vaults open" if known else "there are no vaults yet"


def _orphans(patient: _Patient) -> str:
    with patient.plane.look() as connection:
        known = {identity.hex for identity in connection.execute(sa.select(vaults.c.id)).scalars()}
    now = patient.env.utc().timestamp()
    folder = patient.root / "vaults"
    strays = [
        str(path)
        for path in sorted(folder.iterdir())
        if path.name not in known and now - path.stat().st_mtime > _YOUNG.total_seconds()
    ]
    if strays:
        raise _Wrong(
            f"the database knows no vault of {_some(strays)}",
            "where it is what a deletion left, remove it; where the database was put back from an older copy, "
            "`keepstone vault rebuild --from STORE --kit KIT` brings its vault back",
        )
    return "every store belongs to a vault"


def _journals(patient: _Patient) -> str:
    """Entries are there for an instant by right: those that still are when one looks again are not."""
    waiting: set[tuple[object, ...]] | None = None
    for _ in range(5):
        with patient.plane.look() as connection:
            rows = connection.execute(sa.select(outbox.c.vault, outbox.c.sequence)).all()
        found = {tuple(row) for row in rows}
        waiting = found if waiting is None else waiting & found
        if not waiting:
            return "all changes of vaults are in their stores"
        patient.env.sleep(0.2)
    assert waiting is not None
    names = sorted({str(vault) for vault, _ in waiting})
    raise _Wrong(
        f"{len(waiting)} changes are not in the stores of {_some(names)} yet",
        "a running service tries every minute, and its log says why it fails",
    )


def _answers(patient: _Patient) -> str:
    if patient.running is None:
        raise _Wrong("no service runs in this data folder", f"`keepstone up --data {patient.root} --detach` starts it")
    if not patient.running.probe:
        raise _Wrong("the service is being started", "look again in a moment")
    found = probe.health(patient.running.probe, patient.installation.ca)
    who = f"process {patient.running.pid}"
    if found is None:
        raise _Wrong(f"{who} runs, and nothing answers at {patient.running.probe}", "see its log; start it again")
    if not found.well:
        said = found.error or ", ".join(f"{part}: {how}" for part, how in found.said.items())
        raise _Wrong(f"{who} answers at {patient.running.probe}, and is not well: {said}", "see its log")
    return f"{who} answers at {patient.running.url}"


def _alive(kind: str, patient: _Patient) -> str:
    found = probe.health(patient.running.probe, patient.installation.ca) if patient.running is not None else None
    if found is None or not found.said:
        raise _Wrong(f"no server runs that would have {kind}", "see above")
    alive, wanted = found.said.get(kind), found.said.get(f"{kind}_wanted")
    if alive != wanted:
        raise _Wrong(
            f"{alive} of {wanted} {kind} run", "they are started anew by themselves; the log says why they end"
        )
    return f"{alive} of {wanted} run"


def _stuck(patient: _Patient) -> str:
    now = patient.env.utc()
    held = jobs.c.status.in_((Status.RUNNING, Status.CANCELLING))
    late = sa.or_(
        sa.and_(held, jobs.c.lease_until < now - 4 * LEASE),
        sa.and_(jobs.c.status == Status.QUEUED, jobs.c.due < now - _LONG),
    )
    columns = jobs.c.id, jobs.c.operation, jobs.c.status, jobs.c.due
    with patient.plane.look() as connection:
        rows = connection.execute(sa.select(*columns).where(late).order_by(jobs.c.due)).all()
        busy = connection.execute(sa.select(sa.func.count()).where(held)).scalar_one()
    if rows:
        names = [f"{row.operation} {row.id} ({row.status} since {row.due:%Y-%m-%d %H:%M})" for row in rows]
        raise _Wrong(
            f"nobody goes on with {_some(names)}",
            "see whether workers run; where all of them have long jobs in hand, start the service with more --workers",
        )
    return f"{busy} jobs are in hand, and none is left behind"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return "; ".join(names[:_SHOWN]) + more


_CHECKS: dict[str, Callable[[_Patient], str]] = {
    "database": _database,
    "certificate": _certificate,
    "clock": _clock,
    "stores": _stores,
    "orphans": _orphans,
    "journals": _journals,
    "service": _answers,
    "answerers": partial(_alive, "answerers"),
    "workers": partial(_alive, "workers"),
    "jobs": _stuck,
}
