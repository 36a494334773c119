# SPDX-License-Identifier: Apache-2.0
"""What a backup has in a libvirt, and taking it away again.

A backup is one job of the domain, whose socket and files have names with the prefix of the item and its store, as its
checkpoint has.

Invariants
* A checkpoint goes only if it is none of `keep`: that of a point is kept until the next point is durable.
* What is not ours is not touched: neither a job of somebody else, nor the checkpoints of others.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from pathlib import Path

from keepstone.env import Env
from keepstone.errors import KeepstoneError
from keepstone.files import names_in
from keepstone.workloads.libvirt.checkpoints import checkpoints, drop
from keepstone.workloads.libvirt.keeping import clear
from keepstone.workloads.libvirt.markup import Element, parsed
from keepstone.workloads.libvirt.virsh import Gone, Refused, Virsh

__all__ = ["abort", "is_ours", "job", "sweep", "take_away"]

_PACE = 0.05
_SECOND = 10**9
_LONGEST = 60


def job(virsh: Virsh, uuid: str) -> Element | None:
    """The backup job of the domain as libvirt describes it; None where it has none. `Gone`."""
    with contextlib.suppress(Refused):
        return parsed(virsh.ask("backup-dumpxml", uuid), "the backup job")
    return None


def is_ours(found: Element, prefix: str) -> bool:
    """Whether this job is of this item and store."""
    server = found.find("server")
    return server is not None and Path(server.get("socket", "")).name.startswith(prefix)


def abort(env: Env, virsh: Virsh, uuid: str, prefix: str) -> bool:
    """End our job; whether there was one. `Gone`."""
    end = env.boot_time() + _LONGEST * _SECOND
    there = False
    while (found := job(virsh, uuid)) is not None and is_ours(found, prefix):
        there = True
        with contextlib.suppress(Refused):  # it ends already
            virsh.ask("domjobabort", uuid)
        if env.boot_time() > end:
            raise Gone(f"libvirt at {virsh.uri} does not get done with the end of its backup job; look at its log")
        env.sleep(_PACE)
    return there


def sweep(env: Env, virsh: Virsh, uuid: str, prefix: str, folder: Path, keep: Collection[str]) -> None:
    """Take away everything with this prefix, but these checkpoints; the domain has to run. `Refused`, `Gone`,
    `SourceMissing`."""
    abort(env, virsh, uuid, prefix)
    drop(virsh, uuid, [name for name in checkpoints(virsh, uuid) if name.startswith(prefix) and name not in keep])
    _forget(env, folder, prefix)  # where the daemon had no time to do it


def take_away(kept: bool, uri: str, uuid: str, folder: str, checkpoint: str) -> None:
    """What the janitor does, for the one backup that has this checkpoint. `kept`: the checkpoint itself stays, since
    there may be a point that needs it."""
    env, virsh = Env(), Virsh(uri)
    with contextlib.suppress(KeepstoneError):
        abort(env, virsh, uuid, checkpoint)
        if not kept and checkpoint in checkpoints(virsh, uuid):
            drop(virsh, uuid, [checkpoint])
        clear(env, virsh, uuid, f"{checkpoint.rpartition('-')[0]}-")
    _forget(env, Path(folder), checkpoint)


def _forget(env: Env, folder: Path, prefix: str) -> None:
    with contextlib.suppress(OSError):
        for name in names_in(env.fs, folder, prefix):
            with contextlib.suppress(OSError):
                env.fs.unlink(folder / name)
