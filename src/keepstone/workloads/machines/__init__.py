# SPDX-License-Identifier: Apache-2.0
"""Whole machines as recovery points: several disks of one moment, and what the machine is made of."""

from __future__ import annotations

from keepstone.workloads.machines.backup import Part, backup_machine
from keepstone.workloads.machines.restore import restore_disks
from keepstone.workloads.machines.root import KIND, Consistency, Disk, Level, Machine, Role
from keepstone.workloads.machines.view import OneDisk, PointOfMachine, disk_of, machine_of

__all__ = [
    "KIND",
    "Consistency",
    "Disk",
    "Level",
    "Machine",
    "OneDisk",
    "Part",
    "PointOfMachine",
    "Role",
    "backup_machine",
    "disk_of",
    "machine_of",
    "restore_disks",
]
