# SPDX-License-Identifier: Apache-2.0
"""Files of a machine's point, back into its guest on this host, where its `agent.toml` allows it.

Invariants
* `restore.allow` has what the machine's guest agent is reached by, of QEMU the monitor as well: through it somebody
  writes to the guest as its root. It is looked at before anything of the point is read.
* A second attempt, after the end of the agent in the middle, goes on where the first one was: what is in the guest as
  the point has it is taken for its work (`workloads/inside/restore.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from keepstone.agent.configuration import Configuration
from keepstone.agent.paths import Paths
from keepstone.agent.reading import reading
from keepstone.env import Env
from keepstone.workloads.escaping import unescaped
from keepstone.workloads.files import Conflict
from keepstone.workloads.guestfiles.tree import guest_reader
from keepstone.workloads.hypervisors import QemuAddress, address_of
from keepstone.workloads.inside import files_back

if TYPE_CHECKING:
    from keepstone.agent.job import Order, Report

__all__ = ["into_guest"]

_DEPTH = 2  # components of a path that name disk and volume


def into_guest(env: Env, order: Order, configuration: Configuration, report: Report) -> str:
    """Do it; where to. `GuardRefused`, and what `files_back` raises."""
    work = order.work
    wanted = work.arguments
    address = address_of(wanted["address"])
    paths = Paths(configuration, order.folders.configuration, order.folders)
    paths.target(address.place)
    if isinstance(address, QemuAddress):
        paths.target(str(address.agent or Path()))
    conflict = None if wanted["conflict"] is None else Conflict(wanted["conflict"])
    report.step(f"writes into the guest, to {wanted['guest'] or 'where it came from'}")
    with reading(env, order, configuration, report) as reader, guest_reader(env, reader) as files:
        files_back(
            env, files, address, [unescaped(path) for path in wanted["paths"]], _DEPTH, wanted["guest"], conflict,
            report, again=work.attempt > 1,
        )  # fmt: skip
    return f"the guest of {work.name}, {wanted['guest'] or 'to where they came from'}"
