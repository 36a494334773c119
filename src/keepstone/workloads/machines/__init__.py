# SPDX-License-Identifier: Apache-2.0
"""Whole machines as recovery points: several disks of one moment, and what the machine is made of."""

from __future__ import annotations

from keepstone.workloads.machines.backup import Part, backup_machine
from keepstone.workloads.machines.folder import DESCRIPTION, Restored, described, placed, restore_machine
from keepstone.workloads.machines.guard import Room
from keepstone.workloads.machines.putting import Put, Replaced
from keepstone.workloads.machines.restore import restore_disks, wanted_disks
from keepstone.workloads.machines.root import KIND, Consistency, Disk, Level, Machine, Role, level_of
from keepstone.workloads.machines.view import OneDisk, PointOfMachine, disk_of, machine_of

__all__ = [
    "DESCRIPTION",
    "KIND",
    "Consistency",
    "Disk",
    "Level",
    "Machine",
    "OneDisk",
    "Part",
    "PointOfMachine",
    "Put",
    "Replaced",
    "Restored",
    "Role",
    "Room",
    "backup_machine",
    "described",
    "disk_of",
    "level_of",
    "machine_of",
    "placed",
    "restore_disks",
    "restore_machine",
    "wanted_disks",
]
