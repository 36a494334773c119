# SPDX-License-Identifier: Apache-2.0
"""Writes at random places of a disk that nobody can compress, and what the next backup of it reads, stores and costs.

The disk is a qcow2 in a QEMU that runs no guest, so that nothing but these writes changes it. It is full, the worst
case: a chunk that changed in part is stored whole. The peers get the same bytes as a raw file, which is what they can
read; it is made outside of the measured time. What is restored of our second point is compared with it.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from bench.data import FULL, Scale, ensure
from bench.machines.shelf import Shelf, need
from bench.measure import Cost, Failed, allocated, measure
from bench.peers import Room, Tool, tools
from tests.machines.guest import Guest, monitor

__all__ = ["measure_all", "union"]

_LENGTH = 256 << 10  # bytes of a write
_STEP = 4096
_DEVICE = "/machine/peripheral/disk0/virtio-backend"  # who alone may write to the disk
_TICK = os.sysconf("SC_CLK_TCK")


def measure_all(folder: Path, scale: Scale) -> dict[str, float]:
    """Of each tool: CPU and wall seconds, bytes stored, and those as a multiple of what changed; of Keepstone also what
    it read, QEMU's CPU meanwhile, and the next backup, when nothing changed."""
    need("qemu-system-x86_64", "qemu-img")
    first, _ = ensure("incompressible", scale)
    second, disk = folder / "second", folder / "disk.qcow2"
    shutil.copyfile(first, second)
    places = _places(first.stat().st_size, 200 if scale is FULL else 12)
    changed = union(places)
    peers = [(tool, _room(tool, folder)) for tool in tools(("restic", "borg"))]
    for tool, room in peers:
        measure(tool.init(room))
        measure(tool.backup(room, _named(first, folder), True, 1))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", first, disk], check=True)
    found: dict[str, float] = {"scattered_changed_bytes": changed}
    with Guest(folder, [("d0", disk)], boots=False) as guest:
        shelf = Shelf(folder / "keepstone")
        machine = ("--machine", f"qemu:{guest.qmp}", "--fleece", folder)
        shelf.run("backup", *machine)
        _write(guest, second, places)
        before, spent = shelf.stored(), _seconds(guest.process.pid)
        cost, told = shelf.told("backup", *machine)
        read = int(told["points"][0]["read_bytes"])
        found |= _figures("keepstone", cost, shelf.stored() - before, changed) | {
            "scattered_read_bytes": read,
            "scattered_read_ratio": read / changed,
            "scattered_qemu_cpu_s": _seconds(guest.process.pid) - spent,
        }
        target = folder / "restored"
        shelf.run("restore", "latest", "--target", target)
        _same(second, next(target.glob("*.raw")))
        shutil.rmtree(target)
        quiet, told = shelf.told("backup", *machine)
        found |= {
            "scattered_quiet_cpu_s": quiet.user_s + quiet.sys_s,
            "scattered_quiet_wall_s": quiet.wall_s,
            "scattered_quiet_read_bytes": int(told["points"][0]["read_bytes"]),
        }
    disk.unlink()
    for tool, room in peers:
        source = _named(second, folder)
        subprocess.run([sys.executable, "-m", "bench.warm", str(source)], check=True)
        before = allocated(room.store)
        cost = measure(tool.backup(room, source, True, 2))
        found |= _figures(tool.name, cost, allocated(room.store) - before, changed)
    return found


def _room(tool: Tool, folder: Path) -> Room:
    room = Room(folder / tool.name)
    for place in (room.home, room.target):
        place.mkdir(parents=True)
    return room


def _named(generation: Path, folder: Path) -> Path:
    """The generation, always under one name."""
    disk, fresh = folder / "disk.img", folder / "disk.next"
    os.link(generation, fresh)
    fresh.replace(disk)
    fresh.unlink(missing_ok=True)  # rename leaves both names where they are one file
    return disk


def _places(size: int, count: int) -> list[int]:
    chance = random.Random(1)
    return [chance.randrange((size - _LENGTH) // _STEP + 1) * _STEP for _ in range(count)]


def union(places: Iterable[int]) -> int:
    """Bytes that are written, those twice that overlap only once."""
    total = end = 0
    for at in sorted(places):
        total += at + _LENGTH - max(at, end)
        end = at + _LENGTH
    return total


def _write(guest: Guest, raw: Path, places: Iterable[int]) -> None:
    """The same random bytes into the disk of the guest and into the raw file."""
    chance = random.Random(2)
    piece = guest.folder / "piece"
    with monitor(guest.qmp) as ask, raw.open("r+b") as file:
        for at in places:
            data = chance.randbytes(_LENGTH)
            piece.write_bytes(data)
            file.seek(at)
            file.write(data)
            said = ask(
                "human-monitor-command", command_line=f'qemu-io -d {_DEVICE} "write -q -s {piece} {at} {_LENGTH}"'
            )
            if said.strip():
                raise Failed(f"QEMU did not write at {at}: {said}")
    piece.unlink()


def _figures(tool: str, cost: Cost, stored: int, changed: int) -> dict[str, float]:
    return {
        f"scattered_{tool}_cpu_s": cost.user_s + cost.sys_s,
        f"scattered_{tool}_wall_s": cost.wall_s,
        f"scattered_{tool}_stored_bytes": stored,
        f"scattered_{tool}_stored_ratio": stored / changed,
    }


def _seconds(pid: int) -> float:
    """CPU of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:13]) / _TICK


def _same(source: Path, restored: Path) -> None:
    command = [sys.executable, "-m", "bench.same", str(source), str(restored)]
    same = subprocess.run(command, capture_output=True, text=True, check=False)
    if same.returncode:
        raise Failed(f"what was restored differs from what was written: {same.stdout or same.stderr}")
