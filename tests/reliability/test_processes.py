# SPDX-License-Identifier: Apache-2.0
"""Writers, readers and collectors of one store in separate processes, without a lock; one writer is killed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from .processes import open_store, restore

pytestmark = pytest.mark.store

_SECONDS = 8.0


def test_many_processes_on_one_store(tmp_path: Path) -> None:
    folder = str(tmp_path / "store")
    open_store(folder, create=True)
    roles = ["write", "write", "write", "read", "collect", "collect"]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.reliability.processes", role, folder, str(_SECONDS), str(seed)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for seed, role in enumerate(roles)
    ]
    time.sleep(_SECONDS / 2)
    running[2].kill()
    outputs = [process.communicate(timeout=120) for process in running]

    assert [process.returncode for process in running] == [0, 0, -9, 0, 0, 0], [error for _, error in outputs]
    lines = [line.split() for output, _ in outputs for line in output.splitlines()]
    acknowledged = {line[1]: [int(number) for number in line[2:]] for line in lines if line[0] == "point"}
    forgotten = {line[1] for line in lines if line[0] == "forget"}
    swept = sum(int(line[1]) for line in lines if line[0] == "reclaim")
    store = open_store(folder)
    visible = {point.id: restore(store, point) for point in store.points.list()}
    assert {commit: numbers for commit, numbers in acknowledged.items() if commit not in forgotten} == {
        commit: visible.get(commit) for commit in acknowledged if commit not in forgotten
    }
    assert len(acknowledged) > 5
    assert swept > 0
    assert any(line[0] == "read" for line in lines)
    store.reclaim()
    assert store.verify(deep=True).findings == []
    assert list(store.context.storage.list("leases/")) == [], "the killed writer's lease was not taken away"
    assert visible == {point.id: restore(store, point) for point in store.points.list()}
    print(f"points {len(acknowledged)}, forgotten {len(forgotten)}, packs swept {swept}")
