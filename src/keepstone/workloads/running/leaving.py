# SPDX-License-Identifier: Apache-2.0
"""Asking a guest to shut down."""

from __future__ import annotations

import contextlib
from pathlib import Path

from keepstone.env import Env
from keepstone.workloads.kvm.agent import Agent, AgentFailed, AgentRefused
from keepstone.workloads.kvm.qmp import Monitor, Refused

__all__ = ["ask_down"]

_ANSWERS = 1.0  # seconds in which an agent answers that is there
_REFUSES = 0.2  # seconds in which it says that it does not; of what it does it says nothing


def ask_down(env: Env, monitor: Monitor, agent: Path) -> None:
    """By its agent where that answers, else by the button that switches a machine off. `Gone`."""
    if not _asked(env, agent):
        with contextlib.suppress(Refused):
            monitor.execute("system_powerdown")


def _asked(env: Env, path: Path) -> bool:
    try:
        agent = Agent(env, path, timeout=_ANSWERS)
    except AgentFailed:
        return False
    with contextlib.closing(agent):
        try:
            agent.ask("guest-shutdown", timeout=_REFUSES)
        except AgentRefused:
            return False
        except AgentFailed:
            pass
        return True
