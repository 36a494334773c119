# SPDX-License-Identifier: Apache-2.0
"""All operations, in the order in which their modules have them."""

from __future__ import annotations

from keepstone.arm import cloud, groups, login, vaults
from keepstone.arm.table import Operation

__all__ = ["OPERATIONS"]

OPERATIONS: list[Operation] = [
    operation for module in (cloud, login, groups, vaults) for operation in module.table.operations
]
