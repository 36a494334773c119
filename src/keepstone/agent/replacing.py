# SPDX-License-Identifier: Apache-2.0
"""The disks of a point back into a virtual machine of this host, where its `agent.toml` allows it.

Invariants
* `restore.allow` has the socket of the machine's hypervisor, for that is what is told to write, and of a machine of
  libvirt also each file that is written to. What such a file is above is only read, so it is what may be backed up.
  All of it is looked at before anything is done, the safety point included.
* The safety point is a backup like any other: what this machine does not let be backed up, is not backed up here.
* No safety point is made of disks that are half put back.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from keepstone.agent.backup import backup
from keepstone.agent.configuration import Configuration
from keepstone.agent.limits import Limits
from keepstone.agent.paths import Paths
from keepstone.agent.reading import reading
from keepstone.env import Env
from keepstone.workloads.hypervisors import address_of
from keepstone.workloads.hypervisors.replace import check_vm, check_whole, has_half, replace_vm
from keepstone.workloads.machines import machine_of, wanted_disks

if TYPE_CHECKING:
    from keepstone.agent.job import Order, Report

__all__ = ["replace"]


def replace(env: Env, order: Order, configuration: Configuration, report: Report, limits: Limits) -> str:
    """Do it; what the machine is reached by. `GuardRefused`, and what backup and replacement raise."""
    work = order.work
    paths = Paths(configuration, order.folders.configuration, order.folders)
    address = address_of(work.source)

    def allowed(path: Path) -> None:
        paths.target(str(path))

    def readable(path: Path) -> None:
        paths.source(str(path))

    allowed(Path(address.place))
    with reading(env, order, configuration, report) as reader:
        machine = machine_of(reader)
        names = wanted_disks(machine, work.arguments.get("disks"))
        if not has_half(env, address):
            check_vm(env, address, machine, names=names, allowed=allowed, readable=readable)
            if work.arguments.get("safety"):
                report.step("makes a point of what is there first")
                backup(env, order, configuration, report, limits)
                report.go_on()
        report.step("writes over the disks what differs from the point")
        done = replace_vm(env, address, machine, report, names=names, allowed=allowed, readable=readable)
    report.kept = []  # snapshots went first
    check_whole(done)
    return address.place
