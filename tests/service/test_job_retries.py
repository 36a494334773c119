# SPDX-License-Identifier: Apache-2.0
"""A job once more, and its log, as clients of the API see them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keepstone.arm.jobs import _NEEDED
from keepstone.control.plane import Plane
from keepstone.control.retries import RETRIED
from keepstone.identity import Principal

from .client import Client
from .exercised import exercises
from .protecting import Vault

pytestmark = pytest.mark.service


@pytest.fixture
def vault(client: Client, plane: Plane, request: pytest.FixtureRequest) -> Vault:
    return Vault(client, plane, request.node.name.replace("_", "-")[:40])


def newest(vault: Vault, operation: str) -> dict[str, Any]:
    query = {"$filter": f"operation eq '{operation}'"}
    found = vault.client.arm("GET", f"{vault.path}/backupJobs", params=query)["value"][0]
    return show(vault, found["id"])


def show(vault: Vault, job: str) -> dict[str, Any]:
    found: dict[str, Any] = vault.client.arm("GET", job)
    return found


def log(job: dict[str, Any]) -> list[str]:
    return [line["text"] for line in job["properties"]["keepstone"]["log"]]


def retried(vault: Vault, job: dict[str, Any]) -> dict[str, Any]:
    """It, asked for once more and run."""
    answered = vault.client.ask("POST", f"{job['id']}/retry")
    assert answered.status == 202, answered
    vault.work()
    again = newest(vault, job["properties"]["operation"])
    assert again["id"] != job["id"]
    return again


def failed_backup(vault: Vault, folder: Path) -> tuple[str, dict[str, Any]]:
    """An item whose folder is away, and the job of its backup."""
    folder.mkdir()
    item = vault.protect(folder)
    folder.rmdir()
    vault.client.arm("POST", f"{item}/backup", {"properties": {"objectType": "x"}}, status=202)
    vault.work()
    return item, newest(vault, "Backup")


def test_all_that_can_be_done_again_needs_a_right() -> None:
    assert set(_NEEDED) == set(RETRIED)


@exercises("keepstone.job_retry", "job_details.get")
def test_a_backup_that_failed_is_made_once_more(vault: Vault, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    item, failed = failed_backup(vault, folder)
    assert failed["properties"]["status"] == "Failed"
    assert failed["properties"]["keepstone"]["retriable"] is True
    assert log(failed)[0] == "taken by test"
    assert log(failed)[-1].startswith("ended as Failed: ")
    folder.mkdir()
    (folder / "a").write_text("a")

    again = retried(vault, failed)

    assert again["properties"]["status"] == "Completed"
    assert again["properties"]["keepstone"]["retriable"] is False
    assert [text.partition(" ")[0] for text in log(again)] == ["taken", "reads", "point", "ended"]
    assert len(vault.points(item)) == 1
    refused = vault.client.refused("POST", f"{again['id']}/retry", status=400)
    assert refused.code == "UserErrorJobNotRetriable"


def test_a_restore_goes_where_the_first_one_was_to_go(vault: Vault, tmp_path: Path) -> None:
    folder, target = tmp_path / "data", tmp_path / "again"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_text(name)
    item = vault.protect(folder)
    vault.back_up(item)
    (point,) = vault.points(item)
    target.write_text("a file is in the way")
    about = {"objectType": "FilesRestoreRequest", "recoveryType": "AlternateLocation", "paths": ["a"]}
    job = vault.restore(point, **about, targetPath=str(target))
    assert job["status"] == "Failed"
    failed = newest(vault, "Restore")
    asked = failed["properties"]["keepstone"]["asked"]
    assert asked == {"Recovery Point": point["name"], "To": str(target), "Paths": "1"}
    target.unlink()

    again = retried(vault, failed)

    assert again["properties"]["status"] == "Completed"
    assert [path.name for path in target.iterdir()] == ["a"]
    assert again["properties"]["keepstone"]["asked"] == asked


def test_what_cannot_be_done_any_more_is_refused(vault: Vault, tmp_path: Path) -> None:
    item, failed = failed_backup(vault, tmp_path / "data")
    vault.client.arm("DELETE", item, status=202)
    assert "is not protected" in vault.client.refused("POST", f"{failed['id']}/retry", status=409).message
    missing = f"{vault.path}/backupJobs/00000000-0000-0000-0000-000000000000/retry"
    assert vault.client.refused("POST", missing, status=404).code == "ResourceNotFound"
    configured = newest(vault, "ConfigureBackup")
    assert configured["properties"]["keepstone"]["retriable"] is False


def test_whoever_may_not_do_it_may_not_do_it_again(
    vault: Vault,
    tmp_path: Path,
    client_of: Callable[[Principal | None], Client],
    principal: Callable[..., Principal],
) -> None:
    _, failed = failed_backup(vault, tmp_path / "data")
    reader = client_of(principal("Backup Reader"))
    assert reader.ask("POST", f"{failed['id']}/retry").status == 403
    operator = client_of(principal("Backup Operator"))
    assert operator.ask("POST", f"{failed['id']}/retry").status == 202
