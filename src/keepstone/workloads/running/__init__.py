# SPDX-License-Identifier: Apache-2.0
"""Machines that run from a recovery point."""

from __future__ import annotations

from keepstone.workloads.running.launch import Launch, Limits
from keepstone.workloads.running.program import Accel

__all__ = ["Accel", "Launch", "Limits"]
