# SPDX-License-Identifier: Apache-2.0
"""A restore into a guest that is killed while it writes a file.

python -m tests.machines.intoguest STORE QMP QGA POINT PATH BASE
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from keepstone.env import Env
from keepstone.objects import FolderStorage
from keepstone.store import Store
from keepstone.workloads import Silent
from keepstone.workloads.guestfiles.tree import looking_into
from keepstone.workloads.hypervisors import QemuAddress
from keepstone.workloads.images import PointDisk
from keepstone.workloads.inside.guest import Inside
from keepstone.workloads.inside.restore import Wanted, restore_into_guest
from keepstone.workloads.inside.tidier import Tidier
from keepstone.workloads.machines import machine_of
from tests.machines.dying import die
from tests.unit.files.points import provider

__all__: list[str] = []


def main(store: str, qmp: str, qga: str, point: str, path: str, base: str) -> None:
    env = Env(threads=2)
    opened = Store.open(env, FolderStorage(env, Path(store)), [provider()])
    plain = Inside._ask

    def ask(self: Inside, command: str, **arguments: Any) -> Any:
        answer = plain(self, command, **arguments)
        return die() if command == "guest-file-write" else answer

    mock.patch.object(Inside, "_ask", ask).start()
    with contextlib.ExitStack() as stack:
        found = opened.points.find(point)
        reader = stack.enter_context(opened.reader(found))
        disks = {disk.name.encode(): stack.enter_context(PointDisk(env, one)) for disk, one in machine_of(reader).disks}
        tree = stack.enter_context(looking_into(env, disks, found.record))
        address = QemuAddress(Path(qmp), Path(qga))
        tidier = stack.enter_context(Tidier(address))
        inside = stack.enter_context(Inside(env, address, holding=[tidier.pipe]))
        restore_into_guest(env, tree, inside, tidier, [Wanted(path.encode(), 2, base)], None, Silent())


if __name__ == "__main__":
    main(*sys.argv[1:])
