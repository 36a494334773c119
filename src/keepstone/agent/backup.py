# SPDX-License-Identifier: Apache-2.0
"""A backup of something on this machine into its service's store."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from keepstone.agent.cache import DiskCache
from keepstone.agent.commands import Facts, Ran, around
from keepstone.agent.configuration import Configuration
from keepstone.agent.identity import Identity
from keepstone.agent.limits import Limits
from keepstone.agent.paths import Paths, Source
from keepstone.agent.sealing import ItemKeys, keys_for_backup
from keepstone.crypto import hashing
from keepstone.env import Env
from keepstone.errors import KeepstoneError, SourceMissing, Unsupported
from keepstone.remote.calls import Calls
from keepstone.remote.sealed import Sealed
from keepstone.remote.service import HttpSession
from keepstone.remote.veil import Plain
from keepstone.remote.wire import KEPT_DAYS, Begin, Begun, Work, decode, encode
from keepstone.remote.writer import RemoteWriter
from keepstone.store import DiskMemory

if TYPE_CHECKING:
    from keepstone.agent.job import Order, Report
    from keepstone.workloads.kvm import Keep

__all__ = ["backup"]

_log = logging.getLogger(__name__)
_TRIES = 5  # uploads that may be lost by the service
_MOST_DAYS = 30  # that a policy has, so nothing a service says keeps a snapshot for longer
_BUSY = 1.0  # seconds until a service that is busy is asked again: it has let this agent wait before it said so
FILES, DISKS = "FileFolder", "DiskImage"
MACHINE = "machine"


def backup(env: Env, order: Order, configuration: Configuration, report: Report, limits: Limits) -> None:
    """Make the point. What this machine does not allow is `GuardRefused`."""
    work = order.work
    path = str(work.source["path"])
    folders = order.folders
    paths = Paths(configuration, folders.configuration, folders)
    source = paths.source(path)
    if not source.path.exists():
        raise SourceMissing(f"there is no {path} on this machine; check the item, or stop its protection")
    keys = keys_for_backup(env, work, configuration, source.path)
    report.discreet = keys is not None
    identity = Identity.load(env, folders.state)
    throttle = limits.bandwidth(report.check)
    calls = Calls(env, identity.url, identity.transfers, check=report.check, throttle=throttle)
    cache = DiskCache(folders.cache / f"{work.item}.nodes", configuration.cache)
    facts = Facts(work.job, path)
    say = _told(report)
    try:
        with around(env, configuration.before, configuration.after, facts, say=say, check=report.check) as outcome:
            for tries in range(_TRIES):
                report.begin()
                for warning in outcome.warnings:
                    report.warn(b"", warning)
                try:
                    _once(env, order, source, paths, calls, cache, report, keys, configuration)
                    return
                except KeepstoneError as error:
                    if error.code == "PointMade":  # and the answer to its commit was lost
                        report.step("its point is in the vault already")
                        return
                    if error.code not in ("SessionLost", "LeaseLost", "WriterFailed") or tries == _TRIES - 1:
                        raise
                    _log.warning("the upload of %s begins anew: %s", path, error)
                    report.step(f"the upload begins anew: {error.code}")
            raise AssertionError
    finally:
        cache.close()
        calls.close()


def _once(
    env: Env,
    order: Order,
    source: Source,
    paths: Paths,
    calls: Calls,
    cache: DiskCache,
    report: Report,
    keys: ItemKeys | None,
    configuration: Configuration,
) -> None:
    work = order.work
    kind = _kind(work)
    if kind == MACHINE and keys is not None:
        raise Unsupported(
            f"'{work.name}' is a virtual machine, and those are not sealed in this version; leave it out of [sealed] "
            "in agent.toml"
        )
    begin = Begin(
        clock=env.wall_time(),
        job=work.job,
        token=work.token,
        kind=kind,
        sealed=keys is not None,
        keys=keys.text if keys is not None else "",
    )
    begun = _begin(env, calls, begin, report)
    report.step(f"reads {work.name}, and sends what the vault has not")
    plain = Plain(hashing(begun.hashing), begun.id_key)
    veil = plain if keys is None else Sealed(keys.keyring, work.item, kind, plain)
    remembered, most = order.folders.cache / "fingerprints", configuration.cache
    memory = DiskMemory(env, remembered, work.item, veil.derive, begun.parent_id, most=most)
    session = HttpSession(calls, begun.session)
    with RemoteWriter(env, session, begun, veil, cache=cache, memory=memory) as writer:
        for message in writer.messages:
            report.warn(b"", message)
        writer.messages = report.warnings
        if kind == "files":
            from keepstone.workloads.files import backup_files

            wanted = work.source
            selection = source.selection(
                exclude=wanted.get("exclude", ()),
                include=wanted.get("include", ()),
                one_file_system=wanted.get("oneFileSystem", False),
                skip_caches=wanted.get("excludeCaches", False),
            )
            backup_files(env, writer, os.fsencode(source.path), selection, report)
            return
        if kind == MACHINE:
            from keepstone.workloads.hypervisors.backup import backup_vm

            paths.hypervisor(work.source)
            snapshots = None if configuration.backup.snapshots is None else Path(configuration.backup.snapshots)
            keep = _keep(work, snapshots)
            # What its images are above, they name themselves.
            backup_vm(
                env, writer, work.source, report, owner=work.item, snapshots=snapshots, keep=keep,
                readable=lambda path: paths.source(str(path)),
            )  # fmt: skip
            report.kept = None if keep is None else keep.there
            return
        from keepstone.disks import open_disk
        from keepstone.workloads.images import backup_image

        # What else an image is made of, it names itself: this machine has to allow that as well.
        with open_disk(env, source.path, allowed=lambda path: paths.source(str(path))) as disk:
            backup_image(env, writer, disk, report, name=os.fsencode(source.path))


def _kind(work: Work) -> str:
    """Of which kind the points of an item are."""
    if work.workload == FILES:
        return "files"
    return MACHINE if "machine" in work.source else "images"


def _keep(work: Work, folder: Path | None) -> Keep | None:
    """The snapshot that stays of this point, where the service asks for one and this machine has a folder for it; None
    where nobody asked, as for a safety point: those that are there stay as they are then."""
    from keepstone.workloads.kvm import Keep

    days = work.arguments.get(KEPT_DAYS)
    if type(days) is not int:
        return None
    return Keep(0 if folder is None else max(0, min(days, _MOST_DAYS)))


def _begin(env: Env, calls: Calls, begin: Begin, report: Report) -> Begun:
    while True:
        try:
            return decode(calls.post("sessions/begin", encode(begin)), Begun)
        except KeepstoneError as error:
            if error.code != "TooManySessions":
                raise
        report.check()
        env.sleep(_BUSY)


def _told(report: Report) -> Callable[[Ran], None]:
    def say(ran: Ran) -> None:
        report.step(f"a command of the machine ran for {ran.seconds:.1f} s" + (", and failed" if ran.failed else ""))
        _log.info("%s: %s", " ".join(ran.argv), ran.failed or f"done in {ran.seconds:.1f} s")
        if ran.output:
            _log.info("%s", ran.output)

    return say
