# SPDX-License-Identifier: Apache-2.0
"""A backup that is killed at a step of it, and says nothing any more.

    python -m tests.machines.dying STORE QMP QGA FLEECING STEP [DAYS]

STEP: `before` or `after` a command of QMP, `reading`, `before commit`, `after commit`; `unwatched COMMAND` dies before
the command and has no watchdog; `paused COMMAND` stands still there until it is continued.
DAYS: for how many a snapshot is to stay.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from keepstone.disks.nbd import NbdSource
from keepstone.env import Env
from keepstone.objects import FolderStorage
from keepstone.store import Store
from keepstone.store.commits import Commits
from keepstone.workloads import Silent
from keepstone.workloads.kvm import Fleecing, Keep, Qemu, agent, backup_qemu
from keepstone.workloads.kvm.qmp import Monitor
from keepstone.workloads.machines import stillness
from tests.machines.yard import OWNER, RESERVE
from tests.unit.files.points import provider


def die(*_: object) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


class Unwatched:
    """No watchdog."""

    def __init__(self, connection: int, seconds: float) -> None: ...

    def dismiss(self) -> bool:
        return True

    def let_go(self) -> None: ...


def prepare(when: str, what: str) -> None:
    """Arrange that it dies there."""
    if when == "reading":
        mock.patch.object(NbdSource, "pread_into", die).start()
        return
    place: Any = Commits if what == "commit" else Monitor
    name = "publish" if what == "commit" else "execute"
    plain: Callable[..., Any] = getattr(place, name)

    def replaced(self: Any, command: str, *arguments: Any, **named: Any) -> Any:
        is_it = what in ("commit", command)
        if is_it and when in ("before", "unwatched"):
            die()
        if is_it and when == "paused":
            os.kill(os.getpid(), signal.SIGSTOP)
        answer = plain(self, command, *arguments, **named)
        return die() if is_it and when == "after" else answer

    setattr(place, name, replaced)
    if when == "unwatched":
        mock.patch.object(agent, "Watchdog", Unwatched).start()
    if when == "paused":
        stillness._LONGEST = -18.0  # with the time that a freeze may take: two seconds


def main(store: str, qmp: str, qga: str, fleecing: str, step: str, days: str = "") -> None:
    env = Env(threads=2)
    opened = Store.open(env, FolderStorage(env, Path(store)), [provider()])
    when, _, what = step.partition(" ")
    prepare(when, what)
    with opened.writer("vm", "machine") as writer:
        backup_qemu(
            env,
            writer,
            Qemu(Path(qmp), Path(qga)),
            Silent(),
            owner=OWNER,
            fleecing=Fleecing(Path(fleecing), RESERVE),
            keep=Keep(int(days)) if days else None,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
