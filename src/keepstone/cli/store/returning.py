# SPDX-License-Identifier: Apache-2.0
"""What `restore` does with machines that are there: their disks back into them, and files into a guest that runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keepstone.cli.console import Console
from keepstone.cli.progress import Meter, metered
from keepstone.cli.render import plain, safe, size, when
from keepstone.cli.store.machines import MACHINES, Libvirt, address_for, back_up_machine

if TYPE_CHECKING:
    from keepstone.env import Env
    from keepstone.store import LocalReader, Point, Store
    from keepstone.workloads.guestfiles.reader import GuestReader
    from keepstone.workloads.kvm import Qemu

__all__ = ["files_into_guest", "into_machine", "make_safety_point"]


def make_safety_point(
    console: Console,
    store: Store,
    point: Point,
    machine: Qemu | Libvirt,
    names: tuple[str, ...],
    *,
    wanted: bool,
    fleecing: Path,
    yes: bool,
) -> str | None:
    """Ask whether these disks are to be put back, or all, and make a point of the machine as it is, unless nobody wants
    one; its id. What would be refused is refused before that."""
    from keepstone.errors import KeepstoneError, UsageError
    from keepstone.workloads.hypervisors.replace import check_vm, has_half
    from keepstone.workloads.machines import machine_of

    if point.record.kind != MACHINES:
        raise UsageError(f"recovery point {point.short} is of no machine; leave out --machine")
    env, address = store.context.env, address_for(machine)
    half = has_half(env, address)
    if not half:
        with store.reader(point) as reader:
            check_vm(env, address, machine_of(reader), names=names, readable=lambda path: None)
    how = "ended as by a power failure, and started again" if isinstance(machine, Libvirt) else "reset"
    console.confirm(
        f"Put the disks of {safe(point.record.item)}, as they were at {when(point.record.finished)}, back into the "
        f"machine at {safe(machine.address)}? It is {how}, and what was written to them since then is gone.",
        yes,
    )
    if half:
        console.say("its disks are half put back already; this goes on with it, without a safety point")
        return None
    if not wanted:
        return None
    try:
        with metered(console, "safety point") as meter:
            made = back_up_machine(
                store, machine, point.record.item, {"tags": ("safety",)}, meter,
                exclude=(), fleecing=fleecing, full=False,
            )  # fmt: skip
    except KeepstoneError as error:
        error.args = (f"{error}. That was the safety point; nothing was put back. --no-safety-point goes without it",)
        raise
    found = store.points.find(made)
    console.say(f"what it is now, is recovery point {found.short}")
    return found.id


def into_machine(
    console: Console, env: Env, reader: LocalReader, machine: Qemu | Libvirt, names: tuple[str, ...], meter: Meter
) -> tuple[dict[str, Any], list[str]]:
    """Put these disks back, or all."""
    from keepstone.workloads.hypervisors.replace import replace_vm
    from keepstone.workloads.machines import machine_of

    # Whoever runs this command may read what the system lets him read.
    report = replace_vm(env, address_for(machine), machine_of(reader), meter, names=names, readable=lambda path: None)
    disks = [{"name": put.disk.name, "written_bytes": put.changed} for put in report.disks]
    result: dict[str, Any] = {
        "machine": machine.address,
        "disks": disks,
        "left": report.left,
        "running": report.running,
        "size": meter.done,
    }
    lines = [f"put back into {safe(machine.address)}"]
    lines += [f"  {put.disk.name}  {size(put.changed)} differed" for put in report.disks]
    if report.left:
        lines.append(f"  {', '.join(report.left)}: left as they are")
    stands = "the machine stands; let it go on by `cont`"
    if isinstance(machine, Libvirt):
        stands = "the machine does not run, as before"
    lines.append("the machine begins anew" if report.running else stands)
    failed = [plain(piece) | {"disk": put.disk.name} for put in report.disks for piece in put.lost]
    if failed:
        result["failed"] = failed
        lines[-1] = "the machine does not run"
        console.warn("the machine does not run, as parts of its disks are not restored; restore another point into it")
    return result, lines


def files_into_guest(
    env: Env,
    guest: GuestReader,
    kind: str,
    machine: Qemu | Libvirt,
    paths: Sequence[bytes],
    target: str | None,
    conflict: str | None,
    meter: Meter,
) -> tuple[dict[str, Any], list[str]]:
    """Restore these files and folders of a point of this kind to where they came from, or beneath the folder `target`
    of the guest."""
    from keepstone.errors import UsageError
    from keepstone.workloads.files import Conflict
    from keepstone.workloads.hypervisors import QemuAddress
    from keepstone.workloads.inside import files_back

    address = address_for(machine)
    if isinstance(address, QemuAddress) and address.agent is None:
        raise UsageError("files go into a guest through its agent; name its socket by --agent")
    if not paths:
        raise UsageError("which files? give paths as `keepstone store ls` shows them")
    if target is not None and not target.startswith("/"):
        raise UsageError(f"--guest-target is a whole path in the guest, as /srv/restored; {target} is none")
    depth = 2 if kind == MACHINES else 1  # components of a path that name disk and volume
    if target is None and depth == 1:
        raise UsageError("the point is of a disk, of no machine; say by --guest-target where its files go")
    choice = None if conflict is None else Conflict(conflict)
    report = files_back(env, guest, address, paths, depth, target, choice, meter)
    result = {"guest": machine.address, **plain(report)}
    result["kept"] = [{"path": path, "beside": place} for path, place in report.kept]
    result["failed"] = [{"path": path, "reason": reason} for path, reason in report.failed]
    lines = [f"restored into the guest of {safe(machine.address)}: {report.files:,} files, {report.folders:,} folders"]
    lines += [f"  beside what was there: {safe(place)}" for _, place in report.kept]
    return result, lines
