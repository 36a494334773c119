# SPDX-License-Identifier: Apache-2.0
"""All operations, in the order in which their modules have them."""

from __future__ import annotations

from keepstone.arm import (
    absent,
    alerts,
    authorization,
    browsing,
    certificates,
    cloud,
    containers,
    drills,
    file_recovery,
    footprint,
    groups,
    items,
    jobs,
    later,
    locations,
    locks,
    login,
    lro,
    mounts,
    openapi,
    points,
    policies,
    registrations,
    resource_graph,
    resources,
    targets,
    usage,
    users,
    vault_settings,
    vaults,
)
from keepstone.arm.table import Operation

__all__ = ["OPERATIONS"]

_MODULES = (
    cloud,
    login,
    groups,
    resources,
    resource_graph,
    authorization,
    locks,
    vaults,
    policies,
    containers,
    items,
    points,
    browsing,
    mounts,
    file_recovery,
    drills,
    jobs,
    alerts,
    targets,
    lro,
    vault_settings,
    usage,
    footprint,
    users,
    locations,
    certificates,
    registrations,
    absent,
    later,
    openapi,
)
OPERATIONS: list[Operation] = [operation for module in _MODULES for operation in module.table.operations]
