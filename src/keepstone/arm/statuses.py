# SPDX-License-Identifier: Apache-2.0
"""Where clients ask about operations that nothing here takes long for. Each of these addresses knows every operation of
its vault: clients take an id out of one and ask at another."""

from __future__ import annotations

from keepstone.arm.answers import status_document
from keepstone.arm.table import VAULT, Answer, Call, Table
from keepstone.arm.vaults import find
from keepstone.control import operations

__all__ = ["table"]

table = Table()
_ACTION = "Microsoft.RecoveryServices/Vaults"


@table("GET", f"{VAULT}/backupstorageconfig/vaultstorageconfig/operationStatus/{{operation}}",
       "backup_client.get_operation_status", action=f"{_ACTION}/backupstorageconfig/operationStatus/read")  # fmt: skip
@table("GET", f"{VAULT}/privateEndpointConnections/{{connection}}/operationsStatus/{{operation}}",
       "private_endpoint.get_operation_status",
       action=f"{_ACTION}/privateEndpointConnections/operationsStatus/read")  # fmt: skip
@table("GET", f"{VAULT}/backupValidateOperationsStatuses/{{operation}}", "validate_operation_statuses.get",
       action=f"{_ACTION}/backupValidateOperationsStatuses/read")  # fmt: skip
@table("GET", f"{VAULT}/backupTieringCost/default/operationsStatus/{{operation}}", "tiering_cost_operation_status.get",
       action=f"{_ACTION}/backupTieringCost/operationsStatus/read")  # fmt: skip
def status(call: Call) -> Answer:
    """`NotFound` for an operation of another vault."""
    with call.plane.look() as connection:
        found = operations.find(connection, call.names["operation"], find(call, connection).id)
    return Answer(body=status_document(found))
