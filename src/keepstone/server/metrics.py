# SPDX-License-Identifier: Apache-2.0
"""What the service counts, for Prometheus.

Requests and faults are counted as they happen, since the server began. What stands in the database (jobs, items,
points) is looked up when somebody asks, at most every `_FRESH` seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import sqlalchemy as sa
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from keepstone import __version__, errors
from keepstone.catalogue import items, jobs, outbox, points, vaults
from keepstone.control.plane import Plane
from keepstone.errors import FormatError, ObjectMissing, StorageError, StoreMissing, UnsupportedFormat, WrongKey
from keepstone.jobs import Status

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_FRESH = 10.0
_OF_STORES = (FormatError, ObjectMissing, StorageError, StoreMissing, UnsupportedFormat, WrongKey)
_CODES = {
    kind.code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, _OF_STORES)
}  # of errors that tell of a store


class Metrics:
    """`alive`: how many workers run now, of `workers`."""

    def __init__(self, plane: Plane, workers: int = 0, alive: Callable[[], int] = lambda: 0) -> None:
        # These are a second figure for each, which says when it was first counted. The function itself has no types.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = self._registry = CollectorRegistry()
        self._requests = Counter(
            "keepstone_requests", "Requests that were answered", ["operation", "status"], registry=registry
        )
        self._seconds = Histogram(
            "keepstone_request_seconds",
            "From a request to its answer",
            ["operation"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._store_errors = Counter(
            "keepstone_store_errors", "Requests that failed by a store", ["code"], registry=registry
        )
        self._restarts = Counter(
            "keepstone_worker_restarts", "Workers that died and were started anew", registry=registry
        )
        Gauge("keepstone_workers_wanted", "Workers that should run", registry=registry).set(workers)
        Gauge("keepstone_workers_alive", "Workers that run", registry=registry).set_function(alive)
        Gauge("keepstone_build", "Its version", ["version"], registry=registry).labels(__version__).set(1)
        ProcessCollector(registry=registry)
        registry.register(_Catalogue(plane))

    def answered(self, operation: str, status: int, seconds: float, code: str) -> None:
        """A request was answered. `operation`: empty where none was asked for. `code`: of its error, or empty."""
        self._requests.labels(operation, str(status)).inc()
        self._seconds.labels(operation).observe(seconds)
        if code in _CODES:
            self._store_errors.labels(code).inc()

    def restarted(self) -> None:
        """A worker died and was started anew."""
        self._restarts.inc()

    def text(self) -> bytes:
        """All of it, as `CONTENT_TYPE` says."""
        return generate_latest(self._registry)


class _Catalogue(Collector):
    """What the database tells."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._lock = threading.Lock()
        self._known: list[GaugeMetricFamily] = []
        self._until = 0

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing is looked up when this is registered."""
        return []

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Several askers share one look."""
        with self._lock:
            now = self._plane.env.boot_time()
            if now >= self._until:
                with self._plane.look() as connection:
                    self._known = list(self._found(connection))
                self._until = now + int(_FRESH * 1e9)
            return self._known

    def _found(self, connection: sa.Connection) -> Iterator[GaugeMetricFamily]:
        count = sa.func.count()
        kinds = sa.select(jobs.c.operation, jobs.c.status, count).group_by(jobs.c.operation, jobs.c.status)
        yield _family(connection, "jobs", "Jobs by what they do and how they are", ["operation", "status"], kinds)
        code = jobs.c.error["code"].as_string()
        failed = sa.select(jobs.c.operation, code, count).where(jobs.c.status == Status.FAILED)
        yield _family(
            connection, "jobs_failed", "Jobs that failed, by the code of their error", ["operation", "code"],
            failed.group_by(jobs.c.operation, code),
        )  # fmt: skip
        now = self._plane.env.utc()
        ready = jobs.c.status == Status.QUEUED, jobs.c.due <= now
        length, oldest = connection.execute(sa.select(count, sa.func.min(jobs.c.due)).where(*ready)).one()
        yield GaugeMetricFamily("keepstone_queue_length", "Jobs that could run and wait", value=length)
        age = (now - oldest).total_seconds() if oldest is not None else 0.0
        yield GaugeMetricFamily("keepstone_queue_age_seconds", "How long the oldest of them waits", value=age)
        waiting = connection.execute(sa.select(count).select_from(outbox)).scalar_one()
        yield GaugeMetricFamily("keepstone_journal_waiting", "Entries that are not in their stores yet", value=waiting)
        yield from self._protected(connection)

    def _protected(self, connection: sa.Connection) -> Iterator[GaugeMetricFamily]:
        count = sa.func.count()
        vault = vaults.c.group_name, vaults.c.name
        living = vaults.c.deleted.is_(None)
        names = ["group", "vault"]
        number = connection.execute(sa.select(count).select_from(vaults).where(living)).scalar_one()
        yield GaugeMetricFamily("keepstone_vaults", "Vaults that are not deleted", value=number)
        protected = sa.select(*vault, items.c.state, count).join(items, items.c.vault == vaults.c.id).where(living)
        yield _family(
            connection, "items", "Protected items by their state", [*names, "state"],
            protected.group_by(*vault, items.c.state),
        )  # fmt: skip
        sums = [sa.func.coalesce(sa.func.sum(points.c[name]), 0) for name in ("logical", "fresh", "stored")]
        query = sa.select(*vault, count, *sums).join(points, points.c.vault == vaults.c.id)
        rows = connection.execute(query.where(living, points.c.deleted.is_(None)).group_by(*vault)).all()
        made = GaugeMetricFamily("keepstone_points", "Recovery points", labels=names)
        size = GaugeMetricFamily(
            "keepstone_bytes", "Bytes of recovery points: of their sources, new to the store, written for them",
            labels=[*names, "kind"],
        )  # fmt: skip
        for group, name, number, *parts in rows:
            made.add_metric([group, name], number)
            for kind, value in zip(("logical", "fresh", "stored"), parts, strict=True):
                size.add_metric([group, name, kind], float(value))
        yield from (made, size)


def _family(
    connection: sa.Connection, name: str, about: str, labels: list[str], query: sa.Select[Any]
) -> GaugeMetricFamily:
    """A figure out of rows of labels and a number."""
    family = GaugeMetricFamily(f"keepstone_{name}", about, labels=labels)
    for row in connection.execute(query):
        family.add_metric([str(value or "") for value in row[:-1]], float(row[-1]))
    return family
