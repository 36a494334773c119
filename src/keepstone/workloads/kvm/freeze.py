# SPDX-License-Identifier: Apache-2.0
"""A moment at which a guest of QEMU holds still."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from keepstone.env import Env
from keepstone.workloads.kvm.agent import Agent, AgentFailed
from keepstone.workloads.machines import Consistency, Level
from keepstone.workloads.machines.stillness import hold_still

__all__ = ["frozen"]

_ANSWER = 5.0  # seconds until a guest without an agent counts as one
_FREEZE = 20.0  # an agent writes back what is dirty first


def frozen(
    env: Env,
    socket: Path | None,
    moment: Callable[[], None],
    warn: Callable[[str], None],
    *,
    answer: float = _ANSWER,
    freeze: float = _FREEZE,
) -> Consistency:
    """See `hold_still`. `socket`: the agent's."""
    if socket is None:
        moment()
        return Consistency(Level.CRASH, "no guest agent was named")
    try:
        agent = Agent(env, socket, timeout=answer)
    except AgentFailed as error:
        moment()
        return Consistency(Level.CRASH, str(error))
    try:
        return hold_still(env, agent, moment, warn, answer, freeze)
    finally:
        agent.close()
