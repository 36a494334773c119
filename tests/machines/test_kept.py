# SPDX-License-Identifier: Apache-2.0
"""Snapshots that stay in QEMU after the backup: what they hold, what they cost the guest, and how they go."""

from __future__ import annotations

import filecmp
from pathlib import Path

import pytest

from keepstone.disks.nbd import NbdSource
from keepstone.store import Reader
from keepstone.workloads.kvm import Keep, near_disks
from keepstone.workloads.machines.naming import prefix_of
from keepstone.workloads.machines.near import NearReader
from keepstone.workloads.machines.root import tokens
from tests.machines.guest import Guest, monitor
from tests.machines.yard import OWNER, Made, Yard, oracle

pytestmark = pytest.mark.vm

_MIB = 1 << 20
_BUSY = "while [ ! -f /run/stop ]; do dd if=/dev/urandom of=/a/busy bs=64k count=32 2>/dev/null; sync; done"


def content(yard: Yard, made: Made) -> dict[str, bytes]:
    """What the snapshot of a point reads as, by disk; nothing where it is gone."""
    found = {}
    with near_disks(yard.env, yard.guest.qmp, OWNER, tokens(made.point.record)) as disks:
        for name, source in disks.items():
            data = bytearray(source.size)
            source.pread_into(memoryview(data), 0)
            found[name] = bytes(data)
    return found


def snapshots(yard: Yard) -> list[str]:
    """The nodes of snapshots that are in QEMU."""
    with monitor(yard.guest.qmp) as ask:
        names = [node["node-name"] for node in ask("query-named-block-nodes", flat=True)]
    return sorted(name for name in names if name.startswith(prefix_of(OWNER)[:-1] + "."))


def test_each_holds_its_own_moment(yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guest writes all the time, and nothing freezes it."""
    guest = yard.guest
    guest.sh(f"rm -f /run/stop; {_BUSY}", wait=False)
    held: list[tuple[Made, dict[str, bytes]]] = []
    for number in range(3):
        keep = Keep(2)
        with oracle(monkeypatch, guest, tmp_path / f"copies{number}") as copies:
            made = yard.backup(keep=keep)
        assert made.warnings == []
        assert len(keep.there) == number + 1
        held.append((made, {f"disk{node[1:]}": copy.read_bytes() for node, copy in copies.items()}))

    for made, disks in held:
        assert content(yard, made) == disks
    guest.sh("touch /run/stop")
    assert yard.left() == yard.tokens(held[-1][0])

    yard.backup()
    assert snapshots(yard) == []
    assert content(yard, held[0][0]) == {}
