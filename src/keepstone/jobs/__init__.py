# SPDX-License-Identifier: Apache-2.0
"""What runs: a queue of jobs, workers that take them, and the schedules that ask for them."""

from __future__ import annotations

from keepstone.jobs.queue import ATTEMPTS, LEASE, Claim, JobQueue, Status, Wanted
from keepstone.jobs.scheduler import BACKUP, Plan, Plans, Scheduler
from keepstone.jobs.worker import Context, Handler, Worker

__all__ = [
    "ATTEMPTS",
    "BACKUP",
    "LEASE",
    "Claim",
    "Context",
    "Handler",
    "JobQueue",
    "Plan",
    "Plans",
    "Scheduler",
    "Status",
    "Wanted",
    "Worker",
]
