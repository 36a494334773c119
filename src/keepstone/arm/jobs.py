# SPDX-License-Identifier: Apache-2.0
"""Jobs. Source: backup API 2024-04-01, JobDetails, BackupJobs, JobCancellations."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from keepstone.arm.answers import duration, moment, paged, skip_token
from keepstone.arm.filters import filter_of
from keepstone.arm.filters import moment as moment_of
from keepstone.arm.lro import taken_on
from keepstone.arm.table import VAULT, Answer, Call, Table
from keepstone.arm.vaults import find
from keepstone.control import jobs, operations
from keepstone.control.drills import DRILL
from keepstone.control.hypervisors import DISCOVER
from keepstone.control.jobs import Job
from keepstone.control.people import authorize
from keepstone.control.retries import is_retried
from keepstone.control.retries import retry as again
from keepstone.control.work.footprint import COUNT
from keepstone.control.work.restore import INTO_GUEST, RESTORE
from keepstone.errors import InvalidFilter, InvalidRequest
from keepstone.jobs import BACKUP, Status
from keepstone.vault import Vault, folded

__all__ = ["document", "table"]

table = Table()
_ACTION = "Microsoft.RecoveryServices/Vaults/backupJobs"
_KEYS = ("status", "operation", "startTime", "endTime", "backupManagementType", "jobId")
_PAGE = 200
_KINDS = {"AzureIaasVM": "AzureIaaSVMJob", "MAB": "MabJob", "AzureWorkload": "AzureWorkloadJob"}
_OPEN = (Status.QUEUED, Status.RUNNING)
_VAULTS = "Microsoft.RecoveryServices/Vaults"
_ITEMS = f"{_VAULTS}/backupFabrics/protectionContainers/protectedItems"
# What somebody has to be allowed who wants such a job once more.
_NEEDED = {
    BACKUP: f"{_ITEMS}/backup/action",
    RESTORE: f"{_ITEMS}/recoveryPoints/restore/action",
    DRILL: f"{_ITEMS}/recoveryPoints/restore/action",
    DISCOVER: f"{_VAULTS}/backupFabrics/refreshContainers/action",
    COUNT: f"{_VAULTS}/usages/read",
}
# Azure's filters name them so.
_FILTERED = {folded(str(status)): [status] for status in Status} | {"inprogress": list(_OPEN)}


@table("GET", f"{VAULT}/backupJobs", "backup_jobs.list", action=f"{_ACTION}/read", az=("backup job list",))
def listing(call: Call) -> Answer:
    """The newest first, page by page."""
    wanted = filter_of(call, _KEYS)
    statuses = None
    if "status" in wanted:
        statuses = _FILTERED.get(folded(wanted["status"]))
        if statuses is None:
            raise InvalidFilter(f"$filter has the status {wanted['status']!r}; choose one of {', '.join(Status)}")
    with call.plane.look() as connection:
        vault = find(call, connection)
        if "jobId" in wanted:
            found = [jobs.find(connection, vault, wanted["jobId"])]
        else:
            found = jobs.listing(
                connection,
                vault,
                statuses=statuses,
                operation=wanted.get("operation"),
                begin=moment_of(wanted["startTime"], "startTime") if "startTime" in wanted else None,
                end=moment_of(wanted["endTime"], "endTime") if "endTime" in wanted else None,
                management=wanted.get("backupManagementType"),
                limit=_PAGE + 1,
                before=_before(skip_token(call)),
            )
    now = call.plane.env.utc()
    return paged(
        call, found, _PAGE, lambda job: f"{job.created.isoformat()} {job.id}", lambda job: document(vault, job, now)
    )


@table("GET", f"{VAULT}/backupJobs/{{job}}", "job_details.get", action=f"{_ACTION}/read",
       az=("backup job show", "backup job wait"))  # fmt: skip
def get(call: Call) -> Answer:
    """With its tasks and how far it is."""
    with call.plane.look() as connection:
        vault = find(call, connection)
        job = jobs.find(connection, vault, call.names["job"])
    found = document(vault, job, call.plane.env.utc())
    log = [{"time": moment, "text": text} for moment, text in job.log or ()]
    found["properties"]["keepstone"] = {"asked": _asked(job), "log": log, "retriable": is_retried(job)}
    return Answer(body=found)


@table("POST", f"{VAULT}/backupJobs/{{job}}/cancel", "job_cancellations.trigger", action=f"{_ACTION}/cancel/action",
       az=("backup job stop",))  # fmt: skip
def cancel(call: Call) -> Answer:
    """`InvalidRequest` for one that is over."""
    with call.plane.change() as change:
        vault = find(call, change.connection)
        job = jobs.find(change.connection, vault, call.names["job"])
        if job.status not in (*_OPEN, Status.CANCELLING):
            raise InvalidRequest(
                f"job {job.id} is {job.status}; only one that waits or goes on can be cancelled",
                code="UserErrorJobNotCancellable",
            )
        call.plane.queue.cancel(change.connection, job.id)
        operation = operations.record(change, vault.id, job=job.id)
    return taken_on(call, operation, f"{vault.path}/backupJobs/{job.id}")


@table("POST", f"{VAULT}/backupJobs/{{job}}/retry", "keepstone.job_retry", action=f"{_ACTION}/retry/action")
def retry(call: Call) -> Answer:
    """A new job does once more what one was asked for that failed, was cancelled or has warnings. Whoever asks has to
    be allowed what that job does, too. `InvalidRequest` for any other job."""
    assert call.who is not None
    with call.plane.change() as change:
        vault = find(call, change.connection)
        job = jobs.find(change.connection, vault, call.names["job"])
        if is_retried(job):
            authorize(call.held, call.who, _NEEDED[job.operation], vault.path)
        made = again(change, vault, job, call.correlation)
        operation = operations.record(change, vault.id, job=made)
    return taken_on(call, operation, f"{vault.path}/backupJobs/{made}")


def document(vault: Vault, job: Job, now: datetime) -> dict[str, Any]:
    """A job as clients see it."""
    arguments = job.arguments
    management = arguments.get("management", "DefaultBackup")
    # Of the vault's own jobs, too: `az backup job show` looks for the tasks of every job, and a VaultJob has none.
    kind = _KINDS.get(management, "MabJob")
    shown = Status.RUNNING if job.status in _OPEN else job.status
    begun = job.started or job.created
    took = (job.ended or now) - begun
    is_open = shown in (Status.RUNNING, Status.CANCELLING)
    errors = [] if job.error is None else [_error(kind, job.error)]
    properties: dict[str, Any] = {
        "jobType": kind,
        "entityFriendlyName": arguments.get("entity", vault.name),
        "backupManagementType": management,
        "operation": job.operation,
        "status": str(shown),
        "startTime": moment(begun),
        "endTime": moment(job.ended),
        "activityId": job.activity or str(job.id),
        "duration": duration(took),
        "actionsInfo": ["Cancellable"] if shown is Status.RUNNING else [],
        "errorDetails": errors or None,
    }
    bag = {key: str(value) for key, value in (arguments.get("properties") or {}).items()} | _progress(job)
    task = {
        "taskId": job.operation,
        "startTime": moment(begun),
        "endTime": moment(job.ended),
        "duration": duration(took),
        "status": str(shown),
    }
    properties["extendedInfo"] = {
        "tasksList": [task],
        "propertyBag": bag,
        "dynamicErrorMessage": job.error["message"] if job.error else None,
    }
    if kind == "AzureIaaSVMJob":
        bag["VM Name"] = arguments.get("machine", "")
        task["instanceId"] = None
        properties |= {
            "virtualMachineVersion": "Compute",
            "containerName": arguments.get("container"),
            "isUserTriggered": bool(arguments.get("user")),
        }
        properties["extendedInfo"]["progressPercentage"] = _percent(job) if is_open else 100.0
    elif kind == "MabJob":
        properties |= {
            "mabServerName": arguments.get("machine"),
            "mabServerType": "Windows",
            "workloadType": arguments.get("workload"),
        }
    return {
        "id": f"{vault.path}/backupJobs/{job.id}",
        "name": str(job.id),
        "type": "Microsoft.RecoveryServices/vaults/backupJobs",
        "properties": properties,
    }


def _asked(job: Job) -> dict[str, str]:
    """What it was asked for, by what people call it."""
    given = job.arguments
    paths, disks = given.get("paths") or (), given.get("disks") or ()
    restores = job.operation == RESTORE
    found = {
        "Recovery Point": given.get("point"),
        "To": given.get("target") or (_place(given) if restores else None),
        "On": given.get("to"),
        "Paths": len(paths) if restores and paths else None,
        "Disks": ", ".join(map(str, disks)) or None,
        "What Is There": given.get("conflict"),
        "Deletes What The Point Has Not": "yes" if given.get("delete") else None,
        "Format": given.get("format"),
        "Kept Until": given.get("until"),
    }
    return {label: str(value) for label, value in found.items() if value is not None}


def _place(given: dict[str, Any]) -> str:
    """Where a restore without a target goes to."""
    if given.get("mode") != INTO_GUEST:
        return "where it came from"
    return f"the guest that runs, {given.get('guest') or 'where it came from'}"


def _error(kind: str, error: dict[str, Any]) -> dict[str, Any]:
    """What went wrong; the message says what to do next."""
    shared: dict[str, Any] = {"errorString": f"{error['code']}: {error['message']}", "recommendations": []}
    if kind == "AzureIaaSVMJob":
        return {"errorCode": 0, "errorTitle": error["code"], **shared}
    return shared if kind == "MabJob" else {"errorCode": 0, **shared}


def _progress(job: Job) -> dict[str, str]:
    """For people: how far it is, and what came of it."""
    progress = job.progress or {}
    bag = {}
    if "done" in progress:
        bag["Bytes Done"], bag["Bytes Expected"] = str(progress["done"]), str(progress.get("expected", 0))
    result = progress.get("result") or {}
    names = {
        "fresh": "New Bytes",
        "files": "Files",
        "point": "Recovery Point",
        "target": "Target",
        "freed": "Bytes Freed",
        "near": "Bytes From Snapshot",
    }
    for key, title in names.items():
        if result.get(key) is not None:
            bag[title] = str(result[key])
    for number, warning in enumerate(result.get("warnings") or (), 1):
        bag[f"Warning {number}"] = warning
    return bag


def _percent(job: Job) -> float:
    progress = job.progress or {}
    expected = progress.get("expected") or 0
    return round(min(100.0, 100.0 * progress.get("done", 0) / expected), 1) if expected else 0.0


def _before(token: str) -> tuple[datetime, UUID] | None:
    if not token:
        return None
    created, _, identity = token.partition(" ")
    try:
        return datetime.fromisoformat(created).astimezone(UTC), UUID(identity)
    except ValueError as error:
        raise InvalidRequest("$skipToken is none that this list gave", target="$skipToken") from error
