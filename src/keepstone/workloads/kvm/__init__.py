# SPDX-License-Identifier: Apache-2.0
"""Virtual machines of QEMU as recovery points, without stopping them, and back."""

from __future__ import annotations

from keepstone.workloads.kvm.backup import Fleecing, Qemu, backup_qemu
from keepstone.workloads.kvm.keeping import Keep
from keepstone.workloads.kvm.nearby import kept_by, near_disks
from keepstone.workloads.kvm.replace import check_disks, replace_disks, unfinished

__all__ = [
    "Fleecing",
    "Keep",
    "Qemu",
    "backup_qemu",
    "check_disks",
    "kept_by",
    "near_disks",
    "replace_disks",
    "unfinished",
]
