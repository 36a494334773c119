# SPDX-License-Identifier: Apache-2.0
"""A worker of an installation in a process of its own, to be killed.

    python worker_process.py ROOT [STEP]

Its lease lasts a second. With STEP it kills itself there: `begun`, when the handler begins; `committed`, when the point
is in the store and the catalogue does not know of it yet; `recorded`, when the job is over; `opened`, when a restore
begins and has not looked at its target yet; `halfway`, when it has written some megabytes; `restored`, when it has
written all, and its job is not over; `published`, when one into a guest has brought its second file to its place.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from keepstone.control.installation import Installation
from keepstone.control.work import handlers
from keepstone.env import Env
from keepstone.jobs import JobQueue, Worker

LEASE = timedelta(seconds=1)


def _die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    root, step = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""
    plane = Installation(Env(), root).plane()
    module: Any = sys.modules["keepstone.control.work.backup"]
    work: Any = sys.modules["keepstone.control.work.restore"]
    if step == "begun":
        module._make = _die
    elif step == "committed":
        module.remember = _die
    elif step == "recorded":
        module.retention.apply = _die
    elif step == "opened":
        work.nearest = _die
    elif step == "halfway":
        reporter: Any = sys.modules["keepstone.control.work.reporter"].Reporter
        advance, written = reporter.advance, itertools.count(1)

        def advancing(self: Any, size: int, files: int = 0, reused: int = 0) -> None:
            advance(self, size, files, reused)
            if files and next(written) == 10:
                _die()

        reporter.advance = advancing
    elif step == "restored":
        real = work.restore_point
        work.restore_point = lambda *given, **more: _die(real(*given, **more))
    elif step == "published":
        from keepstone.workloads.inside import restore as into_guest

        publish, published = into_guest._Restore._publish, itertools.count(1)

        def publishing(self: Any, place: str, item: Any) -> None:
            publish(self, place, item)
            if next(published) == 2:
                _die()

        # A worker has to die between two files, where nothing else can be reached from outside.
        into_guest._Restore._publish = publishing  # type: ignore[method-assign]
    queue = JobQueue(plane.database, plane.env, lease=LEASE)
    print("ready", flush=True)
    Worker(queue, handlers(plane), plane.env, f"worker {os.getpid()}").run_one()


if __name__ == "__main__":
    main()
