# SPDX-License-Identifier: Apache-2.0
"""A new domain out of a point, whose maker is killed at a step of it.

    python -m tests.libvirt.making STORE URI FOLDER NAME JOB [STEP]

STEP: as in `dying`; `restoring`: at the end of the first disk, which is there and is no image yet.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec

from keepstone.disks.writing.file import NewFile
from keepstone.env import Env
from keepstone.objects import FolderStorage
from keepstone.store import Store
from keepstone.workloads import Silent
from keepstone.workloads.hypervisors.making import Wanted, make_domain
from keepstone.workloads.machines import PointOfMachine, machine_of
from keepstone.workloads.running import Network
from tests.libvirt.dying import die, prepare
from tests.unit.files.points import provider

__all__ = ["make"]


def make(env: Env, store: Store, uri: str, folder: Path, name: str, job: str, **told: Any) -> tuple[str, list[str]]:
    """Of the newest point; its UUID, and what is warned of. `told`: what that says of its machine instead."""
    progress = Silent()
    newest = max(store.points.list(), key=lambda point: point.record.started)
    with store.reader(newest) as reader:
        point = machine_of(reader)
        point = PointOfMachine(msgspec.structs.replace(point.about, **told), point.disks)
        wanted = Wanted(name=name, job=job, folder=folder, network=Network())
        made = make_domain(env, point, uri, wanted, progress, lambda path: path)
    assert made.connect == uri
    return made.uuid, [text for _, text in progress.warnings]


def main(store: str, uri: str, folder: str, name: str, job: str, step: str) -> None:
    env = Env(threads=2)
    when, _, what = step.partition(" ")
    if when == "restoring":
        mock.patch.object(NewFile, "seal", die).start()
    else:
        prepare(when, what)
    make(env, Store.open(env, FolderStorage(env, Path(store)), [provider()]), uri, Path(folder), name, job)


if __name__ == "__main__":
    main(*sys.argv[1:])
