# SPDX-License-Identifier: Apache-2.0
"""Hypervisors, whichever they are: which machines one has (`discovery.py`), and a backup of one of them (`backup.py`).

What names a machine is here. What asks it is not, for whoever only names one does without all that this takes.
"""

from __future__ import annotations

from keepstone.workloads.hypervisors.address import (
    FLEECING,
    LibvirtAddress,
    QemuAddress,
    VmAddress,
    address_of,
    socket_of,
)

__all__ = ["FLEECING", "LibvirtAddress", "QemuAddress", "VmAddress", "address_of", "socket_of"]
