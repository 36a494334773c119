# SPDX-License-Identifier: Apache-2.0
"""What the service counts, for Prometheus.

Requests and faults are counted as they happen, since the server began. Each process that answers counts in files of its
own, which are mapped into its memory; whichever is asked adds them all up. One that takes another's place goes on with
its files: what a dead one has counted stays counted, and files do not become more. This is the multi-process mode of
Prometheus' client.

What stands in the database (jobs, items, points) is looked up when somebody asks, at most every `_FRESH` seconds by
each process.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import prometheus_client.values
import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from keepstone import __version__, errors
from keepstone.catalogue import items, jobs, outbox, vaults
from keepstone.control import jobs as work
from keepstone.control import points as made
from keepstone.control.plane import Plane
from keepstone.errors import FormatError, ObjectMissing, StorageError, StoreMissing, UnsupportedFormat, WrongKey
from keepstone.jobs import Status
from keepstone.server.processes import Processes, counts

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_FRESH = 10.0
_OF_STORES = (FormatError, ObjectMissing, StorageError, StoreMissing, UnsupportedFormat, WrongKey)
_CODES = {
    kind.code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, _OF_STORES)
}  # of errors that tell of a store


class Metrics:
    """One for each process. `name`: what no other process that runs now is called. `processes`: who runs now."""

    def __init__(self, plane: Plane, name: str, processes: Callable[[], Processes]) -> None:
        folder = str(counts(plane.root))
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder  # the only way to tell it
        # The client's own functions for this have no types.
        mapped = prometheus_client.values.MultiProcessValue(lambda: name)  # type: ignore[no-untyped-call]
        prometheus_client.values.ValueClass = mapped
        self._requests = Counter(
            "keepstone_requests", "Requests that were answered", ["operation", "status"], registry=None
        )
        self._seconds = Histogram(
            "keepstone_request_seconds", "From a request to its answer", ["operation"], buckets=_SECONDS, registry=None
        )
        self._store_errors = Counter(
            "keepstone_store_errors", "Requests that failed by a store", ["code"], registry=None
        )
        self._registry = CollectorRegistry()
        MultiProcessCollector(self._registry, folder)  # type: ignore[no-untyped-call]  # as above
        self._registry.register(_Running(processes))
        self._registry.register(_Catalogue(plane))

    def answered(self, operation: str, status: int, seconds: float, code: str) -> None:
        """A request was answered. `operation`: empty where none was asked for. `code`: of its error, or empty."""
        self._requests.labels(operation, str(status)).inc()
        self._seconds.labels(operation).observe(seconds)
        if code in _CODES:
            self._store_errors.labels(code).inc()

    def text(self) -> bytes:
        """All of it, as `CONTENT_TYPE` says."""
        return generate_latest(self._registry)


class _Running(Collector):
    """The processes of the service: how many, and what each has taken of the machine."""

    def __init__(self, processes: Callable[[], Processes]) -> None:
        self._processes = processes

    def describe(self) -> Iterable[Metric]:
        """Nothing is looked up when this is registered."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Process figures are one for each, by its name: a sum would fall when one dies."""
        known = self._processes()
        build = GaugeMetricFamily("keepstone_build", "Its version", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        for name, about, kind in (
            ("answerer", "Answering processes", known.answerers),
            ("worker", "Workers", known.workers),
        ):
            yield GaugeMetricFamily(f"keepstone_{name}s_wanted", f"{about} that should run", value=kind.wanted)
            yield GaugeMetricFamily(f"keepstone_{name}s_alive", f"{about} that run", value=len(kind.alive))
            yield CounterMetricFamily(
                f"keepstone_{name}_restarts", f"{about} that died and were started anew", value=kind.restarts
            )
        yield from _usage(known.pids)


def _usage(pids: Mapping[str, int]) -> Iterable[Metric]:
    """CPU, memory and files of these processes, as the client counts them of one."""
    families: dict[str, Metric] = {}
    for name, pid in pids.items():
        for found in ProcessCollector(pid=partial(int, pid), registry=None).collect():
            family = families.setdefault(found.name, Metric(found.name, found.documentation, found.type))
            for sample in found.samples:
                family.add_sample(sample.name, {"process": name}, sample.value)
    return families.values()


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
        known = GaugeMetricFamily(
            "keepstone_jobs", "Jobs by what they do and how they are", labels=["operation", "status"]
        )
        for kind, number in work.counts(connection).items():
            known.add_metric(kind, number)
        yield known
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
        there = connection.execute(sa.select(vaults.c.id, *vault).where(living)).all()
        yield GaugeMetricFamily("keepstone_vaults", "Vaults that are not deleted", value=len(there))
        protected = sa.select(*vault, items.c.state, count).join(items, items.c.vault == vaults.c.id).where(living)
        yield _family(
            connection, "items", "Protected items by their state", [*names, "state"],
            protected.group_by(*vault, items.c.state),
        )  # fmt: skip
        sizes = made.sizes(connection)
        number = GaugeMetricFamily("keepstone_points", "Recovery points", labels=names)
        size = GaugeMetricFamily(
            "keepstone_bytes", "Bytes of recovery points: of their sources, new to the store, written for them",
            labels=[*names, "kind"],
        )  # fmt: skip
        for identity, group, name in there:
            if identity in sizes:
                of = sizes[identity]
                number.add_metric([group, name], of.number)
                for kind in ("logical", "fresh", "stored"):
                    size.add_metric([group, name, kind], getattr(of, kind))
        yield from (number, size)


def _family(
    connection: sa.Connection, name: str, about: str, labels: list[str], query: sa.Select[Any]
) -> GaugeMetricFamily:
    """A figure out of rows of labels and a number."""
    family = GaugeMetricFamily(f"keepstone_{name}", about, labels=labels)
    for row in connection.execute(query):
        family.add_metric([str(value or "") for value in row[:-1]], float(row[-1]))
    return family
