# SPDX-License-Identifier: Apache-2.0
"""A backup that is interrupted, at every operation on the storage and after every call of the file system."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from typing import Any

import pytest

from keepstone.cli import main
from keepstone.env import Env, FileSystem
from keepstone.objects.syscalls import rename_noreplace
from tests.cli.running import Cli

pytestmark = pytest.mark.store

INTERRUPTED = 130
CALLS = {name: call for name, call in vars(FileSystem).items() if isinstance(call, staticmethod)}
STAGES = {"put leases/": "writing", "put commits/": "deciding", "delete leases/": "over"}


class Interrupter:
    """Interrupts the main thread as a signal does, at the operation or after the call that is the `left`-th since the
    lease was begun. `stage`: how far the backup is."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.left = 0
        self.stage = ""
        patch.setattr(Env, "step", lambda _, what: self._step(what))
        for name, call in CALLS.items():
            patch.setattr(FileSystem, name, staticmethod(self._after(call.__func__)))
        patch.setattr("keepstone.objects.folder.rename_noreplace", self._after(rename_noreplace))

    def _step(self, what: str) -> None:
        if self.left:
            at = STAGES.get(what.partition("/")[0] + "/")
            if at and not (at == "over" and self.stage == "writing"):  # that would be its being given up
                self.stage = at
            self._count()

    def _after(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            result = call(*arguments, **named)
            self._count()
            return result

        return called

    def _count(self) -> None:
        if self.stage and self.left and threading.current_thread() is threading.main_thread():
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt


def test_a_backup_that_is_interrupted_anywhere_leaves_no_lease(made: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for one whose point may be there without its entry in the log: whoever finds the lease writes that."""
    made.backup(made.disk(seed=1), "--item", "before")
    disk, template = made.disk(), made.path / "template"
    made.store.rename(template)
    interrupter = Interrupter(monkeypatch)
    stages: list[str] = []
    interrupted = True
    while interrupted:
        shutil.copytree(template, made.store)
        interrupter.left, interrupter.stage = len(stages) + 1, ""
        code = main(["store", "backup", "--store", str(made.store), str(disk), "--item", "item"])
        interrupted, interrupter.left = not interrupter.left, 0
        stages.append(interrupter.stage)

        where = f"interrupted at {len(stages)}, {interrupter.stage}"
        assert code == (INTERRUPTED if interrupted else 0), where
        leases, points = len(list((made.store / "leases").glob("*"))), len(made.points())
        expected = {"writing": {(0, 1)}, "deciding": {(1, 1), (1, 2), (0, 2)}, "over": {(0, 2)}}
        assert (leases, points) in expected[interrupter.stage], where
        assert {path.name for path in (made.store / "tmp").iterdir()} <= {"reserve"}, where
        assert made("verify", "--deep", "--json").json["ok"] is True, where
        shutil.rmtree(made.store)
        shutil.rmtree(made.home / "cache")  # else the next one is a store that was rolled back

    assert min(map(stages.count, ("writing", "deciding", "over"))) > 5
