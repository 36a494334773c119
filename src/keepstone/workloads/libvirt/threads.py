# SPDX-License-Identifier: Apache-2.0
"""Disks that have an iothread, which not every QEMU can serve; see `workloads.kvm.threads`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from keepstone.workloads.kvm.threads import SOUND, refuse_threads
from keepstone.workloads.libvirt.domains import Domain, DomainDisk
from keepstone.workloads.libvirt.markup import Element, parsed
from keepstone.workloads.libvirt.virsh import Virsh

__all__ = ["check_threads"]

_VERSION = re.compile(r"Running hypervisor: QEMU (\d+)\.(\d+)")


def check_threads(virsh: Virsh, domain: Domain, disks: Sequence[DomainDisk]) -> None:
    """`Unsupported` where one of these disks must not be served. The version is that of the QEMU that libvirt starts
    now: one that runs since before an upgrade may be older."""
    root = parsed(domain.description, f"the description of {domain.name}")
    threads = {name for disk in root.iterfind("devices/disk") if (name := _threaded(root, disk))}
    used = [disk.target for disk in disks if disk.target in threads]
    if not used:
        return
    found = _VERSION.search(virsh.ask("version"))
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    if version < SOUND:
        refuse_threads(used, f"QEMU {version[0]}.{version[1]} of {virsh.uri}")


def _threaded(root: Element, disk: Element) -> str:
    """The name of a disk that has a thread, or whose controller has one; else nothing."""
    target, driver, address = disk.find("target"), disk.find("driver"), disk.find("address")
    name = "" if target is None else target.get("dev", "")
    if driver is not None and (driver.get("iothread") or driver.find("iothreads") is not None):
        return name
    number = "" if address is None else address.get("controller", "")
    kind = "" if target is None else target.get("bus", "")
    for controller in root.iterfind("devices/controller"):
        own = controller.find("driver")
        if (controller.get("type"), controller.get("index")) == (kind, number) and own is not None:
            return name if own.get("iothread") else ""
    return ""
