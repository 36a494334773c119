# SPDX-License-Identifier: Apache-2.0
"""Virtual machines of libvirt as recovery points, whether they run or not, and back."""

from __future__ import annotations

from keepstone.workloads.libvirt.backup import backup_domain
from keepstone.workloads.libvirt.chain import unread
from keepstone.workloads.libvirt.domains import Domain, DomainDisk, domains, find
from keepstone.workloads.libvirt.lifecycle import check_free, define, destroy, let_through, start, undefine
from keepstone.workloads.libvirt.remaking import renamed
from keepstone.workloads.libvirt.replace import check_domain, replace_domain, unfinished_domain
from keepstone.workloads.libvirt.virsh import SYSTEM, Virsh

__all__ = [
    "SYSTEM",
    "Domain",
    "DomainDisk",
    "Virsh",
    "backup_domain",
    "check_domain",
    "check_free",
    "define",
    "destroy",
    "domains",
    "find",
    "let_through",
    "renamed",
    "replace_domain",
    "start",
    "undefine",
    "unfinished_domain",
    "unread",
]
