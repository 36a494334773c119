# SPDX-License-Identifier: Apache-2.0
"""A folder of a machine elsewhere by the Azure CLI: what its own commands do, which of them do nothing for such an item
in Azure either, and `az rest` instead of these."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from .elsewhere import Elsewhere, elsewhere
from .running import Az
from .serving import LOCATION, Server

pytestmark = pytest.mark.agents

GROUP, VAULT = "agents", "agents"
IN = f"-g {GROUP} -v {VAULT}"
MAB = "--backup-management-type MAB"
VERSION = "api-version=2024-04-01"
_numbers = count(1)


@pytest.fixture(scope="module")
def vault(az: Az, server: Server) -> str:
    """The id of the vault of this module."""
    az(f"group create -n {GROUP} -l {LOCATION}")
    az(f"backup vault create -g {GROUP} -n {VAULT} -l {LOCATION}")
    return server.vault(GROUP, VAULT)


class Folder:
    """An item of a machine, by the Azure CLI alone. `named`: how its commands name the item."""

    def __init__(self, az: Az, server: Server, machine: Elsewhere, source: Path) -> None:
        self.az, self.server, self.machine, self.source = az, server, machine, source
        self.path = machine.item(source)
        self.name = self.path.rpartition("/")[2]
        self.named = f"{IN} -c '{machine.container}' -i '{self.name}'"

    def ask(self, verb: str, rest: str = "", **properties: Any) -> Any:
        """`az rest`, of the item or of what is beneath it."""
        body = ("--body", json.dumps({"properties": properties})) if properties else ()
        return self.az(f"rest --method {verb} --url '{self.path}{rest}?{VERSION}'", *body)

    def put(self, **properties: Any) -> None:
        """Change it."""
        self.ask("put", "", protectedItemType="MabFileFolderProtectedItem", **properties)

    def protect(self) -> None:
        """Under the policy for files. The Azure CLI has no command for that."""
        self.put(policyId=f"{self.machine.vault}/backupPolicies/FilesPolicy", sourcePath=str(self.source))

    def begin(self, rest: str, **properties: Any) -> str:
        """Ask for a backup or a restore; its job."""
        self.ask("post", rest, **properties)
        (job, *_) = self.az(f"backup job list {IN} {MAB}")
        return str(job["name"])

    def finish(self, job: str) -> dict[str, Any]:
        """Wait for a job; what it is in the end."""
        self.server.settle(job)
        self.az(f"backup job wait {IN} -n {job}")
        properties: dict[str, Any] = self.az(f"backup job show {IN} -n {job}")["properties"]
        return properties

    def show(self) -> dict[str, Any]:
        """What it is."""
        named = f"{IN} -c '{self.machine.container}' -n '{self.name}'"
        properties: dict[str, Any] = self.az(f"backup item show {named}")["properties"]
        return properties


@pytest.fixture
def machine(server: Server, vault: str, tmp_path: Path) -> Iterator[Elsewhere]:
    """One whose agent does not run."""
    with elsewhere(server, GROUP, VAULT, f"db{next(_numbers)}", tmp_path) as made:
        yield made


@pytest.fixture
def folder(az: Az, server: Server, machine: Elsewhere, tmp_path: Path) -> Folder:
    """A protected one."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("content")
    made = Folder(az, server, machine, source)
    made.protect()
    return made


def names(listed: list[dict[str, Any]]) -> list[str]:
    return [one["name"] for one in listed]


def test_a_machine_is_a_container(az: Az, machine: Elsewhere) -> None:
    (container,) = [one for one in az(f"backup container list {IN} {MAB}") if one["name"] == machine.container]

    assert container["id"].casefold() == machine.path.casefold()
    assert container["properties"]["registrationStatus"] == "Registered"
    assert container["properties"]["healthStatus"] == "Healthy"
    assert az(f"backup container show {IN} {MAB} -n {machine.name}") == container
    assert az(f"backup container show {IN} -n '{machine.container}'") == container
    assert "Registered" in az.table(f"backup container show {IN} {MAB} -n {machine.name}")

    az(f"backup container unregister {IN} {MAB} -c {machine.name} --yes")

    assert machine.container not in names(az(f"backup container list {IN} {MAB}"))


