# SPDX-License-Identifier: Apache-2.0
"""The doctor's checks: green on a whole installation, and each finds the fault that was planted for it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from keepstone.catalogue import jobs, locks, outbox
from keepstone.control import groups, vaults
from keepstone.control.installation import Installation
from keepstone.control.plane import Plane
from keepstone.env import Env
from keepstone.errors import StoreMissing
from keepstone.identity import Authority, Issued
from keepstone.server import checks, instance
from keepstone.server.checks import Finding, examine

pytestmark = pytest.mark.service


def found(root: Path) -> dict[str, Finding]:
    """What is wrong, but for that no service runs."""
    findings = {finding.check: finding for finding in examine(Env(), root)}
    return {
        name: one for name, one in findings.items() if not one.ok and name not in ("service", "answerers", "workers")
    }


def change(plane: Plane, statement: str) -> None:
    with plane.database.change() as connection:
        connection.exec_driver_sql(statement)


def vault_of(plane: Plane) -> UUID:
    with plane.change() as made:
        groups.put(made, plane.place.subscription, "g", "onprem1", {})
    return vaults.create(plane, plane.place.subscription, "g", "vault", "onprem1", {}, sku={}, tags={}).id


def _exchange(plane: Plane, **more: timedelta) -> None:
    """Another certificate of the same authority, made at another time."""

    class Then(Env):
        def wall_time(self) -> int:
            return super().wall_time() + int(more["by"].total_seconds() * 1e9)

    tls = plane.root / "tls"
    authority = Authority(Then(), Issued((tls / "ca.pem").read_bytes(), (tls / "ca.key").read_bytes()))
    issued = authority.server(["localhost"])
    (tls / "server.pem").write_bytes(issued.certificate)
    (tls / "server.key").write_bytes(issued.key)


def _older(plane: Plane) -> None:
    change(plane, "update alembic_version set version_num = '0000'")


def _damaged(plane: Plane) -> None:
    """Two pages in the middle of the file are something else."""
    with plane.database.change() as connection:
        rows = [
            {"scope": f"{number:064}", "key": "k", "name": "x" * 200, "level": "ReadOnly"} for number in range(2000)
        ]
        connection.execute(locks.insert(), rows)
    plane.database.close()
    path = plane.root / "keepstone.db"
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * 8192)


def _store_gone(plane: Plane) -> None:
    (plane.stores.place(vault_of(plane)) / "keepstone.json").unlink()


def _key_gone(plane: Plane) -> None:
    (plane.root / "keys" / f"{vault_of(plane).hex}.key").unlink()


def _orphan(plane: Plane) -> None:
    place = plane.stores.place(vault_of(plane))
    stray = place.with_name("0" * 32)
    shutil.copytree(place, stray)
    old = plane.env.utc().timestamp() - 3600
    os.utime(stray, (old, old))


def _undelivered(plane: Plane) -> None:
    row = {"vault": vault_of(plane), "sequence": 99, "snapshot": False, "body": b""}
    with plane.database.change() as connection:
        connection.execute(outbox.insert().values(**row))


def _abandoned(plane: Plane, **values: Any) -> None:
    with plane.database.change() as connection:
        job = plane.queue.enqueue(connection, "Backup", {}, vault=plane.new_id())
        connection.execute(jobs.update().where(jobs.c.id == job).values(**values))


Fault = Callable[[Plane], object]
FAULTS: dict[str, tuple[Fault, str, str, str]] = {
    "folder": (lambda plane: plane.root.chmod(0o755), "data folder", "others may read", "chmod -R go="),
    "secret": (lambda plane: (plane.root / "tls" / "ca.key").chmod(0o640), "data folder", "tls/ca.key", "chmod -R go="),
    "older": (_older, "database", "at step 0000", "do as this says"),
    "no certificate": (
        lambda plane: (plane.root / "tls" / "server.pem").unlink(), "certificate", "server.pem", "remove",
    ),
    "other key": (
        lambda plane: shutil.copy(plane.root / "tls" / "ca.key", plane.root / "tls" / "server.key"),
        "certificate", "cannot be used", "remove",
    ),
    "expiring": (lambda plane: _exchange(plane, by=timedelta(days=-380)), "certificate", "ends at", "remove"),
    "not yet": (lambda plane: _exchange(plane, by=timedelta(days=2)), "certificate", "begins at", "clock"),
    "other authority": (
        lambda plane: (plane.root / "tls" / "ca.pem").write_bytes(
            Authority.create(Env(), "Keepstone vault authority").issued.certificate
        ),
        "certificate", "cannot be used", "remove",
    ),
    "clock": (
        lambda plane: _abandoned(plane, created=plane.env.utc() + timedelta(hours=2)), "clock", "knows of", "NTP",
    ),
    "store": (_store_gone, "stores", "vault 'vault'", "copy"),
    "key": (_key_gone, "stores", "vault 'vault'", "kits"),
    "orphan": (_orphan, "orphans", "0" * 32, "vault rebuild"),
    "journal": (_undelivered, "journals", "1 changes", "log"),
    "lease": (
        lambda plane: _abandoned(
            plane, status="InProgress", owner="w", lease_until=plane.env.utc() - timedelta(minutes=3)
        ),
        "jobs", "nobody goes on with Backup", "workers",
    ),
    "waiting": (
        lambda plane: _abandoned(plane, due=plane.env.utc() - timedelta(hours=2)), "jobs", "(Queued since", "workers",
    ),
}  # fmt: skip


def test_a_whole_installation_is_whole(plane: Plane) -> None:
    vault_of(plane)
    _abandoned(plane, status="InProgress", owner="w", lease_until=plane.env.utc())

    assert found(plane.root) == {}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_and_nothing_else(plane: Plane, name: str) -> None:
    plant, check, message, todo = FAULTS[name]
    plant(plane)

    (finding,) = found(plane.root).values()

    assert finding.check == check
    assert message in finding.message
    assert todo in finding.todo


def test_a_damaged_database_is_found(plane: Plane) -> None:
    _damaged(plane)

    assert "the database is damaged: " in found(plane.root)["database"].message


def test_a_database_that_does_not_open_ends_the_look(plane: Plane) -> None:
    plane.database.close()
    (plane.root / "keepstone.db").write_bytes(b"no database at all" * 100)

    last = list(examine(Env(), plane.root))[-1]

    assert (last.check, last.ok) == ("database", False)


def test_little_room_is_found(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_LEAST_BYTES", 1 << 62)

    assert "MiB left" in found(plane.root)["free space"].message


def test_a_store_that_is_being_made_is_no_orphan(plane: Plane) -> None:
    (plane.root / "vaults" / ("0" * 32)).mkdir()

    assert found(plane.root) == {}


def test_a_service_that_does_not_answer_is_found(plane: Plane) -> None:
    hold = instance.take(plane.root)
    try:
        assert "is being started" in _service(plane)
        hold.announce("https://localhost:1", "https://127.0.0.1:1")
        assert "nothing answers at https://127.0.0.1:1" in _service(plane)
    finally:
        hold.release()
    assert "no service runs" in _service(plane)


def _service(plane: Plane) -> str:
    return next(finding.message for finding in examine(Env(), plane.root) if finding.check == "service")


def test_where_there_is_no_service(tmp_path: Path) -> None:
    with pytest.raises(StoreMissing):
        list(examine(Env(), tmp_path))


def test_nothing_is_changed_by_a_look(installation: Installation) -> None:
    def state() -> dict[str, tuple[int, bytes]]:
        files = [path for path in installation.root.rglob("*") if path.is_file()]
        return {str(path): (path.stat().st_mode, path.read_bytes()) for path in files}

    before = state()
    list(examine(Env(), installation.root))

    assert state() == before
