# SPDX-License-Identifier: Apache-2.0
"""Machines that run from a recovery point: to see whether it starts, and to go on from it at once."""

from __future__ import annotations

from keepstone.workloads.running.booting import Running, boot, move_running
from keepstone.workloads.running.command import Network
from keepstone.workloads.running.drilling import drill
from keepstone.workloads.running.launch import Launch, Limits
from keepstone.workloads.running.outcome import FileSystem, Outcome, Reached, State
from keepstone.workloads.running.point import startable
from keepstone.workloads.running.program import Accel

__all__ = [
    "Accel",
    "FileSystem",
    "Launch",
    "Limits",
    "Network",
    "Outcome",
    "Reached",
    "Running",
    "State",
    "boot",
    "drill",
    "move_running",
    "startable",
]