def test_from_the_first_backup_to_a_restore(az: Az, machine: Elsewhere, folder: Folder) -> None:
    machine.start()
    source = folder.source
    (item,) = az(f"backup item list {IN} {MAB} -c {machine.name}")
    assert (item["name"], item["properties"]["protectionState"]) == (folder.name, "IRPending")
    assert (item["properties"]["computerName"], item["properties"]["sourcePath"]) == (machine.name, str(source))
    assert az(f"backup item show {IN} {MAB} -c {machine.name} -n {source}") == item
    assert az(f"backup item show {IN} -c '{machine.container}' -n '{item['name']}'") == item
    assert item["name"] in names(az(f"backup policy list-associated-items {IN} -n FilesPolicy"))
    assert str(source) in az.table(f"backup item list {IN} {MAB} -c '{machine.container}'")

    job = folder.begin("/backup", objectType="BackupRequest")
    done = folder.finish(job)

    assert (done["operation"], done["status"], done["mabServerName"]) == ("Backup", "Completed", machine.name)
    assert job in names(az(f"backup job list {IN} --status Completed --operation Backup"))
    assert str(source) in az.table(f"backup job list {IN}")
    assert folder.show()["protectionState"] == "Protected"
    (point,) = folder.ask("get", "/recoveryPoints")["value"]
    shown = az(f"backup recoverypoint show {folder.named} -n {point['name']}")
    assert (shown["id"], shown["properties"]["objectType"]) == (point["id"], "GenericRecoveryPoint")

    target = machine.restored / "again"
    wanted = {"objectType": "FilesRestoreRequest", "recoveryType": "AlternateLocation", "targetPath": str(target)}
    restored = folder.finish(folder.begin(f"/recoveryPoints/{point['name']}/restore", **wanted))

    assert (restored["operation"], restored["status"]) == ("Restore", "Completed")
    assert (target / "file").read_text() == "content"


def test_stopped_deleted_and_taken_back(az: Az, machine: Elsewhere, folder: Folder) -> None:
    machine.start()
    folder.finish(folder.begin("/backup", objectType="BackupRequest"))

    folder.put(protectionState="ProtectionStopped")
    assert folder.show()["protectionState"] == "ProtectionStopped"
    folder.protect()
    assert folder.show()["protectionState"] == "Protected"

    job = az(f"backup protection disable {folder.named} --delete-backup-data true --yes")

    assert (job["properties"]["operation"], job["properties"]["status"]) == ("DeleteBackupData", "Completed")
    assert folder.show()["isScheduledForDeferredDelete"] is True
    assert "soft-deleted" in az.refused(f"backup vault delete -g {GROUP} -n {VAULT} --yes")

    folder.put(protectionState="ProtectionStopped", isRehydrate=True)

    assert folder.show()["isScheduledForDeferredDelete"] is False
    assert len(folder.ask("get", "/recoveryPoints")["value"]) == 1
    folder.protect()
    folder.finish(folder.begin("/backup", objectType="BackupRequest"))
    assert len(folder.ask("get", "/recoveryPoints")["value"]) == 2


def test_jobs_are_stopped(az: Az, machine: Elsewhere, folder: Folder) -> None:
    """One that waits for its agent, and one that the agent has begun."""
    machine.configure('[[before]]\nrun = ["/bin/sleep", "600"]\n')
    waiting = folder.begin("/backup", objectType="BackupRequest")
    assert waiting in names(az(f"backup job list {IN} --status InProgress"))

    az(f"backup job stop {IN} -n {waiting}")

    assert folder.finish(waiting)["status"] == "Cancelled"
    machine.start()
    begun = folder.begin("/backup", objectType="BackupRequest")
    folder.server.until_begun(begun)

    az(f"backup job stop {IN} -n {begun}")

    assert folder.finish(begun)["status"] == "Cancelled"
    assert folder.ask("get", "/recoveryPoints")["value"] == []


def test_a_machine_with_a_deleted_item_stays(az: Az, machine: Elsewhere, folder: Folder) -> None:
    """Its agent goes first; then what it holds has to go."""
    az(f"backup protection disable {folder.named} --delete-backup-data true --yes")
    which = f"{IN} {MAB} -c {machine.name}"

    az(f"backup container unregister {which} --yes")

    shown = az(f"backup container show {IN} {MAB} -n {machine.name}")["properties"]
    assert (shown["registrationStatus"], shown["protectedItemCount"]) == ("NotRegistered", 1)
    assert "it is soft-deleted" in az.refused(f"backup container unregister {which} --yes")
    assert folder.show()["isScheduledForDeferredDelete"] is True


def test_commands_that_do_nothing_for_items_of_machines(az: Az, folder: Folder) -> None:
    """The Azure CLI looks at the item, finds no branch for its kind, and ends well without a word."""
    for command in (
        "protection backup-now -i {}",
        "protection disable -i {} --yes",
        "protection resume -i {} -p FilesPolicy",
        "item set-policy -n {} -p FilesPolicy",
        "recoverypoint list -i {}",
    ):
        ran = az.run(f"backup {command.format(repr(folder.name))} {IN} -c '{folder.machine.container}'")

        assert (ran.code, ran.out) == (0, ""), ran
        assert {request.verb for request in ran.requests} == {"GET"}, ran
    assert folder.show()["protectionState"] == "IRPending"


def test_commands_that_the_azure_cli_refuses_for_items_of_machines(az: Az, folder: Folder) -> None:
    az(f"backup protection disable {folder.named} --delete-backup-data true --yes")
    assert "not supported for this backup management type" in az.refused(f"backup protection undelete {folder.named}")
    friendly = f"{IN} {MAB} -c {folder.machine.name} -i {folder.source}"
    assert "'MAB' is not a valid value" in az.refused(f"backup protection backup-now {friendly}")
    assert "'MAB' is not a valid value" in az.refused(f"backup recoverypoint list {friendly}")
