# SPDX-License-Identifier: Apache-2.0
"""`/healthz` for everybody, `/metrics` for this machine and for Readers; and what is counted."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from keepstone import __version__
from keepstone.arm.service import Service
from keepstone.catalogue import containers, insert, items, jobs, points
from keepstone.control import groups, people, vaults
from keepstone.control.installation import Installation
from keepstone.control.plane import Plane
from keepstone.identity import Issuer, Principal
from keepstone.server.front import Front
from keepstone.server.metrics import Metrics
from keepstone.server.processes import Kind, Processes, counts
from keepstone.vault import Container, Item, RecoveryPoint

pytestmark = pytest.mark.service
BASE = "https://localhost:8443"
Ask = Callable[..., Any]


@pytest.fixture
def issuer(installation: Installation, plane: Plane) -> Issuer:
    return installation.issuer(plane.place.tenant)


def running() -> Processes:
    """Of all this one process is here."""
    here = os.getpid()
    return Processes(
        server=here, answerers=Kind(1, {"answerer-1": here}, 4), workers=Kind(3, {"worker-1": here, "worker-2": 0}, 5)
    )


@pytest.fixture
def count(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Metrics]:
    """Figures of a process of this name."""
    monkeypatch.setattr("prometheus_client.values.ValueClass", None)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    counts(plane.root).mkdir(parents=True)
    return lambda name: Metrics(plane, name, running)


@pytest.fixture
def app(plane: Plane, issuer: Issuer, count: Callable[[str], Metrics]) -> Front:
    """The whole application."""
    metrics = count("answerer-1")
    service = Service(plane, issuer, metrics.answered)
    return Front(service, plane, issuer, metrics, running)


@pytest.fixture
def ask(app: Front, plane: Plane, issuer: Issuer) -> Ask:
    """Asks it, as a client of this address, with this token or that of somebody who has this role."""

    def ask(
        path: str, verb: str = "GET", *, address: str = "127.0.0.1", token: str = "", role: str = "", scope: str = "/"
    ) -> Any:
        if role:
            with plane.change() as change:
                who = people.add(change, "app", f"app-{plane.new_id()}", "somebody")
                people.assign(change, scope, who.id, role)
            token = issuer.issue(Principal(who.id, who.login), f"{BASE}/", BASE)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return TestClient(app, BASE, client=(address, 50000)).request(verb, path, headers=headers)

    return ask


def figures(ask: Ask) -> dict[str, float]:
    """The figures by their names with labels."""
    lines = ask("/metrics").text.splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def test_a_service_that_is_well_says_so_to_everybody(ask: Ask) -> None:
    said = ask("/healthz", address="192.0.2.1")

    assert (said.status_code, said.headers["cache-control"]) == (200, "no-store")
    assert said.json() == {
        "status": "ok",
        "database": "ok",
        "stores": "ok",
        "answerers": 1,
        "answerers_wanted": 1,
        "workers": 2,
        "workers_wanted": 3,
        "version": __version__,
    }
    assert ask("/healthz", "HEAD").status_code == 200
    assert ask("/healthz", "POST").json()["error"]["code"] == "InvalidResourceType"


def test_what_is_broken_is_named_and_no_more(ask: Ask, plane: Plane, caplog: pytest.LogCaptureFixture) -> None:
    shutil.rmtree(plane.root / "vaults")
    said = ask("/healthz")
    assert (said.status_code, said.json()["database"], said.json()["stores"]) == (503, "ok", "failed")

    with plane.database.change() as connection:
        connection.exec_driver_sql("drop table facts")
    said = ask("/healthz")
    assert (said.status_code, said.json()["database"], said.json()["status"]) == (503, "failed", "failed")
    assert str(plane.root) not in said.text
    assert str(plane.root) in caplog.text


def test_a_folder_that_is_mounted_read_only_is_not_well(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask("/healthz").status_code == 200
    flags = list(os.statvfs(tmp_path))
    flags[8] |= os.ST_RDONLY
    monkeypatch.setattr("os.statvfs", lambda path: os.statvfs_result(flags))

    assert ask("/healthz").status_code == 503


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_figures_are_for_this_machine(ask: Ask, address: str) -> None:
    said = ask("/metrics", address=address)

    assert said.status_code == 200
    assert said.headers["content-type"].startswith("text/plain; version=")


@pytest.mark.parametrize("address", ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "testclient", "10.0.0.1"])
def test_others_need_the_token_of_a_reader(ask: Ask, plane: Plane, address: str) -> None:
    subscription = f"/subscriptions/{plane.place.subscription}"
    with plane.change() as change:
        groups.put(change, plane.place.subscription, "g", "onprem1", {})

    assert ask("/metrics", address=address).status_code == 401
    assert ask("/metrics", address=address, role="Reader", scope=f"{subscription}/resourceGroups/g").status_code == 403
    assert ask("/metrics", address=address, role="Backup Operator").status_code == 403
    assert ask("/metrics", address=address, role="Reader", scope=subscription).status_code == 200
    assert ask("/metrics", address=address, token="eyJx.y.z").status_code == 401


def test_requests_are_counted_by_operation_and_status(ask: Ask, plane: Plane) -> None:
    path = f"/subscriptions/{plane.place.subscription}/resourceGroups/g"
    for _ in range(2):
        ask(f"{path}?api-version=2024-11-01", role="Reader")
    ask(path)
    ask("/nothing/here")
    ask("/healthz")

    found = figures(ask)

    requests = {name: value for name, value in found.items() if name.startswith("keepstone_requests_total")}
    assert requests == {
        'keepstone_requests_total{operation="resource_groups.get",status="404"}': 2.0,
        'keepstone_requests_total{operation="resource_groups.get",status="400"}': 1.0,
        'keepstone_requests_total{operation="",status="404"}': 1.0,
    }
    assert found['keepstone_request_seconds_count{operation="resource_groups.get"}'] == 3
    assert 0 < found['keepstone_request_seconds_sum{operation="resource_groups.get"}'] < 60
    assert found['keepstone_request_seconds_bucket{le="+Inf",operation="resource_groups.get"}'] == 3
    assert (found["keepstone_workers_wanted"], found["keepstone_workers_alive"]) == (3, 2)
    assert found[f'keepstone_build{{version="{__version__}"}}'] == 1
    assert (found["keepstone_answerers_wanted"], found["keepstone_answerers_alive"]) == (1, 1)
    assert (found["keepstone_answerer_restarts_total"], found["keepstone_worker_restarts_total"]) == (4, 5)
    sizes = {name for name in found if name.startswith("process_resident_memory_bytes")}
    assert sizes == {
        f'process_resident_memory_bytes{{process="{name}"}}' for name in ("server", "answerer-1", "worker-1")
    }  # of one that has just died nothing is known
    assert all(found[name] > 0 for name in sizes)
    assert not any("_created" in name for name in found)


def test_faults_of_stores_are_counted(count: Callable[[str], Metrics]) -> None:
    metrics = count("answerer-1")
    for code in ("CorruptObject", "StorageFull", "StorageFull", "ObjectMissing", "ResourceNotFound", ""):
        metrics.answered("x", 500, 0.1, code)

    text = metrics.text().decode()

    assert dict(re.findall(r'keepstone_store_errors_total\{code="(\w+)"\} (\S+)', text)) == {
        "CorruptObject": "1.0",
        "StorageFull": "2.0",
        "ObjectMissing": "1.0",
    }


def test_what_one_process_has_counted_others_tell_and_the_next_one_goes_on(
    count: Callable[[str], Metrics], plane: Plane
) -> None:
    for name, times in (("answerer-1", 2), ("answerer-2", 3), ("answerer-1", 4)):
        metrics = count(name)
        for _ in range(times):
            metrics.answered("x", 200, 0.007, "")

    text = count("answerer-3").text().decode()

    assert 'keepstone_requests_total{operation="x",status="200"} 9.0\n' in text
    assert 'keepstone_request_seconds_bucket{le="0.005",operation="x"} 0.0\n' in text
    assert 'keepstone_request_seconds_bucket{le="0.01",operation="x"} 9.0\n' in text
    assert 'keepstone_request_seconds_count{operation="x"} 9.0\n' in text
    assert len(list(counts(plane.root).iterdir())) == 4


def test_what_the_database_tells(ask: Ask, plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    with plane.change() as change:
        groups.put(change, plane.place.subscription, "G", "onprem1", {})
    vault = vaults.create(plane, plane.place.subscription, "g", "vault", "onprem1", {}, sku={}, tags={})
    now = plane.env.utc()
    _protect(plane, vault.id)
    with plane.database.change() as connection:
        for minutes in (5, 3):
            plane.queue.enqueue(connection, "Backup", {}, vault=vault.id, due=now - timedelta(minutes=minutes))
        plane.queue.enqueue(connection, "Backup", {}, vault=vault.id, due=now + timedelta(hours=1))
        failed = plane.queue.enqueue(connection, "Restore", {}, vault=vault.id)
        over = {"status": "Failed", "error": {"code": "StorageFull", "message": "…"}}
        connection.execute(jobs.update().where(jobs.c.id == failed).values(**over))

    found = figures(ask)

    here = 'group="G"'
    assert found == found | {
        "keepstone_vaults": 1,
        'keepstone_jobs{operation="Backup",status="Queued"}': 3,
        'keepstone_jobs{operation="Restore",status="Failed"}': 1,
        'keepstone_jobs_failed{code="StorageFull",operation="Restore"}': 1,
        "keepstone_queue_length": 2,
        "keepstone_journal_waiting": 0,
        f'keepstone_items{{{here},state="Protected",vault="vault"}}': 1,
        f'keepstone_points{{{here},vault="vault"}}': 2,
        f'keepstone_bytes{{{here},kind="logical",vault="vault"}}': 300,
        f'keepstone_bytes{{{here},kind="fresh",vault="vault"}}': 30,
        f'keepstone_bytes{{{here},kind="stored",vault="vault"}}': 3,
    }
    assert 300 <= found["keepstone_queue_age_seconds"] < 360
    with plane.database.change() as connection:
        connection.execute(sa.delete(points))
    assert figures(ask)[f'keepstone_points{{{here},vault="vault"}}'] == 2  # the look of a moment ago
    now_ns = plane.env.boot_time()
    monkeypatch.setattr(plane.env, "boot_time", lambda: now_ns + 11 * 10**9)
    assert f'keepstone_points{{{here},vault="vault"}}' not in figures(ask)


def _protect(plane: Plane, vault: Any) -> None:
    """An item with two points, and a deleted one."""
    now = plane.env.utc()
    container = Container(
        id=plane.new_id(), vault=vault, name="c", friendly="c", management="MAB", kind="Windows", registered=now,
        properties={},
    )  # fmt: skip
    item = Item(
        id=plane.new_id(), vault=vault, container=container.id, name="i", friendly="i", management="MAB",
        workload="FileFolder", policy=None, state="Protected", source={}, properties={}, created=now,
    )  # fmt: skip
    with plane.database.change() as connection:
        insert(connection, container)
        insert(connection, item)
        for name in ("1", "2", "3"):
            insert(
                connection,
                RecoveryPoint(
                    item=item.id, name=name, vault=vault, commit_id=name, made=now, type="Full",
                    consistency="CrashConsistent", logical=100 * int(name), fresh=10 * int(name), stored=int(name),
                    deleted=now if name == "3" else None,
                ),
            )  # fmt: skip
        assert connection.execute(sa.select(sa.func.count()).select_from(items)).scalar() == 1
        assert connection.execute(sa.select(sa.func.count()).select_from(containers)).scalar() == 1


def test_figures_that_cannot_be_looked_up(ask: Ask, plane: Plane) -> None:
    with plane.database.change() as connection:
        connection.exec_driver_sql("drop table outbox")

    said = ask("/metrics")

    assert (said.status_code, said.json()["error"]["code"]) == (503, "ServiceUnavailable")
