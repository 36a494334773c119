# SPDX-License-Identifier: Apache-2.0
"""Hypervisors, whichever they are: which machines one has, and what the service asks of one of them."""

from __future__ import annotations

from keepstone.workloads.hypervisors.address import (
    FLEECING,
    LibvirtAddress,
    QemuAddress,
    VmAddress,
    address_of,
    socket_of,
)
from keepstone.workloads.hypervisors.backup import Chosen, backup_vm
from keepstone.workloads.hypervisors.discovery import (
    Found,
    FoundDisk,
    discover_domains,
    discover_monitors,
    document_of,
    inspect,
    read_found,
)

__all__ = [
    "FLEECING",
    "Chosen",
    "Found",
    "FoundDisk",
    "LibvirtAddress",
    "QemuAddress",
    "VmAddress",
    "address_of",
    "backup_vm",
    "discover_domains",
    "discover_monitors",
    "document_of",
    "inspect",
    "read_found",
    "socket_of",
]
