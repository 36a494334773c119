# SPDX-License-Identifier: Apache-2.0
"""A restore of a point to this machine, where its `agent.toml` allows it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from keepstone.agent.configuration import Configuration
from keepstone.agent.identity import Identity
from keepstone.agent.paths import Paths
from keepstone.agent.sealing import keys_for_restore
from keepstone.crypto import hashing
from keepstone.env import Env
from keepstone.remote.calls import Calls, HttpPoint
from keepstone.remote.reader import RemoteReader
from keepstone.remote.sealed import Sealed
from keepstone.remote.veil import Plain, Veil
from keepstone.remote.wire import Opened
from keepstone.store import SEALED
from keepstone.workloads.restoring import restore_point

if TYPE_CHECKING:
    from keepstone.agent.job import Order, Report

__all__ = ["restore"]


def restore(env: Env, order: Order, configuration: Configuration, report: Report) -> tuple[Path, bool]:
    """Where to it went, and whether something was left out."""
    work = order.work
    folders = order.folders
    paths = Paths(configuration, folders.configuration, folders)

    def allowed(target: Path) -> Path:
        found = paths.target(str(target))
        if target.is_relative_to(folders.restored):  # what is there is this agent's alone
            folders.restored.mkdir(mode=0o700, parents=True, exist_ok=True)
        return found

    identity = Identity.load(env, folders.state)
    calls = Calls(env, identity.url, identity.context, check=report.check)
    try:
        point = HttpPoint(calls, work.job, work.token)
        opened = point.open()
        veil: Veil = _veil(env, order, configuration, report, opened)
        with RemoteReader(env, point, opened, veil) as reader:
            return restore_point(env, reader, work.arguments, allowed, report)
    finally:
        calls.close()


def _veil(env: Env, order: Order, configuration: Configuration, report: Report, opened: Opened) -> Veil:
    """What opens the point; `WrongKey` before anything is read or written."""
    work, plain = order.work, Plain(hashing(opened.hashing), opened.id_key)
    if opened.point.kind.startswith(SEALED):
        keyring = keys_for_restore(env, work, configuration)
        report.discreet = True
        return Sealed(keyring, work.item, opened.point.kind.removeprefix(SEALED), plain)
    if work.keys:
        report.warn(b"", f"this point of {work.name} is not sealed: what is in it is what the service says")
    return plain
