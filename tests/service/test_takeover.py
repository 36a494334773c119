# SPDX-License-Identifier: Apache-2.0
"""Workers that die in the middle of a backup: another one goes on, and there is one point, and it is whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from keepstone.catalogue import first, vaults
from keepstone.catalogue import points as point_rows
from keepstone.control import points
from keepstone.control.plane import Plane
from keepstone.control.reconcile import reconcile
from keepstone.control.work import handlers
from keepstone.jobs import JobQueue, Worker
from keepstone.vault import Vault as Record
from keepstone.workloads.files import Selection, backup_files
from keepstone.workloads.progress import Silent
from tests.unit.files.trees import snapshot

from .protecting import Vault
from .test_job_retries import newest
from .worker_process import LEASE

pytestmark = pytest.mark.service


@pytest.fixture
def vault(vault: Vault, plane: Plane) -> Vault:
    vault.worker = Worker(JobQueue(plane.database, plane.env, lease=LEASE), handlers(plane), plane.env, "heir")
    return vault


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    made.mkdir()
    for number in range(40):
        (made / f"file {number}").write_bytes(os.urandom(500_000))
    return made


@contextmanager
def worker(plane: Plane, step: str = "") -> Iterator[subprocess.Popen[str]]:
    """A worker in a process of its own, which does not outlive the block."""
    command = [sys.executable, str(Path(__file__).with_name("worker_process.py")), str(plane.root), step]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def finish(vault: Vault, item: str) -> None:
    """Work until nothing waits, also for the leases of the dead."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        vault.worker.run_one()
        states = {job["properties"]["status"] for job in vault.client.arm("GET", f"{vault.path}/backupJobs")["value"]}
        if "InProgress" not in states:
            return
        time.sleep(0.05)
    raise AssertionError(f"jobs go on: {states}")


def check(vault: Vault, item: str, folder: Path, target: Path) -> None:
    """One point, here and in the store, and it is whole."""
    (point,) = vault.points(item)
    store = vault.plane.stores.open(UUID(vault.id))
    assert [one.id for one in store.points.list(deleted=True)] == [point["properties"]["keepstone"]["point"]]
    job = vault.restore(
        point, objectType="FilesRestoreRequest", recoveryType="AlternateLocation", targetPath=str(target)
    )
    assert job["status"] == "Completed"
    for path in folder.iterdir():
        assert (target / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("step", ["begun", "committed", "recorded"])
def test_a_worker_that_dies_at_a_step(vault: Vault, folder: Path, tmp_path: Path, step: str) -> None:
    item = vault.protect(folder)
    vault.client.arm("POST", f"{item}/backup", {"properties": {}}, status=202)
    with worker(vault.plane, step) as dead:
        assert dead.wait(60) == -signal.SIGKILL
    finish(vault, item)
    check(vault, item, folder, tmp_path / "restored")


@pytest.mark.parametrize("delay", [0.05, 0.15, 0.3])
def test_a_worker_that_is_killed_at_any_moment(vault: Vault, folder: Path, tmp_path: Path, delay: float) -> None:
    item = vault.protect(folder)
    vault.client.arm("POST", f"{item}/backup", {"properties": {}}, status=202)
    for _ in range(2):  # the next one is killed as well
        with worker(vault.plane):
            time.sleep(delay)  # wherever that is: nothing here depends on it
    finish(vault, item)
    check(vault, item, folder, tmp_path / "restored")


def ask(vault: Vault, item: str, target: Path) -> None:
    """For a restore to a folder of the only point, after a backup."""
    vault.back_up(item)
    (point,) = vault.points(item)
    wanted = {
        "objectType": "FilesRestoreRequest",
        "recoveryType": "AlternateLocation",
        "targetPath": str(target),
    }
    vault.client.arm("POST", f"{point['id']}/restore", {"properties": wanted}, status=202)


def damage(path: Path) -> None:
    """What a loss of power can make of a file that was written just before, by name, size and time the same."""
    before = path.stat()
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("step", ["opened", "halfway", "restored"])
def test_a_worker_that_dies_in_a_restore(vault: Vault, folder: Path, tmp_path: Path, step: str) -> None:
    """Nothing may be at its target, but for what the worker before it has left there; and that may be no more what was
    written, where it was not durable yet."""
    item, target = vault.protect(folder), tmp_path / "restored"
    ask(vault, item, target)

    with worker(vault.plane, step) as dead:
        assert dead.wait(60) == -signal.SIGKILL

    left = len(os.listdir(target)) if target.exists() else 0
    assert {"opened": left == 0, "halfway": 0 < left < 40, "restored": left == 40}[step]
    if step == "restored":
        damage(target / "file 7")
    finish(vault, item)
    assert newest(vault, "Restore")["properties"]["status"] == "Completed"
    assert snapshot(target) == snapshot(folder)


def test_what_is_at_a_target_before_a_restore_has_begun_is_somebody_elses(
    vault: Vault, folder: Path, tmp_path: Path
) -> None:
    item, target = vault.protect(folder), tmp_path / "restored"
    ask(vault, item, target)
    with worker(vault.plane, "opened") as dead:
        assert dead.wait(60) == -signal.SIGKILL
    target.mkdir()
    (target / "file 1").write_bytes(b"mine")

    finish(vault, item)

    ended = newest(vault, "Restore")["properties"]
    assert ended["status"] == "Failed"
    assert "is there and not empty" in str(ended["errorDetails"])
    assert [(path.name, path.read_bytes()) for path in target.iterdir()] == [("file 1", b"mine")]


def test_a_worker_that_was_taken_for_dead_makes_no_second_point(vault: Vault, folder: Path, tmp_path: Path) -> None:
    """It finishes its point after the other one: the store has two, and the next comparison removes one."""
    item = vault.protect(folder)
    job = vault.back_up(item)
    assert job["status"] == "Completed"
    plane = vault.plane
    store = plane.stores.open(UUID(vault.id))
    (known,) = store.points.list()
    with store.writer(known.record.item, "files", tags=known.record.tags) as writer:
        backup_files(plane.env, writer, folder, Selection(), Silent())
    assert len(store.points.list()) == 2
    record = _record(vault)
    found = reconcile(plane, record)
    assert len(found.doubled) == 1
    assert (found.adopted, found.vanished, found.strangers) == ([], [], [])
    check(vault, item, folder, tmp_path / "restored")


def test_the_store_is_right_about_points(vault: Vault, folder: Path) -> None:
    item = vault.protect(folder)
    vault.back_up(item)
    (before,) = vault.points(item)
    with vault.plane.database.change() as connection:
        row = connection.execute(point_rows.delete().where(point_rows.c.name == before["name"]).returning(point_rows))
        gone = row.mappings().one()
    found = reconcile(vault.plane, _record(vault))
    assert found.adopted == [gone["commit_id"]]
    (after,) = vault.points(item)
    assert after["name"] == before["name"]
    store = vault.plane.stores.open(UUID(vault.id))
    point = store.points.find(gone["commit_id"])
    store.points.forget(point)
    store.points.purge(replace(point, deleted_until=0), now=True)
    assert reconcile(vault.plane, _record(vault)).vanished == [gone["commit_id"]]
    assert vault.points(item) == []
    assert points.name_of(gone["commit_id"]) == before["name"]


def _record(vault: Vault) -> Record:
    with vault.plane.look() as connection:
        found = first(connection, Record, vaults.c.id == UUID(vault.id))
    assert found is not None
    return found
