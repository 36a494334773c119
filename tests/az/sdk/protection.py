# SPDX-License-Identifier: Apache-2.0
"""Containers and an item by the Azure SDK for Python: what can become of them, and what is asked about them."""

from __future__ import annotations

import time
from typing import Any

from azure.core.exceptions import HttpResponseError
from azure.mgmt.recoveryservicesbackup import models

from tests.az.sdk.connecting import FABRIC, Told, told

__all__ = ["main"]


def machines(given: Told) -> None:
    """Protect a machine, back it up, stop, delete and take it back; the machine and the vault are there."""
    group, vault, machine = given.more["group"], given.more["vault"], given.more["machine"]
    _, backups, watch = given.clients("secret")
    name = machine.rpartition("/")[2]

    backups.protection_containers.refresh(vault, group, FABRIC, filter="backupManagementType eq 'AzureIaasVM'")
    found = backups.backup_protectable_items.list(vault, group, filter="backupManagementType eq 'AzureIaasVM'")
    (protectable,) = [one for one in found if one.properties.friendly_name == name]
    container = protectable.id.split("/protectionContainers/")[1].split("/")[0]
    item = protectable.id.split("/protectableItems/")[1]
    where = (vault, group, FABRIC, container, item)
    policy = backups.protection_policies.get(vault, group, "DefaultPolicy")

    def put(**properties: Any) -> Any:
        body = models.AzureIaaSComputeVMProtectedItem(source_resource_id=machine, **properties)
        return backups.protected_items.begin_create_or_update(
            *where, models.ProtectedItemResource(properties=body)
        ).result()

    def state() -> str:
        # By the name on the wire: this SDK does not find the class of a virtual machine's item.
        return str(backups.protected_items.get(*where).properties["protectionState"])

    put(policy_id=policy.id)
    assert state() == "IRPending", state()
    assert backups.protection_policies.get(vault, group, "DefaultPolicy").properties.protected_items_count == 1
    containers = list(
        backups.backup_protection_containers.list(vault, group, filter="backupManagementType eq 'AzureIaasVM'")
    )
    assert [one.name for one in containers] == [container], containers
    assert backups.protection_containers.get(vault, group, FABRIC, container).name == container
    query = "backupManagementType eq 'AzureIaasVM' and itemType eq 'VM'"
    listed = [one.name for one in backups.backup_protected_items.list(vault, group, filter=query)]
    assert [one.casefold() for one in listed] == [item.casefold()], listed
    asked = models.BackupStatusRequest(resource_type="VM", resource_id=machine)
    assert backups.backup_status.get(given.location, asked).protection_status == "Protected"

    request = models.BackupRequestResource(properties=models.IaasVMBackupRequest())
    headers = backups.backups.trigger(
        *where, request, cls=lambda response, _body, _headers: response.http_response.headers
    )
    operation = headers["Azure-AsyncOperation"].split("?")[0].rpartition("/")[2]
    status = backups.backup_operation_statuses.get(vault, group, operation)
    assert status.status == "Succeeded", status
    job = status.properties.job_id
    assert backups.protected_item_operation_statuses.get(*where, operation).status == "Succeeded"
    backups.protected_item_operation_results.get(*where, operation)
    backups.backup_operation_results.get(vault, group, operation)
    ended = _settled(backups, vault, group, job)
    assert ended.properties.status == "Completed", ended
    assert isinstance(ended.properties, models.AzureIaaSVMJob), ended
    completed = backups.backup_jobs.list(vault, group, filter="operation eq 'Backup' and status eq 'Completed'")
    assert job in [one.name for one in completed]
    try:
        backups.job_cancellations.trigger(vault, group, job)
        raise AssertionError("a job that is over was cancelled")
    except HttpResponseError as error:
        assert error.error.code == "UserErrorJobNotCancellable", error

    (point,) = list(backups.recovery_points.list(*where))
    same = backups.recovery_points.get(*where, point.name)
    assert same.properties.recovery_point_time == point.properties.recovery_point_time, same
    assert state() == "Protected", state()

    put(protection_state="ProtectionStopped", policy_id="")
    assert state() == "ProtectionStopped", state()
    put(policy_id=policy.id)
    assert state() == "Protected", state()
    backups.protected_items.delete(*where)
    assert backups.protected_items.get(*where).properties["isScheduledForDeferredDelete"] is True
    put(protection_state="ProtectionStopped", policy_id="", is_rehydrate=True)
    assert state() == "ProtectionStopped", state()
    watch.check()


def registration(given: Told) -> None:
    """Register the machine that the service runs on, and take it out again."""
    group, vault, name = given.more["group"], given.more["vault"], given.more["container"]
    _, backups, watch = given.clients("static")
    mine = (vault, group, FABRIC, name)
    body = models.MabContainer(friendly_name=name.partition(";")[2], backup_management_type="MAB")

    made = backups.protection_containers.begin_register(*mine, models.ProtectionContainerResource(properties=body))
    assert made.result().properties.registration_status == "Registered", made.result()
    operation = _operation(backups.protection_containers.inquire(*mine, cls=_answer), "Location")
    backups.protection_container_operation_results.get(*mine, operation)
    operation = _operation(backups.protection_containers.refresh(vault, group, FABRIC, cls=_answer), "Location")
    backups.protection_container_refresh_operation_results.get(vault, group, FABRIC, operation)
    listed = list(backups.backup_protection_containers.list(vault, group, filter="backupManagementType eq 'MAB'"))
    assert [one.name for one in listed] == [name], listed
    machines = list(backups.protectable_containers.list(vault, group, FABRIC))
    assert f"VMAppContainer;Compute;{group};app" in [one.name for one in machines], machines  # and those of others
    assert list(backups.deleted_protection_containers.list(group, vault)) == []
    counts = backups.backup_usage_summaries.list(vault, group, filter="type eq 'BackupProtectionContainerCountSummary'")
    assert sum(one.current_value for one in counts) == 1

    backups.protection_containers.unregister(*mine)
    assert list(backups.backup_protection_containers.list(vault, group, filter="backupManagementType eq 'MAB'")) == []
    watch.check()


def _answer(response: Any, _body: Any, _headers: Any) -> Any:
    return response.http_response


def _operation(answer: Any, header: str) -> str:
    """The operation that an answer of 202 names."""
    return str(answer.headers[header]).split("?")[0].rpartition("/")[2]


def _settled(backups: Any, vault: str, group: str, job: str) -> Any:
    """The job, when it is over."""
    end = time.monotonic() + 60
    while True:
        found = backups.job_details.get(vault, group, job)
        if found.properties.status != "InProgress":
            return found
        assert time.monotonic() < end, found
        time.sleep(0.1)


def main(given: Told) -> None:
    """See the module."""
    registration(given)
    machines(given)


if __name__ == "__main__":
    main(told())
