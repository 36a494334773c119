# SPDX-License-Identifier: Apache-2.0
"""What a backup or a restore has in a QEMU, and taking it away again.

Whatever we make there has a name that begins with the prefix of the item and its store, so that one function finds all
of it: at the end of a backup, after a failure, and before the next one, for what a killed predecessor left. There is no
other way to take something away. Descriptors of files and the socket are handed over, and go with what uses them; the
files themselves have no names.

Invariants
* A bitmap goes only if it is none of `keep`: that of a point is kept until the next point is durable.
* What is not ours is not touched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from keepstone.env import Env
from keepstone.errors import KeepstoneError
from keepstone.workloads.kvm import qmp
from keepstone.workloads.kvm.aside import give_back
from keepstone.workloads.kvm.drives import bitmaps
from keepstone.workloads.kvm.monitor import Monitor, Refused

__all__ = ["TURN", "end_exports", "remove_nodes", "sweep", "take_away"]

TURN = 120.0
"""Seconds until whoever has the monitor now must be done with it."""


def take_away(kept: bool, monitor: str, prefix: str) -> None:
    """What the janitor does. It takes the monitor as soon as we have let go of it. Bitmaps stay: which of them a point
    needs, the next backup knows."""
    with contextlib.suppress(KeepstoneError), qmp.Monitor(Env(), Path(monitor), timeout=TURN) as opened:
        sweep(opened, prefix, None)


def sweep(monitor: Monitor, prefix: str, keep: Collection[str] | None) -> list[str]:
    """Take away everything with this prefix, but these bitmaps, or any; what was there. `Refused`, `Gone`."""
    swept = end_exports(monitor, prefix)
    swept += _jobs(monitor, prefix)
    give_back(monitor, prefix)
    swept += _nodes(monitor, prefix)
    for fdset in monitor.execute("query-fdsets"):
        if any(str(fd.get("opaque")).startswith(prefix) for fd in fdset["fds"]):
            with contextlib.suppress(Refused):  # it goes by itself when its last user has gone
                monitor.execute("remove-fd", fdset_id=fdset["fdset-id"])
    for node, named in bitmaps(monitor).items() if keep is not None else ():
        for name in named:
            if name.startswith(prefix) and keep is not None and name not in keep:
                monitor.execute("block-dirty-bitmap-remove", node=node, name=name)
                swept.append(name)
    return swept


def _ours(monitor: Monitor, query: str, key: str, prefix: str) -> list[dict[str, Any]]:
    return [found for found in monitor.execute(query) if str(found.get(key)).startswith(prefix)]


def end_exports(monitor: Monitor, prefix: str) -> list[str]:
    """End the exports with this prefix, and the server with the last of all; their names. `Refused`, `Gone`."""
    found = [export["id"] for export in _ours(monitor, "query-block-exports", "id", prefix)]
    for name in found:
        with contextlib.suppress(Refused):  # it is on its way out
            monitor.execute("block-export-del", id=name, mode="hard")
    monitor.wait(lambda: not _ours(monitor, "query-block-exports", "id", prefix), "the end of its exports")
    if found and not monitor.execute("query-block-exports"):
        with contextlib.suppress(Refused):
            monitor.execute("nbd-server-stop")
    return found


def _jobs(monitor: Monitor, prefix: str) -> list[str]:
    found: list[str] = []

    def over() -> bool:
        left = _ours(monitor, "query-jobs", "id", prefix)
        for job in left:
            with contextlib.suppress(Refused):  # it went on meanwhile
                if job["status"] == "concluded":
                    monitor.execute("job-dismiss", id=job["id"])
                elif job["id"] not in found:
                    monitor.execute("job-cancel", id=job["id"])
            found.append(job["id"])
        return not left

    monitor.wait(over, "the end of its jobs")
    return sorted(set(found))


def _nodes(monitor: Monitor, prefix: str) -> list[str]:
    """QEMU lists what was made last first."""
    found = [node["node-name"] for node in _ours(monitor, "query-named-block-nodes", "node-name", prefix)]
    remove_nodes(monitor, found)
    return found


def remove_nodes(monitor: Monitor, names: list[str]) -> None:
    """Remove nodes, those that stand on others first. `Refused`, `Gone`."""
    left = names
    while left:
        before, left = left, [name for name in left if not _deleted(monitor, name)]
        if len(left) == len(before):
            monitor.execute("blockdev-del", node_name=left[0])  # says why not


def _deleted(monitor: Monitor, node: str) -> bool:
    try:
        monitor.execute("blockdev-del", node_name=node)
    except Refused:
        return False
    return True
