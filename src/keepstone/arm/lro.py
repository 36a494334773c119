# SPDX-License-Identifier: Apache-2.0
"""Long-running operations of the backup API: where a client that was answered 202 may ask.

A client takes the last segment of an address that it got and asks at an address of its own choice, so every operation
is known under all of them. What a request asks for is taken on when it is answered, so an operation is over by then;
its job may go on for hours.
"""

from __future__ import annotations

from typing import Any

from keepstone.arm.answers import accepted, status_document
from keepstone.arm.table import VAULT, Answer, Call, Table
from keepstone.arm.vaults import find
from keepstone.control import operations
from keepstone.control.operations import Operation

__all__ = ["CONTAINER", "FABRIC", "ITEM", "POINT", "table", "taken_on"]

table = Table()
FABRIC = f"{VAULT}/backupFabrics/{{fabric}}"
CONTAINER = f"{FABRIC}/protectionContainers/{{container}}"
ITEM = f"{CONTAINER}/protectedItems/{{item}}"
POINT = f"{ITEM}/recoveryPoints/{{point}}"
_VAULTS = "Microsoft.RecoveryServices/Vaults"
_FABRICS = f"{_VAULTS}/backupFabrics"
_ITEMS = f"{_FABRICS}/protectionContainers/protectedItems"


def taken_on(call: Call, operation: Operation, address: str, body: Any = None) -> Answer:
    """202, with where to ask: both addresses are beneath that of the resource which the request was about."""
    return accepted(
        call,
        status=f"{address}/operationsStatus/{operation.id}",
        location=f"{address}/operationResults/{operation.id}",
        body=body,
    )


def _found(call: Call) -> Operation:
    with call.plane.look() as connection:
        return operations.find(connection, call.names["operation"], find(call, connection).id)


@table("GET", f"{VAULT}/backupOperations/{{operation}}", "backup_operation_statuses.get",
       action=f"{_VAULTS}/backupOperations/read", az=("backup …",))  # fmt: skip
@table("GET", f"{ITEM}/operationsStatus/{{operation}}", "protected_item_operation_statuses.get",
       action=f"{_ITEMS}/operationsStatus/read")  # fmt: skip
@table("GET", f"{CONTAINER}/operationsStatus/{{operation}}", "protection_container_operation_statuses.get",
       action=f"{_FABRICS}/operationsStatus/read")  # fmt: skip
@table("GET", f"{FABRIC}/operationsStatus/{{operation}}", "fabric_operation_statuses.get",
       action=f"{_FABRICS}/operationsStatus/read")  # fmt: skip
@table("GET", f"{VAULT}/backupJobs/{{job}}/operationsStatus/{{operation}}", "job_operation_statuses.get",
       action=f"{_VAULTS}/backupJobs/operationsStatus/read")  # fmt: skip
@table("GET", f"{VAULT}/backupPolicies/{{policy}}/operations/{{operation}}", "protection_policy_operation_statuses.get",
       action=f"{_VAULTS}/backupPolicies/operations/read")  # fmt: skip
@table("GET", f"{VAULT}/backupstorageconfig/vaultstorageconfig/operationStatus/{{operation}}",
       "backup_client.get_operation_status", action=f"{_VAULTS}/backupstorageconfig/operationStatus/read")  # fmt: skip
@table("GET", f"{VAULT}/privateEndpointConnections/{{connection}}/operationsStatus/{{operation}}",
       "private_endpoint.get_operation_status",
       action=f"{_VAULTS}/privateEndpointConnections/operationsStatus/read")  # fmt: skip
@table("GET", f"{VAULT}/backupValidateOperationsStatuses/{{operation}}", "validate_operation_statuses.get",
       action=f"{_VAULTS}/backupValidateOperationsStatuses/read")  # fmt: skip
@table("GET", f"{VAULT}/backupTieringCost/default/operationsStatus/{{operation}}", "tiering_cost_operation_status.get",
       action=f"{_VAULTS}/backupTieringCost/operationsStatus/read")  # fmt: skip
def status(call: Call) -> Answer:
    """The operation, and the job that it began."""
    return Answer(body=status_document(_found(call)))


@table("GET", f"{VAULT}/backupOperationResults/{{operation}}", "backup_operation_results.get",
       action=f"{_VAULTS}/backupOperationResults/read")  # fmt: skip
@table("GET", f"{CONTAINER}/operationResults/{{operation}}", "protection_container_operation_results.get",
       action=f"{_FABRICS}/protectionContainers/operationResults/read",
       az=("backup container register", "backup container unregister"))  # fmt: skip
@table("GET", f"{FABRIC}/operationResults/{{operation}}", "protection_container_refresh_operation_results.get",
       action=f"{_FABRICS}/operationResults/read", az=("backup container register",))  # fmt: skip
@table("GET", f"{VAULT}/backupJobs/{{job}}/operationResults/{{operation}}", "job_operation_results.get",
       action=f"{_VAULTS}/backupJobs/operationResults/read")  # fmt: skip
@table("GET", f"{ITEM}/operationResults/{{operation}}", "protected_item_operation_results.get",
       action=f"{_ITEMS}/operationResults/read")  # fmt: skip
def result(call: Call) -> Answer:
    """204, the one code of an end that clients of all of these take."""
    _found(call)
    return Answer(status=204)
