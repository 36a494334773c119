# SPDX-License-Identifier: Apache-2.0
"""A folder of a machine elsewhere by `keepstone` commands, from the first protection until its machine is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.agents.living import Living, Machine
from tests.unit.files.trees import snapshot

pytestmark = pytest.mark.agents


def names(listed: list[dict[str, Any]]) -> list[str]:
    return [one["name"] for one in listed]


def of(living: Living, source: Path) -> dict[str, Any]:
    """What an item is."""
    properties: dict[str, Any] = living("item", "show", "-i", source)["properties"]
    return properties


def test_from_the_first_backup_to_a_restore(living: Living, agent: Machine, source: Path) -> None:
    container = living("container", "show", "-n", agent.name)
    assert (container["name"], container["properties"]["registrationStatus"]) == (f"Windows;{agent.name}", "Registered")
    assert container["name"] in names(living("container", "list", "--backup-management-type", "MAB"))
    living("protection", "enable", "--path", source, "-c", agent.name)
    assert (of(living, source)["protectionState"], of(living, source)["computerName"]) == ("IRPending", agent.name)
    assert names(living("item", "list", "-c", agent.name)) == [living("item", "show", "-i", source)["name"]]

    job = living("protection", "backup-now", "-i", source, "--no-wait")["name"]
    living("job", "wait", "-n", job)

    shown = living("job", "show", "-n", job)["properties"]
    assert (shown["operation"], shown["status"], shown["mabServerName"]) == ("Backup", "Completed", agent.name)
    assert job in names(living("job", "list", "--operation", "Backup", "--status", "Completed"))
    assert of(living, source)["protectionState"] == "Protected"
    (point,) = living("recoverypoint", "list", "-i", source)
    assert living("recoverypoint", "show", "-i", source, "-n", point["name"])["id"] == point["id"]
    living("restore", "files", point["name"], "-i", source, "--target", agent.restored / "again")
    assert snapshot(agent.restored / "again") == snapshot(source)


def test_stopped_deleted_and_taken_back(living: Living, agent: Machine, source: Path) -> None:
    agent.protect(source)
    agent.back_up(source)
    item = ("-i", source)

    living("protection", "disable", *item, "--yes")
    assert of(living, source)["protectionState"] == "ProtectionStopped"
    assert "resume it" in living("protection", "backup-now", *item, code=1)
    living("protection", "resume", *item, "-p", "FilesPolicy")
    assert of(living, source)["protectionState"] == "Protected"
    living("protection", "disable", *item, "--retain-as-per-policy", "--yes")
    assert of(living, source)["protectionState"] == "BackupsSuspended"
    living("protection", "disable", *item, "--delete-backup-data", "true", "--yes")
    assert of(living, source)["isScheduledForDeferredDelete"] is True
    assert "it is soft-deleted" in living("container", "unregister", "-n", agent.name, "--yes", code=1)

    living("protection", "undelete", *item)

    assert of(living, source)["isScheduledForDeferredDelete"] is False
    living("protection", "resume", *item, "-p", "FilesPolicy")
    agent.back_up(source)
    assert len(living.points(source)) == 2


def test_a_job_that_waits_for_its_agent_is_stopped(living: Living, machine: Machine, source: Path) -> None:
    machine.protect(source)
    job = machine.ask(source)

    living("job", "stop", "-n", job)

    assert machine.ended(job)["properties"]["status"] == "Cancelled"
    with machine.running():
        machine.back_up(source)
    assert len(living.points(source)) == 1


def test_a_machine_without_items_goes(living: Living, agent: Machine) -> None:
    """And its agent finds no way in any more."""
    living("container", "unregister", "-n", agent.name, "--yes")

    assert f"Windows;{agent.name}" not in names(living("container", "list"))
    assert agent.process is not None
    assert agent.process.wait(120) == 5  # its question may be open for 50 seconds
    agent.process = None
    assert "this machine is not registered here" in agent.said()
