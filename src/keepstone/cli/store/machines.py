# SPDX-License-Identifier: Apache-2.0
"""`keepstone store machines`, and what `backup`, `restore` and `show` do with points of whole machines."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keepstone.cli.console import Console, pass_console
from keepstone.cli.opening import output_options
from keepstone.cli.progress import Meter
from keepstone.cli.render import plain, safe, size

if TYPE_CHECKING:
    from keepstone.env import Env
    from keepstone.store import LocalReader, Store, Writer
    from keepstone.workloads.hypervisors import VmAddress
    from keepstone.workloads.images import Report
    from keepstone.workloads.kvm import Qemu

__all__ = [
    "CONNECT",
    "FLEECING",
    "MACHINES",
    "Libvirt",
    "address_for",
    "back_up_machine",
    "machine_at",
    "machine_facts",
    "machine_lines",
    "machines",
    "restore_machine",
]

MACHINES = "machine"
FLEECING = "/var/tmp"
CONNECT = "qemu:///system"


@dataclass(frozen=True, slots=True)
class Libvirt:
    """A machine of a libvirt, by its name or UUID."""

    uri: str
    domain: str

    @property
    def address(self) -> str:
        return f"libvirt:{self.domain}"


def machine_at(address: str, agent: str | None, connect: str | None) -> Qemu | Libvirt:
    """What `--machine`, `--agent` and `--connect` name. `UsageError`."""
    from keepstone.errors import UsageError
    from keepstone.workloads.kvm import Qemu

    kind, _, place = address.partition(":")
    if kind == "libvirt" and place:
        if agent is not None:
            raise UsageError("libvirt has the guest agent of its machines itself; leave --agent out")
        return Libvirt(connect or CONNECT, place)
    if kind != "qemu" or not place:
        raise UsageError(
            f"{address} names no machine; give qemu: and the path of its QMP socket, as qemu:/run/vm1.qmp, or libvirt: "
            "and the name of a domain"
        )
    if connect is not None:
        raise UsageError("--connect is for machines of libvirt; name one as libvirt:DOMAIN, or leave it out")
    return Qemu(Path(os.path.abspath(place)), None if agent is None else Path(os.path.abspath(agent)))


def address_for(machine: Qemu | Libvirt) -> VmAddress:
    """The same for those who do not care which hypervisor it is."""
    from keepstone.workloads.hypervisors import LibvirtAddress, QemuAddress

    if isinstance(machine, Libvirt):
        return LibvirtAddress(machine.domain, machine.uri)
    return QemuAddress(machine.monitor, machine.agent)


def back_up_machine(
    store: Store,
    machine: Qemu | Libvirt,
    item: str,
    options: dict[str, Any],
    meter: Meter,
    *,
    exclude: tuple[str, ...],
    fleecing: Path,
    full: bool,
) -> str:
    """Make the point; its id."""
    with store.writer(item, MACHINES, **options) as writer:
        meter.new = lambda: writer.new_bytes
        how: dict[str, Any] = {"owner": f"{store.descriptor.store}/{item}", "exclude": exclude, "full": full}
        return _report(store.context.env, writer, machine, meter, fleecing, how).commit


def _report(
    env: Env, writer: Writer, machine: Qemu | Libvirt, meter: Meter, fleecing: Path, how: dict[str, Any]
) -> Report:
    if isinstance(machine, Libvirt):
        from keepstone.workloads.libvirt import Virsh, backup_domain
        from keepstone.workloads.machines import Room

        room = Room(env, fleecing.absolute())
        how["readable"] = lambda path: None  # whoever runs this command may read what the system lets him read
        return backup_domain(env, writer, Virsh(machine.uri), machine.domain, meter, fleecing=room, **how)
    from keepstone.workloads.kvm import Fleecing, backup_qemu

    return backup_qemu(env, writer, machine, meter, fleecing=Fleecing(fleecing), **how)


@click.command(name="machines")
@click.option("--connect", metavar="URI", default=CONNECT, show_default=True, help="The libvirt that is asked.")
@output_options
@pass_console
def machines(console: Console, connect: str) -> int:
    """List the machines of a libvirt on this host, as `backup --machine` names them."""
    from keepstone.workloads.libvirt import Virsh, domains

    found = domains(Virsh(connect))
    lines = []
    for domain in found:
        agent = "guest agent" if domain.agent else "no guest agent"
        lines.append(f"{safe(domain.address)}  {domain.state}  {domain.firmware}  {agent}  {domain.uuid}")
        lines += [
            f"  {disk.target}  {'unknown size' if disk.size is None else size(disk.size)}  {safe(disk.format)}  "
            f"{safe(disk.bus)}  {safe(disk.source or disk.kind)}"
            for disk in domain.disks
        ]
    known = []
    for domain in found:
        told = plain(domain)
        del told["description"]
        known.append(told | {"machine": domain.address})
    console.result({"machines": known}, lines or ["libvirt has no machines"])
    return console.ending()


def machine_facts(reader: LocalReader) -> dict[str, Any]:
    """What a point says of its machine, for programs."""
    from keepstone.workloads.machines import described, machine_of

    return described(machine_of(reader))


def machine_lines(known: dict[str, Any]) -> list[str]:
    """The same for people."""
    consistency = known["consistency"]
    frozen = f", it stood still for {consistency['frozen_seconds']:.2f} s" if consistency["frozen_seconds"] else ""
    reason = f": {safe(consistency['reason'])}" if consistency["reason"] else ""
    lines = [f"machine {safe(known['name'])} at {known['moment']}, {consistency['level']}-consistent{reason}{frozen}"]
    lines += [
        f"  {disk['name']}  {size(disk['size'])}  {disk['role']}{'  ' if disk['bus'] else ''}{safe(disk['bus'])}"
        for disk in known["disks"]
    ]
    if known["excluded"]:
        lines.append(f"  without {safe(', '.join(known['excluded']))}")
    return lines


def restore_machine(
    env: Env, reader: LocalReader, target: Path | None, disks: tuple[str, ...], kind: str | None, meter: Meter
) -> tuple[dict[str, Any], list[str]]:
    """Restore these disks, or all, each into a new file of the folder `target`, and say there what machine it was.
    `kind`: the format of its disks; what firmware keeps stays as it is."""
    from keepstone.errors import UsageError
    from keepstone.workloads.machines import machine_of
    from keepstone.workloads.machines import restore_machine as restore

    if target is None:
        raise UsageError("a machine is restored into a folder; give --target FOLDER")
    machine = machine_of(reader)
    done = restore(env, machine, target, meter, names=disks, format=kind)
    made = list(done.files.values())
    result = {"target": str(target), "disks": [str(path) for path in made], "size": meter.done}
    failed = [plain(piece) | {"disk": disk.name} for disk, piece in done.lost]
    if failed:
        result["failed"] = failed
    return result, [f"restored {safe(machine.about.name)} to {safe(str(target))}", *(f"  {one.name}" for one in made)]
