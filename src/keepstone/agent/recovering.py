# SPDX-License-Identifier: Apache-2.0
"""A point becomes a new machine on this host, where its `agent.toml` allows it.

Invariants
* `restore.machines` says that machines may be started here at all, and `restore.allow` where their images are.
* What the machine is started on is made of our own words (`running.launch`). The kernel that it was started by, a file
  of this host which the point names, is one that may be backed up, for its guest can read it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keepstone.agent.configuration import Configuration
from keepstone.agent.paths import Paths
from keepstone.agent.reading import reading
from keepstone.env import Env
from keepstone.errors import GuardRefused
from keepstone.workloads.hypervisors.discovery import document_of, inspect
from keepstone.workloads.hypervisors.recover import network_of, recover_vm
from keepstone.workloads.running import startable
from keepstone.workloads.running.definition import hardware_of

if TYPE_CHECKING:
    from keepstone.agent.job import Order, Report

__all__ = ["recover"]


def recover(env: Env, order: Order, configuration: Configuration, report: Report) -> tuple[str, dict[str, Any]]:
    """Do it; the folder of the new machine, and what its service is told of it. `GuardRefused`, and what `recover_vm`
    raises."""
    wanted = order.work.arguments
    if not configuration.restore.machines:
        raise GuardRefused(
            "this machine's agent starts no machines out of points; its administrator can allow it by "
            f"`machines = true` under [restore] in {order.folders.configuration}"
        )
    paths = Paths(configuration, order.folders.configuration, order.folders)
    folder = paths.target(str(wanted["target"]))
    if folder.is_relative_to(order.folders.restored):  # what is there is this agent's alone
        order.folders.restored.mkdir(mode=0o700, parents=True, exist_ok=True)
    with reading(env, order, configuration, report) as reader:
        kernel = hardware_of(startable(reader).about).kernel
        for file in (kernel.kernel, kernel.initrd) if kernel is not None else ():
            if file is not None:
                paths.source(str(file))
        address = recover_vm(
            env,
            reader,
            folder,
            report,
            point=str(wanted["point"]),
            network=network_of(wanted.get("network")),
            runs=report.runs,
            check=report.check,
        )
    found = inspect(env, address, lambda message: report.warn(b"", message))
    return str(folder), document_of(found)
