# SPDX-License-Identifier: Apache-2.0
"""A moment at which the guest holds still.

Invariants
* The guest is thawed on every way out: by us, or by the watchdog, which was started before the freeze was asked for.
  It thaws when we die, when we let go because the agent does not answer, and when its time is over.
* Before anything is frozen, what a dead predecessor may have left frozen is thawed.
* A point is called consistent only if the file systems were still frozen after its moment: the agent says how many
  it thaws, and none means that somebody else did before us (Windows does after ten seconds).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from keepstone.env import Env
from keepstone.errors import SourceFailed
from keepstone.workloads.machines.root import Consistency, Level
from keepstone.workloads.machines.watchdog import Watchdog

__all__ = ["Agent", "AgentFailed", "AgentRefused", "hold_still"]

_THAW = 20.0
_OTHERS = 3.0  # how long somebody else's freeze may take before it counts as left behind
_LONGEST = 30.0
_SECOND = 10**9


class AgentFailed(SourceFailed):
    """The agent does not do what was asked; the message says why."""


class AgentRefused(AgentFailed):
    """It answers that it does not, and listens to what comes next."""


class Agent(Protocol):
    """The agent in a guest, however it is reached (QEMU, docs/interop/qemu-ga-ref)."""

    def ask(self, command: str, *, timeout: float) -> Any:
        """What the agent returns within these seconds. `AgentFailed`, `AgentRefused`."""

    def watched(self, seconds: float) -> Watchdog:
        """What thaws the guest if we do not within these seconds. `OSError`."""


def hold_still(
    env: Env, agent: Agent, moment: Callable[[], None], warn: Callable[[str], None], answer: float, freeze: float
) -> Consistency:
    """Call `moment` while the file systems of the guest are frozen, or as they are where that cannot be had.

    `answer`, `freeze`: seconds that the agent may take to answer at all, and to freeze. Returns what the moment is
    worth; raises what `moment` raises, and leaves the guest thawed then too.
    """
    try:
        _left_behind(env, agent, warn, answer)
        watchdog = agent.watched(freeze + _LONGEST)
    except (AgentFailed, OSError) as error:
        moment()
        return Consistency(Level.CRASH, str(error))
    listens = True  # the agent does
    reason = ""
    count = thawed = 0
    begun = env.boot_time()
    try:
        try:
            count = _count(agent.ask("guest-fsfreeze-freeze", timeout=freeze))
            begun = env.boot_time()
        except AgentFailed as error:
            reason, listens = str(error), isinstance(error, AgentRefused)
        try:
            moment()
        finally:
            if listens:
                listens, thawed = _thaw(agent)
            if listens and not watchdog.dismiss():
                reason = "the guest stood still for too long, and was thawed before all disks were held"
    finally:
        watchdog.let_go()  # which means nothing to one that was dismissed
    took = env.boot_time() - begun
    if not listens:
        warn("the guest agent does not answer when it is to thaw; a process of its own goes on trying")
        reason = reason or "the guest agent does not say whether the guest stayed frozen"
    if not reason and count == 0:
        reason = "the guest agent found no file system to freeze"
    if not reason and not thawed:
        reason = "the guest did not stay frozen until all disks were held"
    return Consistency(Level.CRASH, reason) if reason else Consistency(Level.APPLICATION, "", took)


def _left_behind(env: Env, agent: Agent, warn: Callable[[str], None], answer: float) -> None:
    """Thaw what nobody else thaws."""
    end = env.boot_time() + int(_OTHERS * _SECOND)
    while agent.ask("guest-fsfreeze-status", timeout=answer) == "frozen":
        if env.boot_time() > end:
            agent.ask("guest-fsfreeze-thaw", timeout=_THAW)
            warn("the guest was frozen already, and is thawed now; an earlier backup of it was killed")
            return
        env.sleep(0.05)


def _thaw(agent: Agent) -> tuple[bool, int]:
    """(whether the agent did it, how many file systems it thawed)."""
    try:
        return True, _count(agent.ask("guest-fsfreeze-thaw", timeout=_THAW))
    except AgentRefused:
        return True, 0  # VSS says so where it has thawed by itself
    except AgentFailed:
        return False, 0


def _count(answer: object) -> int:
    if not isinstance(answer, int):
        raise AgentFailed(f"the guest agent gives no number of file systems but {str(answer)[:100]!r}")
    return answer
