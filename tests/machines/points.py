# SPDX-License-Identifier: Apache-2.0
"""Points of machines without a machine: out of files, and such as no backup would make."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import msgspec

from keepstone.disks import RawSource
from keepstone.env import Env
from keepstone.store import Outcome, Point, Store
from keepstone.workloads import Silent
from keepstone.workloads.machines import Consistency, Disk, Level, Machine, Part, Role, backup_machine

__all__ = ["forged_machine", "machine_point"]

_DEFINITION = {"qemu.json": b'{"name": {"name": "web"}}', "notes": b"\xffno JSON"}


def machine_point(store: Store, disks: dict[str, Path], **about: Any) -> Point:
    """A point of a machine with these disks; those that are called so have another role."""
    env = Env(threads=2)
    about.setdefault("definition", _DEFINITION)
    parts = []
    with contextlib.ExitStack() as stack:
        for name, path in disks.items():
            source = stack.enter_context(RawSource(env, path))
            role = Role(name) if name in ("nvram", "tpm") else Role.DISK
            parts.append(Part(Disk(name, source.size, role, "virtio-blk-pci"), source))
        machine = Machine(
            name="web",
            moment=1_700_000_000_000_000_000,
            consistency=Consistency(Level.CRASH, "no guest agent was named"),
            disks=[part.disk for part in parts],
            **about,
        )
        with store.writer("web", "machine") as writer:
            report = backup_machine(writer, machine, parts, Silent(), name=b"qemu:/run/web", held=lambda: None)
    return store.points.find(report.commit)


def forged_machine(store: Store, body: dict[str, Any], children: int) -> Point:
    """A point whose root says this, and has so many disks, all of them empty."""
    with store.writer("web", "machine") as writer:
        image = writer.put_node("images/root", [], [], msgspec.msgpack.encode({"size": 0, "chunk": 1 << 18}))
        root = writer.put_node("machine/root", [], [image] * children, msgspec.msgpack.encode(body))
        commit = writer.commit(
            Outcome(root=[root], detail=b"", source=b"", logical=0, read=0, files=children, warnings=0)
        )
    return store.points.find(commit)
