# SPDX-License-Identifier: Apache-2.0
"""A point of the service as this machine reads it, for a job that it holds: sealed ones where the passphrase is, and
those of which a machine here has a snapshot from there, as far as that has it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from keepstone.agent.configuration import Configuration
from keepstone.agent.identity import Identity
from keepstone.agent.paths import Paths
from keepstone.agent.sealing import keys_for_restore
from keepstone.crypto import hashing
from keepstone.env import Env
from keepstone.errors import GuardRefused, UsageError
from keepstone.remote.calls import PATIENCE, Calls
from keepstone.remote.reader import RemoteReader
from keepstone.remote.sealed import Sealed
from keepstone.remote.service import HttpPoint
from keepstone.remote.veil import Plain, Veil
from keepstone.remote.wire import NEAR, Opened
from keepstone.store import SEALED, Reader

if TYPE_CHECKING:
    from keepstone.agent.job import Order, Report

__all__ = ["nearest", "reading"]


@contextmanager
def nearest(env: Env, order: Order, configuration: Configuration, report: Report) -> Iterator[Reader]:
    """The same, from the snapshot of this point where the service says that there is one, and `agent.toml` lets its
    machine be backed up. What came from there is told at the end."""
    work = order.work
    with reading(env, order, configuration, report) as reader:
        if work.arguments.get(NEAR) is not True or not _may_ask(order, configuration):
            yield reader
            return
        from keepstone.workloads.hypervisors.near import near_vm

        with near_vm(env, work.source, work.item, reader) as near:
            yield near or reader
            report.near = None if near is None else near.taken


def _may_ask(order: Order, configuration: Configuration) -> bool:
    """Whether the machine of this item is one that its hypervisor may be asked about."""
    try:
        Paths(configuration, order.folders.configuration, order.folders).hypervisor(order.work.source)
    except (GuardRefused, UsageError):
        return False
    return True


@contextmanager
def reading(
    env: Env, order: Order, configuration: Configuration, report: Report, *, patience: float = PATIENCE
) -> Iterator[RemoteReader]:
    """The point of this job. `patience`: seconds for which a service that is away is waited for; `WrongKey` before
    anything is read. From then on nothing of a sealed point is told to the service."""
    work = order.work
    identity = Identity.load(env, order.folders.state)
    calls = Calls(env, identity.url, identity.transfers, patience=patience, check=report.check)
    try:
        point = HttpPoint(calls, work.job, work.token)
        opened = point.open()
        with RemoteReader(env, point, opened, _veil(env, order, configuration, report, opened)) as reader:
            yield reader
    finally:
        calls.close()


def _veil(env: Env, order: Order, configuration: Configuration, report: Report, opened: Opened) -> Veil:
    """What opens the point."""
    work, plain = order.work, Plain(hashing(opened.hashing), opened.id_key)
    if opened.point.kind.startswith(SEALED):
        keyring = keys_for_restore(env, work, configuration)
        report.discreet = True
        return Sealed(keyring, work.item, opened.point.kind.removeprefix(SEALED), plain)
    if work.keys:
        report.warn(b"", f"this point of {work.name} is not sealed: what is in it is what the service says")
    return plain
