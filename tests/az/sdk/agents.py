# SPDX-License-Identifier: Apache-2.0
"""A folder of a machine elsewhere by the Azure SDK for Python: protected, backed up, restored, stopped, deleted and
taken back.

The SDK has a class for such an item, its job and its points. It has none for a request to restore files, and no
`sourcePath` of an item: these are keys that a model takes beside its own.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from azure.core.exceptions import HttpResponseError
from azure.mgmt.recoveryservicesbackup import models

from tests.az.sdk.connecting import FABRIC, Told, Watch, told

__all__ = ["main"]


class Folder:
    """An item. `given.more`: group, vault, container, item (the names), source and target (paths)."""

    def __init__(self, given: Told) -> None:
        about = given.more
        self.group, self.vault, self.container = about["group"], about["vault"], about["container"]
        self.source, self.target = about["source"], about["target"]
        self.backups: Any
        self.watch: Watch
        _, self.backups, self.watch = given.clients("secret")
        self.where = (self.vault, self.group, FABRIC, self.container, about["item"])
        self.policy = self.backups.protection_policies.get(self.vault, self.group, "FilesPolicy").id

    def put(self, **properties: Any) -> None:
        """Change it."""
        body = models.MabFileFolderProtectedItem(**properties)
        body["sourcePath"] = self.source
        wanted = models.ProtectedItemResource(properties=body)
        self.backups.protected_items.begin_create_or_update(*self.where, wanted).result()

    def get(self) -> Any:
        """What it is."""
        found = self.backups.protected_items.get(*self.where).properties
        assert isinstance(found, models.MabFileFolderProtectedItem), found
        return found

    def points(self) -> list[Any]:
        """The newest first."""
        return list(self.backups.recovery_points.list(*self.where))

    def back_up(self) -> str:
        """Ask for a backup; its job."""
        request = models.BackupRequestResource(properties=models.BackupRequest(object_type="BackupRequest"))
        return self._job(self.backups.backups.trigger(*self.where, request, cls=_headers))

    def restore(self, point: str) -> str:
        """Ask for a restore; its job."""
        wanted = models.RestoreRequest(object_type="FilesRestoreRequest")
        wanted["recoveryType"], wanted["targetPath"] = "AlternateLocation", self.target
        body = models.RestoreRequestResource(properties=wanted)
        return self._job(
            self.backups.restores.begin_trigger(*self.where, point, body, polling=False, cls=_headers).result()
        )

    def _job(self, headers: Any) -> str:
        operation = headers["Azure-AsyncOperation"].split("?")[0].rpartition("/")[2]
        status = self.backups.backup_operation_statuses.get(self.vault, self.group, operation)
        assert status.status == "Succeeded", status
        return str(status.properties.job_id)

    def ended(self, job: str) -> Any:
        """A job, when it is over."""
        end = time.monotonic() + 60
        while True:
            found = self.backups.job_details.get(self.vault, self.group, job).properties
            assert isinstance(found, models.MabJob), found
            if found.status not in ("InProgress", "Cancelling"):
                return found
            assert time.monotonic() < end, found
            time.sleep(0.1)


def journey(folder: Folder) -> None:
    """From the first protection to a restore."""
    (container,) = [
        one
        for one in folder.backups.backup_protection_containers.list(
            folder.vault, folder.group, filter="backupManagementType eq 'MAB'"
        )
        if one.name == folder.container
    ]
    assert isinstance(container.properties, models.MabContainer), container
    assert container.properties.registration_status == "Registered", container
    folder.put(policy_id=folder.policy)
    assert (folder.get().protection_state, folder.get().friendly_name) == ("IRPending", folder.source)
    query = "backupManagementType eq 'MAB' and itemType eq 'FileFolder'"
    listed = [one.name for one in folder.backups.backup_protected_items.list(folder.vault, folder.group, filter=query)]
    assert folder.where[-1] in listed, listed

    job = folder.ended(folder.back_up())
    assert (job.status, job.operation, job.mab_server_name) == ("Completed", "Backup", folder.get().computer_name), job
    assert folder.get().protection_state == "Protected"
    assert folder.get().extended_info.recovery_point_count == 1
    (point,) = folder.points()
    assert isinstance(point.properties, models.GenericRecoveryPoint), point
    same = folder.backups.recovery_points.get(*folder.where, point.name)
    assert same.properties.recovery_point_time == point.properties.recovery_point_time, same

    job = folder.ended(folder.restore(point.name))
    assert (job.status, job.operation) == ("Completed", "Restore"), job
    assert (Path(folder.target) / "file").read_text() == "content"


def ends(folder: Folder) -> None:
    """Stopped with its data kept, deleted, and taken back."""
    folder.put(protection_state="ProtectionStopped", policy_id="")
    assert folder.get().protection_state == "ProtectionStopped"
    try:
        folder.back_up()
        raise AssertionError("an item was backed up whose protection is stopped")
    except HttpResponseError as error:
        assert "resume it" in str(error), error
    folder.put(policy_id=folder.policy)
    assert folder.get().protection_state == "Protected"

    folder.backups.protected_items.delete(*folder.where)
    assert folder.get().is_scheduled_for_deferred_delete is True
    try:
        folder.backups.protection_containers.unregister(*folder.where[:-1])
        raise AssertionError("a machine with a deleted item was taken out")
    except HttpResponseError as error:
        assert "it is soft-deleted" in str(error), error
    folder.put(protection_state="ProtectionStopped", policy_id="", is_rehydrate=True)
    assert folder.get().is_scheduled_for_deferred_delete is False
    assert len(folder.points()) == 1


def _headers(response: Any, _body: Any, _headers: Any) -> Any:
    return response.http_response.headers


def main(given: Told) -> None:
    """See the module."""
    folder = Folder(given)
    journey(folder)
    ends(folder)
    folder.watch.check()


if __name__ == "__main__":
    main(told())
