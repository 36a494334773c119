# SPDX-License-Identifier: Apache-2.0
"""Virtual machines of QEMU as recovery points, without stopping them."""

from __future__ import annotations

from keepstone.workloads.kvm.backup import Fleecing, Qemu, backup_qemu

__all__ = ["Fleecing", "Qemu", "backup_qemu"]
