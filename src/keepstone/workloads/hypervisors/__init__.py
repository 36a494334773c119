# SPDX-License-Identifier: Apache-2.0
"""Hypervisors, whichever they are: which machines one has, and what the service asks of one of them."""

from __future__ import annotations

from keepstone.workloads.hypervisors.address import FLEECING, Address
from keepstone.workloads.hypervisors.backup import Chosen, backup_vm
from keepstone.workloads.hypervisors.discovery import Found, FoundDisk, discover, inspect

__all__ = ["FLEECING", "Address", "Chosen", "Found", "FoundDisk", "backup_vm", "discover", "inspect"]
