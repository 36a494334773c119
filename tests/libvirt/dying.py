# SPDX-License-Identifier: Apache-2.0
"""A backup of a domain that is killed at a step of it, and says nothing any more.

    python -m tests.libvirt.dying STORE URI DOMAIN FLEECING STEP [DAYS]

STEP: `before` or `after` a verb of virsh (`freeze` and `thaw` are those of the agent) or a command of QEMU's monitor,
`reading`, `before commit`, `after commit`; `during` one: killed while virsh runs, which goes on by itself.
DAYS: for how many a snapshot is to stay.
"""

from __future__ import annotations

import os
import signal
import subprocess
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
from keepstone.workloads.kvm import Keep
from keepstone.workloads.libvirt import Virsh, backup_domain
from keepstone.workloads.machines.guard import Room
from tests.libvirt.yard import OWNER, RESERVE
from tests.unit.files.points import provider


def die(*_: object) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def prepare(when: str, what: str) -> None:
    """Arrange that it dies there."""
    if when == "reading":
        mock.patch.object(NbdSource, "pread_into", die).start()
        return
    place: Any = Commits if what == "commit" else Virsh
    name = "publish" if what == "commit" else "ask"
    plain: Callable[..., Any] = getattr(place, name)
    started = subprocess.Popen

    def replaced(self: Any, verb: str, *arguments: Any, **named: Any) -> Any:
        names = f'"guest-fsfreeze-{what}"', f'"{what}"'
        is_it = what in ("commit", verb) or any(name in str(word) for name in names for word in arguments)
        if is_it and when == "before":
            die()
        if is_it and when == "during":
            mock.patch.object(subprocess, "Popen", begin).start()
        answer = plain(self, verb, *arguments, **named)
        return die() if is_it and when == "after" else answer

    def begin(words: list[str], **named: Any) -> Any:
        late = ["sh", "-c", 'sleep 1; exec "$@"', "sh", *words]  # whoever does not wait for it comes first
        passed = {name: named[name] for name in ("pass_fds", "env")}
        started(late, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, **passed)
        die()

    setattr(place, name, replaced)


def main(store: str, uri: str, domain: str, fleecing: str, step: str, days: str = "") -> None:
    env = Env(threads=2)
    opened = Store.open(env, FolderStorage(env, Path(store)), [provider()])
    when, _, what = step.partition(" ")
    prepare(when, what)
    with opened.writer("vm", "machine") as writer:
        room = Room(env, Path(fleecing), RESERVE)
        keep = Keep(int(days)) if days else None
        backup_domain(env, writer, Virsh(uri), domain, Silent(), owner=OWNER, fleecing=room, keep=keep, snapshots=room)


if __name__ == "__main__":
    main(*sys.argv[1:])
