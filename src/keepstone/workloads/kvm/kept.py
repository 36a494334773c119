# SPDX-License-Identifier: Apache-2.0
"""Snapshots of a machine that stay in its QEMU after the backup: what there is of them, and taking them away.

A filter between the device and its disk goes on copying what the guest is about to overwrite (QEMU,
docs/interop/live-block-operations.rst and the drivers `copy-before-write` and `snapshot-access`). There is one of a
disk at a time, that of its newest snapshot, so each cluster is copied once however many snapshots there are: an older
one is what was copied until the next one began, over that next one.

    device → k → b → the disk   k  the filter, b  a node that passes everything on, and keeps the filter's own bitmap
             └→ t → v           t  an image, v  a file of a bounded size: what was overwritten from this snapshot on
    w → u                       w  says that the point is made, u  a file: what was overwritten while the backup read;
                                there is none where that file is somebody else's (libvirt)
    r → o → o → s → k           while somebody reads (`nearby.py`): s  the disk as it was when the newest one began,
                                o  over it what each older one copied, r  over that the `w` of the one that is read

A name is `keepstone-`, the item and its store (8), a dot, what it is (1), when the snapshot began (6), for how many
days it stays (1), and the disk (4): so whoever finds one knows all there is to know, and nothing outside QEMU has to
remember it. It has another form than what `sweep` takes away.

Invariants
* The files have no names: when QEMU ends, nothing is left of a snapshot.
* The guest is never harmed: where the copy fails, has no room or takes too long, QEMU gives the snapshot up and not the
  guest's write (`on-cbw-error`, `cbw-timeout`).
* A filter goes before anybody but its device writes to the disk beneath it, and the device gets that very disk: QEMU
  is asked which one it is.
* The filter's bitmap is on a node that nobody else takes away: QEMU ends where one goes with a bitmap still on it, and
  what is beneath may get an overlay of its owner's, and go.
* No overlay is ever put over the disk itself (`blockdev-snapshot`): whoever started the machine anew by its own command
  would boot the old half of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from keepstone.env import Env
from keepstone.errors import KeepstoneError
from keepstone.workloads.kvm import qmp, sweep
from keepstone.workloads.kvm.drives import beneath
from keepstone.workloads.kvm.monitor import Monitor

__all__ = ["DAY", "Name", "collect", "end_reading", "forget", "mark_of", "named", "standing", "take_away"]

DAY = 86_400
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_NAME = re.compile(r"(keepstone-[0-9a-f]{8})\.([kbtvuwsor])([0-9a-z]{6})([0-9a-u])([0-9a-z]{4})")
_READING = "sor"


@dataclass(frozen=True, slots=True, order=True)
class Name:
    """What a node of a snapshot is called. `stamp`: seconds since 1970; `days`: 1 to 30."""

    owner: str
    mark: str
    stamp: int
    days: int
    kind: str

    def __str__(self) -> str:
        return f"{self.owner}.{self.kind}{_base36(self.stamp, 6)}{_DIGITS[self.days]}{self.mark}"

    def of(self, kind: str) -> str:
        """The name of another node of the same."""
        return str(Name(self.owner, self.mark, self.stamp, self.days, kind))

    @property
    def until(self) -> int:
        """When its time is over, seconds since 1970."""
        return self.stamp + self.days * DAY


def named(text: str) -> Name | None:
    """What a name says; None for one that is none of these."""
    found = _NAME.fullmatch(text)
    if found is None:
        return None
    return Name(found[1], found[5], int(found[3], 36), _DIGITS.index(found[4]), found[2])


def mark_of(disk: str) -> str:
    """How a disk goes into names."""
    return _base36(int.from_bytes(hashlib.sha256(disk.encode()).digest()[:8], "big") % 36**4, 4)


def _base36(number: int, length: int) -> str:
    text = ""
    for _ in range(length):
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
    return text


def standing(monitor: Monitor, owner: str = "") -> list[Name]:
    """All nodes of snapshots, of this item or of every one."""
    nodes = monitor.execute("query-named-block-nodes", flat=True)
    found = [name for node in nodes if (name := named(str(node["node-name"]))) is not None]
    return [name for name in found if not owner or name.owner == owner]


def end_reading(monitor: Monitor) -> None:
    """Take away what somebody reads snapshots by; he goes on from the vault. `Refused`, `Gone`."""
    reading = [str(name) for name in standing(monitor) if name.kind in _READING]
    for name in reading:
        sweep.end_exports(monitor, name)
    sweep.remove_nodes(monitor, reading)


def forget(monitor: Monitor, owner: str, over: Callable[[Name], bool]) -> list[int]:
    """Give up the snapshots of this item, or of every one (empty), that are `over`; when those began that stay.
    `Refused`, `Gone`."""
    end_reading(monitor)
    sweep.remove_nodes(monitor, [str(name) for name in standing(monitor, owner) if name.kind == "w" and over(name)])
    return collect(monitor, owner)


def collect(monitor: Monitor, owner: str) -> list[int]:
    """Take away whatever no snapshot needs: those of a backup that did not come to its end, and what the last one
    leaves; when those began that stay. Nobody may be in the middle of a backup to the item. `Refused`, `Gone`."""
    end_reading(monitor)
    disks: dict[tuple[str, str], list[Name]] = defaultdict(list)
    for name in standing(monitor, owner):
        disks[name.owner, name.mark].append(name)
    under = beneath(monitor) if disks else {}
    stay: set[int] = set()
    for names in disks.values():
        stay.update(_collect(monitor, names, under))
    return sorted(stay)


def _collect(monitor: Monitor, names: list[Name], under: dict[str, str]) -> list[int]:
    """The same of one disk."""
    devices = {
        (block.get("inserted") or {}).get("node-name"): block["qdev"] for block in monitor.execute("query-block")
    }
    live = next((name for name in names if name.kind == "k" and str(name) in devices), None)
    kept = {name.stamp for name in names if name.kind == "w"} if live is not None else set()
    if live is not None and not kept:
        monitor.execute("qom-set", path=devices[str(live)], property="drive", value=under[str(live)])
        live = None
    gone = [str(name) for name in names if not _needed(name, live, kept)]
    sweep.remove_nodes(monitor, gone)
    return sorted(kept)


def _needed(name: Name, live: Name | None, kept: Iterable[int]) -> bool:
    if live is None:
        return False
    if name.kind in "wu":
        return name.stamp in kept
    if name.kind == "v":
        return min(kept) <= name.stamp <= live.stamp
    return name.stamp == live.stamp  # the filter, what is beneath it, and its image


def take_away(kept: bool, monitor: str, prefix: str) -> None:
    """What the janitor of a backup does, see `sweep.take_away`."""
    sweep.take_away(kept, monitor, prefix)
    with contextlib.suppress(KeepstoneError), qmp.Monitor(Env(), Path(monitor), timeout=sweep.TURN) as opened:
        collect(opened, prefix[:-1])
