# SPDX-License-Identifier: Apache-2.0
"""A point becomes a new machine on this host, where its `agent.toml` allows it.

Invariants
* `restore.machines` says that machines may be started here at all, `restore.allow` where their images are, and, of
  libvirt, has the socket of that, for it is told to make them. `restore.networks` has the networks that they may be in.
  All that is looked at before anything is done.
* What the machine is started on is made of our own words (`running.launch`, `libvirt.building`). The kernel that it was
  started by, a file of this host which the point names, is one that may be backed up, for its guest can read it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from keepstone.agent.configuration import Configuration
from keepstone.agent.paths import Paths
from keepstone.agent.reading import nearest
from keepstone.env import Env
from keepstone.errors import GuardRefused
from keepstone.files import make_folders
from keepstone.workloads.hypervisors import LibvirtAddress, VmAddress, address_of
from keepstone.workloads.hypervisors.discovery import document_of, inspect
from keepstone.workloads.hypervisors.making import Wanted, make_domain
from keepstone.workloads.hypervisors.recover import network_of, recover_vm
from keepstone.workloads.machines import machine_of
from keepstone.workloads.running import Network, startable
from keepstone.workloads.running.definition import hardware_of

if TYPE_CHECKING:
    from keepstone.agent.job import Order, Report

__all__ = ["recover"]

_NONE = "none"


def recover(env: Env, order: Order, configuration: Configuration, report: Report) -> tuple[str, dict[str, Any]]:
    """Do it; the folder of the new machine, and what its service is told of it. `GuardRefused`, and what `recover_vm`
    and `make_domain` raise."""
    work, wanted = order.work, order.work.arguments
    network = _network(configuration, order, str(wanted.get("network") or _NONE))
    paths = Paths(configuration, order.folders.configuration, order.folders)
    folder = paths.target(str(wanted["target"]))
    old = address_of(work.source) if "machine" in work.source else None
    if isinstance(old, LibvirtAddress):
        paths.target(old.place)

    def readable(path: Path) -> Path:
        return paths.source(str(path)).path

    if folder.is_relative_to(order.folders.restored):  # what is there is this agent's alone
        make_folders(env.fs, order.folders.restored)
    report.step(f"makes a machine in {folder}")
    with nearest(env, order, configuration, report) as reader:
        if isinstance(old, LibvirtAddress):
            machine = Wanted(name=str(wanted.get("name", "")), job=work.job, folder=folder, network=network)
            address: VmAddress = make_domain(env, machine_of(reader), old.connect, machine, report, readable)
        else:
            kernel = hardware_of(startable(reader).about).kernel
            for file in (kernel.kernel, kernel.initrd) if kernel is not None else ():
                if file is not None:
                    readable(file)
            address = recover_vm(
                env,
                reader,
                folder,
                report,
                point=str(wanted["point"]),
                network=network,
                runs=report.runs,
                check=report.check,
            )
    found = inspect(env, address, lambda message: report.warn(b"", message))
    return str(folder), document_of(found)


def _network(configuration: Configuration, order: Order, wanted: str) -> Network:
    """That which the new machine is put into, where it may be made at all. `GuardRefused`."""
    file = order.folders.configuration
    if not configuration.restore.machines:
        raise GuardRefused(
            "this machine's agent starts no machines out of points; its administrator can allow it by "
            f"`machines = true` under [restore] in {file}"
        )
    if wanted != _NONE and wanted not in configuration.restore.networks:
        raise GuardRefused(
            f"the network {wanted!a:.40} is not in restore.networks of this machine's agent; its administrator can add "
            f"it there, in {file}"
        )
    return network_of(wanted)
