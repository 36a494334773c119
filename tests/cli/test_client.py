# SPDX-License-Identifier: Apache-2.0
"""`keepstone` as a client: vaults, items, backups and restores, against a service that really answers."""

from __future__ import annotations

import json
import os
import signal
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from keepstone.cli.client.machine import files_name
from keepstone.cli.console import Console
from keepstone.control import locks, resources
from keepstone.control.sources import item_name
from keepstone.env import FileSystem
from keepstone.errors import JobCancelled, NotEmpty
from tests.cli.answering import Answering
from tests.cli.running import Cli, Ended, noise
from tests.cli.services import Service

pytestmark = pytest.mark.service
_numbers = count(1)


@pytest.fixture
def group(service: Answering, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> str:
    """A group, and a service that commands find by themselves."""
    monkeypatch.setenv("KEEPSTONE_DATA", str(service.root))
    name = f"group{next(_numbers)}"
    cli.run("group", "create", "-n", name)
    return name


@pytest.fixture
def vault(cli: Cli, group: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The one that the commands of this test mean."""
    cli.run("vault", "create", "-g", group, "-n", "v1")
    monkeypatch.setenv("KEEPSTONE_GROUP", group)
    return "v1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    (made / "deep").mkdir(parents=True)
    (made / "a.txt").write_bytes(b"first\n" * 1000)
    (made / "deep" / "b.bin").write_bytes(noise(300_000))
    return made


@pytest.fixture
def item(cli: Cli, vault: str, folder: Path) -> str:
    """The folder as an item with a point."""
    cli.run("protection", "enable", "--path", folder)
    cli.run("protection", "backup-now", "-i", folder)
    return str(folder)


def found(ended: Ended) -> Any:
    """The result as JSON, whatever it is."""
    return json.loads(ended.out.splitlines()[-1])


# Groups and vaults


def test_a_group_comes_and_goes(cli: Cli, group: str) -> None:
    assert group in cli.run("group", "list").out
    cli.run("group", "create", "-n", group, "--tags", "team=web stage=live")
    assert found(cli.run("group", "show", "-n", group, "-o", "json"))["tags"] == {"team": "web", "stage": "live"}
    cli.run("group", "delete", "-n", group)
    assert cli.run("group", "show", "-n", group, "--json", code=3).error == "ResourceGroupNotFound"


def test_a_vault_comes_and_goes(cli: Cli, group: str) -> None:
    made = found(cli.run("vault", "create", "-g", group, "-n", "v1", "--soft-delete-duration", 20, "-o", "json"))
    assert made["properties"]["securitySettings"]["softDeleteSettings"]["softDeleteRetentionPeriodInDays"] == 20
    assert cli.run("vault", "create", "-g", group, "-n", "v1", "--json", code=1).error == "AlreadyExists"
    assert [one["name"] for one in found(cli.run("vault", "list", "-g", group, "--json"))] == ["v1"]
    cli.run("vault", "update", "-g", group, "--immutability-state", "unlocked", "--tags", "a=b")
    shown = found(cli.run("vault", "show", "-g", group, "--json"))
    assert shown["properties"]["securitySettings"]["immutabilitySettings"]["state"] == "Unlocked"
    assert shown["tags"] == {"a": "b"}
    cli.run("vault", "backup-properties", "set", "-g", group, "--soft-delete-duration", "30")
    _, security = found(cli.run("vault", "backup-properties", "show", "-g", group, "--json"))
    assert security["properties"]["softDeleteRetentionPeriodInDays"] == 30
    refused = cli.run("vault", "backup-properties", "set", "-g", group, "--backup-storage-redundancy", "GeoRedundant",
                      "--json", code=2)  # fmt: skip
    assert refused.error == "UserErrorNotSupported"
    assert "the vault v1" in cli.run("group", "delete", "-n", group, "--dry-run").out
    assert cli.run("group", "delete", "-n", group, "--json", code=1).error == NotEmpty.code
    cli.run("vault", "delete", "-g", group, "-n", "v1", "--dry-run")
    cli.run("vault", "delete", "-g", group, "-n", "v1")
    assert cli.run("vault", "show", "-g", group, "-n", "v1", "--json", code=3).error == "ResourceNotFound"


def test_nothing_is_deleted_by_default(cli: Cli, vault: str) -> None:
    """A vault that is to go has to be named, also where it is the only one."""
    assert "--name" in cli.run("vault", "delete", code=2).err
    cli.run("vault", "show", "-n", vault)


def test_which_vault(cli: Cli, vault: str, group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(cli.run("item", "list", "--json")) == []  # the only one of the group
    cli.run("vault", "create", "-n", "v2")
    several = cli.run("item", "list", code=2).err
    assert f"v1 in {group}" in several
    assert f"v2 in {group}" in several
    assert cli.run("vault", "show", "-n", "V2", "-o", "tsv").out.startswith("v2\t")
    monkeypatch.delenv("KEEPSTONE_GROUP")
    monkeypatch.setenv("KEEPSTONE_VAULT", "v2")
    cli.run("item", "list")  # found by its name alone
    assert "no vault 'v3'" in cli.run("item", "list", "-v", "v3", code=3).err


# Items


def test_a_folder_from_its_first_backup_to_its_restore(cli: Cli, vault: str, folder: Path, tmp_path: Path) -> None:
    enabled = found(cli.run("protection", "enable", "--path", "data", "--exclude", "*.tmp", "--json"))
    assert enabled["properties"]["operation"] == "ConfigureBackup"
    assert "IRPending" in cli.run("item", "list").out
    assert found(cli.run("item", "show", "-i", folder, "--json"))["properties"]["exclude"] == ["*.tmp"]
    job = found(cli.run("protection", "backup-now", "-i", folder, "--retain-until", "2199-12-31", "--json"))
    assert job["properties"]["status"] == "Completed"
    (point,) = found(cli.run("recoverypoint", "list", "-i", folder, "--json"))
    assert point["properties"]["recoveryPointProperties"]["expiryTime"].startswith("2199-12-31T23:59:59")
    assert found(cli.run("recoverypoint", "show", "-i", folder, "-n", point["name"][:6], "--json")) == point

    cli.run("restore", "files", "latest", "deep/b.bin", "-i", folder, "--target", "part")
    assert (tmp_path / "part/deep/b.bin").read_bytes() == (folder / "deep/b.bin").read_bytes()
    assert not (tmp_path / "part/a.txt").exists()
    cli.run("restore", "files", point["name"], folder / "a.txt", "-i", folder, "--target", "other")
    assert os.listdir(tmp_path / "other") == ["a.txt"]

    before = (folder / "a.txt").read_bytes()
    (folder / "a.txt").write_bytes(b"damaged")
    (folder / "new.txt").write_bytes(b"new")
    dry = cli.run("restore", "files", "latest", "-i", folder, "--in-place", "--delete", "--dry-run").out
    assert "removed" in dry
    assert (folder / "a.txt").read_bytes() == b"damaged"
    cli.run("restore", "files", "latest", "-i", folder, "--in-place")
    assert (folder / "a.txt").read_bytes() == before
    assert (folder / "new.txt").exists()
    cli.run("restore", "files", "latest", "-i", folder, "--in-place", "--delete", "--yes")
    assert not (folder / "new.txt").exists()


def test_conflicts_of_a_restore(cli: Cli, item: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "a.txt").write_bytes(b"mine")
    failed = cli.run("restore", "files", "latest", "-i", item, "--target", target, "--json", code=1)
    assert "TargetExists" in failed.json["error"]["message"]
    assert failed.json["job"]["properties"]["status"] == "Failed"
    cli.run("restore", "files", "latest", "-i", item, "--target", target, "--conflict", "skip")
    assert (target / "a.txt").read_bytes() == b"mine"
    assert (target / "deep" / "b.bin").exists()
    assert cli.run("restore", "files", "latest", "-i", item, "--target", target, "--delete", code=2)
    assert cli.run("restore", "files", "latest", "-i", item, code=2)
    assert cli.run("restore", "files", "latest", "-i", item, "--target", "x", "--in-place", code=2)


def test_a_disk_of_a_machine(service: Answering, cli: Cli, vault: str, group: str, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(noise(1 << 20) + bytes(3 << 20))
    with service.plane.change() as change:
        disk = {"storageProfile": {"osDisk": {"vhd": {"uri": image.as_uri()}}}}
        resources.put(change, service.plane.place.subscription, group, resources.MACHINE, "Web", "onprem1", disk, {})
    cli.run("protection", "enable-for-vm", "--vm", "web")
    assert "perhaps it is already" in cli.run("protection", "enable-for-vm", "--vm", "web", code=3).err
    cli.run("protection", "backup-now", "-c", "Web", "-i", "web", "--backup-management-type", "AzureIaasVM")
    before = image.read_bytes()
    cli.run("restore", "disk", "latest", "-i", "web", "--target", "new.img")
    assert (tmp_path / "new.img").read_bytes() == before
    image.write_bytes(noise(1 << 20, seed=1) + bytes(3 << 20))
    cli.run("restore", "disk", "latest", "-i", "web", "--in-place", "--yes")
    assert image.read_bytes() == before
    files = "restore", "files", "latest", "-i", "web"
    assert "which files of 'Web'?" in cli.run(*files, "--target", "x", code=2).err
    assert "--guest-target is a folder" in cli.run(*files, "0/a", "--target", "x", "--guest-target", "/b", code=2).err
    assert "--delete removes" in cli.run(*files, "0/a", "--in-place", "--delete", code=2).err
    assert cli.run(*files, "0/a", "--in-place", "--json", code=2).error == "UserErrorNotSupported"
    cli.run(*files, "disk.img", "--target", tmp_path / "whole")
    assert (tmp_path / "whole" / "disk.img").read_bytes() == before


def test_an_item_stops_and_comes_back(cli: Cli, item: str) -> None:
    dry = found(cli.run("protection", "disable", "-i", item, "--delete-backup-data", "--dry-run", "--json"))
    (point,) = found(cli.run("recoverypoint", "list", "-i", item, "--json"))
    assert dry["points"] == 1
    assert dry["bytes"] == point["properties"]["keepstone"]["storedBytes"] > 0
    assert dry["newest"] == point["properties"]["recoveryPointTime"]
    assert "14 days" in dry["undo"]
    assert dry["refused"] == []
    assert "Protected" in cli.run("item", "list").out

    cli.run("protection", "disable", "-i", item)
    assert "ProtectionStopped" in cli.run("item", "list").out
    assert cli.run("protection", "backup-now", "-i", item, "--json", code=1).error == "Conflict"
    cli.run("protection", "resume", "-i", item, "-p", "FilesPolicy")
    cli.run("protection", "disable", "-i", item, "--retain-recovery-points-as-per-policy")
    assert "BackupsSuspended" in cli.run("item", "list").out
    cli.run("protection", "disable", "-i", item, "--delete-backup-data", "true", "--yes")
    assert "SoftDeleted" in cli.run("item", "list").out
    again = found(cli.run("protection", "disable", "-i", item, "--delete-backup-data", "--dry-run", "--json"))
    assert again["refused"] == ["it is soft-deleted already"]
    cli.run("protection", "undelete", "-i", item)
    cli.run("protection", "resume", "-i", item, "-p", "FilesPolicy")
    assert "Protected" in cli.run("item", "list").out
    assert len(found(cli.run("recoverypoint", "list", "-i", item, "--json"))) == 1


def test_what_stands_in_the_way_is_said_before(service: Answering, cli: Cli, item: str, group: str) -> None:
    """A dry run names what the deletion would be refused by, and then it is."""
    cli.run("vault", "update", "-n", "v1", "--immutability-state", "Unlocked")
    dry = found(cli.run("protection", "disable", "-i", item, "--delete-backup-data", "--dry-run", "--json"))
    assert dry["refused"] == ["the vault is immutable, and 1 of its points have not reached their end"]
    cli.run("protection", "disable", "-i", item, "--delete-backup-data", code=6)
    cli.run("vault", "update", "-n", "v1", "--immutability-state", "Disabled")
    with service.plane.change() as change:
        locks.put(change, f"/subscriptions/{service.plane.place.subscription}/resourceGroups/{group}", "keep",
                  "CanNotDelete", None)  # fmt: skip
    dry = found(cli.run("protection", "disable", "-i", item, "--delete-backup-data", "--dry-run", "--json"))
    assert dry["refused"] == ["the lock keep"]
    cli.run("protection", "disable", "-i", item, "--delete-backup-data", code=1)


def test_how_an_item_may_be_named(cli: Cli, vault: str, tmp_path: Path) -> None:
    for name in ("srv", "Srv", "it's"):
        (tmp_path / name).mkdir()
        cli.run("protection", "enable", "--path", name)

    def shown(name: str | Path) -> str:
        path: str = found(cli.run("item", "show", "-i", name, "--json"))["properties"]["sourcePath"]
        return path

    for name in ("srv", "Srv", "it's"):
        path = tmp_path / name
        assert shown(path) == shown(f"{path}/") == shown(name) == shown(item_name(str(path))) == str(path)
    assert "called" in cli.run("item", "show", "-i", str(tmp_path / "SRV"), code=2).err  # two are spelled almost so
    assert cli.run("item", "show", "-i", "nothing", "--json", code=3).error == "ResourceNotFound"
    assert cli.run("item", "show", "-i", "srv", "-c", "elsewhere", code=3)


@pytest.mark.parametrize("path", ["/srv", "/srv/", "/srv//a/../b", "/", "/ü/ñ"])
def test_an_item_of_files_is_called_as_the_service_calls_it(path: str) -> None:
    assert files_name(path) == item_name(os.path.normpath(path))


def test_a_path_that_json_cannot_say(cli: Cli, vault: str, tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    os.mkdir(path)
    refused = cli.run("protection", "enable", "--path", path, code=2)
    assert "not UTF-8" in refused.err


def test_containers(cli: Cli, vault: str, tmp_path: Path) -> None:
    made = found(cli.run("container", "register", "--json"))
    assert made["properties"]["friendlyName"] == os.uname().nodename
    cli.run("container", "show", "-n", os.uname().nodename)
    (tmp_path / "x").mkdir()
    cli.run("protection", "enable", "--path", "x")
    dry = found(cli.run("container", "unregister", "-n", made["name"], "--dry-run", "--json"))
    assert dry["refused"] == [f"the item {tmp_path / 'x'}"]
    assert cli.run("container", "unregister", "-n", made["name"], code=1)
    assert [one["name"] for one in found(cli.run("container", "list", "--json"))] == [made["name"]]


# Jobs


def test_a_backup_with_warnings_ends_with_four(
    cli: Cli, vault: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = FileSystem.open

    def refusing(path: Any, *given: Any, **named: Any) -> int:
        if os.fsencode(path).endswith(b"a.txt"):
            raise PermissionError(13, "Permission denied", path)
        return real(path, *given, **named)

    cli.run("protection", "enable", "--path", folder)
    monkeypatch.setattr(FileSystem, "open", staticmethod(refusing))
    ended = cli.run("protection", "backup-now", "-i", folder, "--json", code=4)
    assert found(ended)["properties"]["status"] == "CompletedWithWarnings"
    assert "a.txt cannot be read (Permission denied)" in ended.err
    job = found(ended)["name"]
    assert cli.run("job", "wait", "-n", job, code=4)
    cli.run("job", "show", "-n", job)


def test_a_failed_job_says_why(cli: Cli, vault: str, folder: Path, tmp_path: Path) -> None:
    cli.run("protection", "enable", "--path", folder)
    folder.rename(tmp_path / "away")
    failed = cli.run("protection", "backup-now", "-i", folder, "--json", code=1)
    assert "SourceMissing" in failed.json["error"]["message"]
    job = failed.json["job"]["name"]
    assert cli.run("job", "wait", "-n", job, code=1)
    assert [one["name"] for one in found(cli.run("job", "list", "--status", "Failed", "--json"))] == [job]
    assert found(cli.run("job", "list", "--operation", "Restore", "--json")) == []
    assert found(cli.run("job", "list", "--end-date", "2001-01-01", "--json")) == []
    assert len(found(cli.run("job", "list", "--top", "1", "--json"))) == 1
    lines = [one["text"] for one in found(cli.run("job", "log", "-n", job, "--json"))]
    assert lines[0].startswith("taken by ")
    assert lines[-1].startswith("ended as Failed: ")
    (tmp_path / "away").rename(folder)
    again = found(cli.run("job", "retry", "-n", job, "--json"))
    assert (again["properties"]["status"], again["name"] != job) == ("Completed", True)
    assert cli.run("job", "retry", "-n", again["name"], "--json", code=2).error == "UserErrorJobNotRetriable"


def test_nobody_has_to_wait(service: Answering, cli: Cli, vault: str, folder: Path) -> None:
    cli.run("protection", "enable", "--path", folder)
    with service.resting():
        job = found(cli.run("protection", "backup-now", "-i", folder, "--no-wait", "--json"))
        assert job["properties"]["status"] == "InProgress"
        again = cli.run("protection", "backup-now", "-i", folder, "--json", code=1)
        assert again.error == "UserErrorBackupOperationInProgress"
        late = cli.run("job", "wait", "-n", job["name"], "--timeout", "0", code=1)
        assert "goes on" in late.err
        cli.run("job", "stop", "-n", job["name"])
        ended = cli.run("job", "wait", "-n", job["name"], "--json", code=1)
        assert ended.error == JobCancelled.code
    assert cli.run("job", "show", "-n", "nothing", "--json", code=3)


def test_waiting_tells_how_far_it_is(cli: Cli, item: str) -> None:
    (job,) = found(cli.run("job", "list", "--operation", "Backup", "--json"))
    ended = cli.run("job", "wait", "-n", job["name"], "--json-progress")
    *events, last = map(json.loads, ended.out.splitlines())
    assert last["name"] == job["name"]
    assert events[-1]["event"] == "progress"
    assert events[-1]["verb"] == "backup"
    assert events[-1]["done_bytes"] == 306_000
    assert events[-1]["seconds"] < 30


def test_a_service_that_is_away_is_waited_for(
    service: Answering, cli: Cli, vault: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a new version: it goes in the middle of the wait, and comes back when somebody misses it."""
    cli.run("protection", "enable", "--path", folder)
    looks, says = count(), Console.say

    def leave(operation: str) -> None:
        if operation == "job_details.get" and next(looks) == 1:
            service.leave()

    def come_back(console: Console, line: str) -> None:
        says(console, line)
        if "waiting for it" in line:
            service.stop()
            service.start()
            service.wake()

    with service.resting():
        job = found(cli.run("protection", "backup-now", "-i", folder, "--no-wait", "--json"))
        monkeypatch.setattr(Console, "say", come_back)
        monkeypatch.setattr(service, "heard", leave)
        ended = cli.run("job", "wait", "-n", job["name"], "--json")
    assert "waiting for it" in ended.err
    assert found(ended)["properties"]["status"] == "Completed"


def test_whoever_stops_to_wait_learns_that_the_job_goes_on(
    service: Answering, cli: Cli, vault: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.run("protection", "enable", "--path", folder)
    looks = count()

    def interrupt(operation: str) -> None:
        if operation == "job_details.get" and next(looks) == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with service.resting():
        monkeypatch.setattr(service, "heard", interrupt)
        ended = cli.run("protection", "backup-now", "-i", folder, code=130)
        (job,) = found(cli.run("job", "list", "--operation", "Backup", "--json"))
        assert f"job {job['name']} goes on" in ended.err
    cli.run("job", "wait", "-n", job["name"])


def test_commands_on_a_service_as_people_start_it(
    cli: Cli, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With processes of its own, from nothing to a restore."""
    real = Service(tmp_path / "service")
    monkeypatch.setenv("KEEPSTONE_DATA", str(real.root))
    assert cli.run("vault", "list", "--json", code=10).error == "StoreMissing"
    with real.running():
        cli.run("group", "create", "-n", "g")
        cli.run("vault", "create", "-g", "g", "-n", "v1")
        cli.run("protection", "enable", "--path", folder)
        cli.run("protection", "backup-now", "-i", folder)
        cli.run("restore", "files", "latest", "-i", folder, "--target", "out")
    assert (tmp_path / "out/deep/b.bin").read_bytes() == (folder / "deep/b.bin").read_bytes()
    assert cli.run("vault", "list", "--json", code=1).error == "ServiceUnavailable"
