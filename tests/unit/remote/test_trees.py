# SPDX-License-Identifier: Apache-2.0
"""Trees through the wire: points and restores are the same, in every attribute, as those of a store that is here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from keepstone.store import Reader
from keepstone.workloads import Silent
from keepstone.workloads.files import RestoreOptions, restore_files
from tests.unit.files.backed import World
from tests.unit.files.points import new_store
from tests.unit.files.trees import make_tree, snapshot

from .far import Far

pytestmark = [
    pytest.mark.agents,
    pytest.mark.skipif(os.geteuid() != 0, reason="owners, devices and capabilities can only be made by root"),
]


def restored(env: World, reader: Reader, target: Path) -> dict[bytes, dict[str, object]]:
    progress = Silent()
    report = restore_files(env, reader, target, RestoreOptions(), progress)
    assert (report.failed, report.warnings, progress.warnings) == ([], [], [])
    return snapshot(target)


@pytest.mark.parametrize("threads", [0, 2])
def test_everything_comes_back(tmp_path: Path, threads: int) -> None:
    env = World(threads=threads)
    make_tree(tmp_path / "source")
    far = Far(env, new_store(env))

    report = far.back_up(tmp_path / "source")

    wanted = snapshot(tmp_path / "source")
    assert restored(env, far.store.reader(far.point(report.commit)), tmp_path / "near") == wanted
    assert restored(env, far.reader(report.commit), tmp_path / "far") == wanted
    assert far.store.verify(deep=True).ok
