# SPDX-License-Identifier: Apache-2.0
"""A worker as a process of its own, which a test kills: `python -m tests.contract.job_worker URL NAME LOG`.

Its job takes steps, notes each in the log, and checkpoints behind it. It ends when it has run one job to its end.
"""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from pathlib import Path

from keepstone.catalogue import Database
from keepstone.env import Env
from keepstone.jobs import Context, JobQueue, Worker

LEASE = timedelta(seconds=1)
STEPS = 12


def main(url: str, name: str, log: Path) -> None:
    """See the module."""

    def steps(context: Context) -> None:
        for step in range((context.state or {"next": 0})["next"], STEPS):
            time.sleep(0.1)
            with log.open("a") as file:
                file.write(f"{name} {step}\n")
            context.checkpoint({"next": step + 1})

    env = Env()
    worker = Worker(JobQueue(Database(url), env, lease=LEASE), {"Steps": steps}, env, name)
    while not worker.run_one():
        time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
