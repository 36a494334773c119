# SPDX-License-Identifier: Apache-2.0
"""Somebody who reads a disk from a snapshot that QEMU keeps, or looks whether snapshots are whole, and is killed.

    python -m tests.machines.reading MACHINE OWNER [DISK STAMP]

MACHINE: its document, in JSON (`hypervisors.address`).
"""

from __future__ import annotations

import json
import sys
from typing import Any
from unittest import mock

from keepstone.disks.nbd import NbdSource
from keepstone.env import Env
from keepstone.workloads.hypervisors.near import way_of
from keepstone.workloads.kvm import kept_by, near_disks
from tests.machines.dying import die

__all__: list[str] = []


def main(machine: str, owner: str, disk: str = "", stamp: str = "") -> None:
    plain = NbdSource.pread_into

    def pread_into(self: NbdSource, buffer: memoryview, offset: int) -> Any:
        plain(self, buffer, offset)
        print("reads", flush=True)
        die()

    mock.patch.object(NbdSource, "pread_into", pread_into).start()
    env, way = Env(threads=1), way_of(json.loads(machine))
    if not disk:
        kept_by(env, way, owner)
    with near_disks(env, way, owner, int(stamp), [disk]) as disks:
        disks[disk].pread_into(memoryview(bytearray(1)), 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
