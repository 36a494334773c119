# SPDX-License-Identifier: Apache-2.0
"""Somebody who reads a disk from a snapshot that QEMU keeps, says so, and is killed.

python -m tests.machines.reading QMP OWNER DISK TOKEN
"""

from __future__ import annotations

import sys
from pathlib import Path

from keepstone.env import Env
from keepstone.objects import PAGE
from keepstone.workloads.kvm import near_disks
from tests.machines.dying import die

__all__: list[str] = []


def main(qmp: str, owner: str, disk: str, token: str) -> None:
    with near_disks(Env(threads=1), Path(qmp), owner, {disk: token}) as disks:
        for source in disks.values():
            source.pread_into(memoryview(bytearray(PAGE)), 0)
        print(*disks, flush=True)
        die()


if __name__ == "__main__":
    main(*sys.argv[1:])
