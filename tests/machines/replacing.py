# SPDX-License-Identifier: Apache-2.0
"""A replacement that is killed at a step of it.

    python -m tests.machines.replacing STORE QMP POINT STEP

STEP: `after` a command of QMP, `before write` or `after write` of the first blocks.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from unittest import mock

from keepstone.disks.nbd import NbdSink
from keepstone.env import Env
from keepstone.objects import FolderStorage
from keepstone.store import Store
from keepstone.workloads import Silent
from keepstone.workloads.kvm import Qemu, replace_disks
from keepstone.workloads.machines import machine_of
from tests.machines.dying import die, prepare
from tests.unit.files.points import provider

__all__: list[str] = []


def main(store: str, qmp: str, point: str, step: str) -> None:
    env = Env(threads=2)
    opened = Store.open(env, FolderStorage(env, Path(store)), [provider()])
    when, _, what = step.partition(" ")
    if what != "write":
        prepare(when, what)
    elif when == "before":
        mock.patch.object(NbdSink, "write", die).start()
    else:
        plain = NbdSink.write

        def write(self: NbdSink, offset: int, data: Any) -> None:
            plain(self, offset, data)
            die()

        mock.patch.object(NbdSink, "write", write).start()
    with opened.reader(opened.points.find(point)) as reader:
        replace_disks(env, Qemu(Path(qmp)), machine_of(reader), Silent())


if __name__ == "__main__":
    main(*sys.argv[1:])
