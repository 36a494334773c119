# SPDX-License-Identifier: Apache-2.0
"""The manifest of a machine: a root node with the root of an image for each disk, all of one moment.

    machine/root   body: `Machine` as msgpack; children: one `images/root` for each of its disks, in order

What a machine has beside its disks, such as NVRAM or the state of a TPM, is a disk of another role: so it is stored,
shared, verified and restored like one.

The record's `detail` holds the tokens of the disks (see `images.backup`), what the moment is worth, for those who list
points, and by which stamp its hypervisor may keep a snapshot of it.
"""

from __future__ import annotations

import re
from enum import StrEnum

import msgspec

from keepstone.decoders import from_msgpack
from keepstone.errors import CorruptObject, HostileName
from keepstone.store import PointRecord
from keepstone.workloads.images.leaf import Nodes

__all__ = [
    "KIND",
    "MACHINE_KIND",
    "Consistency",
    "Disk",
    "Level",
    "Machine",
    "Role",
    "detail_of",
    "is_name",
    "level_of",
    "read_machine",
    "stamp_of",
    "tokens",
]

KIND = "machine"
"""The kind of points of machines."""
MACHINE_KIND = "machine/root"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DISKS = 1000


class Level(StrEnum):
    """What a restored machine finds. `APPLICATION`: file systems and what listens to the freeze were brought to rest;
    `FILE_SYSTEM`: file systems alone; `CRASH`: what a power failure leaves."""

    APPLICATION = "application"
    FILE_SYSTEM = "file-system"
    CRASH = "crash"


class Consistency(msgspec.Struct, frozen=True, omit_defaults=True):
    """`reason`: why it is no better. `frozen`: how long the guest stood still, ns."""

    level: Level
    reason: str = ""
    frozen: int = 0


class Role(StrEnum):
    """What a disk is to its machine."""

    DISK = "disk"
    NVRAM = "nvram"
    TPM = "tpm"


class Disk(msgspec.Struct, frozen=True, omit_defaults=True):
    """`name`: unique in the machine, and good as the name of a file. `bus`: how the machine sees it."""

    name: str
    size: int
    role: Role = Role.DISK
    bus: str = ""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """`moment`: wall clock, ns. `definition`: documents by name, from which the machine can be made anew. `excluded`:
    names of disks that it has and the point has not."""

    name: str
    moment: int
    consistency: Consistency
    disks: list[Disk]
    definition: dict[str, bytes]
    excluded: list[str] = []


class _Detail(msgspec.Struct, frozen=True, omit_defaults=True):
    tokens: dict[str, str]
    level: Level | None = None
    stamp: int = 0


def tokens(record: PointRecord | None) -> dict[str, str]:
    """Names the state that each disk of a point is of, as far as that is remembered."""
    return {} if record is None else _detail(record).tokens


def level_of(record: PointRecord) -> Level | None:
    """What the moment of a point is worth; None where its record does not say."""
    return _detail(record).level


def stamp_of(record: PointRecord) -> int:
    """When the snapshot of a point began that its hypervisor was to keep, seconds since 1970; 0 for none."""
    return _detail(record).stamp


def _detail(record: PointRecord) -> _Detail:
    try:
        return from_msgpack(_Detail).decode(record.detail)
    except msgspec.MsgspecError:
        return _Detail({})


def detail_of(tokens: dict[str, str], level: Level, stamp: int = 0) -> bytes:
    """What the record of a point says of its disks, of its moment, and of its snapshot."""
    return msgspec.msgpack.encode(_Detail(tokens, level, stamp))


def is_name(name: str) -> bool:
    """Whether a disk can be called so."""
    return _NAME.fullmatch(name) is not None


def read_machine(nodes: Nodes, root: list[int]) -> tuple[Machine, list[int]]:
    """(what the root says, the places of the roots of its disks). `CorruptObject`, `HostileName`."""
    if len(root) != 1:
        raise CorruptObject(f"the manifest of a machine has {len(root)} roots; run `keepstone store verify`")
    node = nodes.node(root[0])
    try:
        machine = from_msgpack(Machine).decode(node.body) if node.kind == MACHINE_KIND else None
    except msgspec.MsgspecError:
        machine = None
    if machine is None or len(machine.disks) > _DISKS:
        raise CorruptObject("the root of a machine's manifest cannot be read; run `keepstone store verify`")
    places = nodes.child_refs(node)
    if len(places) != len(machine.disks):
        raise CorruptObject(
            f"the manifest of a machine of {len(machine.disks)} disks has {len(places)}; run `keepstone store verify`"
        )
    names = [disk.name for disk in machine.disks]
    for name in names:
        if not is_name(name) or names.count(name) > 1:
            raise HostileName(f"a machine has a disk of the name {name!a}; the point is forged")
    return machine, places
