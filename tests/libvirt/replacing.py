# SPDX-License-Identifier: Apache-2.0
"""A replacement in a domain that is killed at a step of it.

    python -m tests.libvirt.replacing STORE URI DOMAIN POINT STEP

STEP: `before` or `after` the N-th time that a verb of virsh is asked for (`before define 2`), or `write` of the first
blocks.
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
from keepstone.workloads.libvirt import Virsh, replace_domain
from keepstone.workloads.machines import machine_of
from tests.libvirt.dying import die
from tests.unit.files.points import provider

__all__: list[str] = []


def _prepare(when: str, what: str, count: int) -> None:
    place: Any = NbdSink if what == "write" else Virsh
    name = "write" if what == "write" else "ask"
    plain = getattr(place, name)
    left = [count]

    def replaced(self: Any, verb: Any, *arguments: Any, **named: Any) -> Any:
        mine = what in (verb, "write")
        left[0] -= mine
        is_it = mine and left[0] == 0
        if is_it and when == "before":
            die()
        answer = plain(self, verb, *arguments, **named)
        return die() if is_it else answer

    mock.patch.object(place, name, replaced).start()


def main(store: str, uri: str, domain: str, point: str, step: str) -> None:
    env = Env(threads=2)
    opened = Store.open(env, FolderStorage(env, Path(store)), [provider()])
    when, what, *count = step.split()
    _prepare(when, what, int(count[0]) if count else 1)
    with opened.reader(opened.points.find(point)) as reader:
        replace_domain(env, Virsh(uri), domain, machine_of(reader), Silent())


if __name__ == "__main__":
    main(*sys.argv[1:])
