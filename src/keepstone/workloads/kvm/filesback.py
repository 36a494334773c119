# SPDX-License-Identifier: Apache-2.0
"""Files of a machine's point back into its guest: where each path goes to, and the restore there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from keepstone.env import Env
from keepstone.errors import UsageError
from keepstone.workloads.chunks import ChunkCache
from keepstone.workloads.escaping import escaped
from keepstone.workloads.files import Conflict
from keepstone.workloads.guestfiles.reader import IMAGE, GuestReader
from keepstone.workloads.guestfiles.tree import GuestTree
from keepstone.workloads.kvm.inside import Inside
from keepstone.workloads.kvm.intoguest import IntoGuest, Wanted, restore_into_guest
from keepstone.workloads.kvm.mounts import mounted
from keepstone.workloads.kvm.qmp import Monitor
from keepstone.workloads.progress import Progress

__all__ = ["files_back"]

_CHUNKS = 32 << 20  # bytes of files


def files_back(
    env: Env,
    guest: GuestReader,
    monitor: Path,
    agent: Path,
    paths: Sequence[bytes],
    depth: int,
    target: str | None,
    conflict: Conflict | None,
    progress: Progress,
    *,
    begins: Callable[[], None] = lambda: None,
    again: bool = False,
) -> IntoGuest:
    """Restore these files and folders to where they came from, or beneath the folder `target` of the guest. `monitor`,
    `agent`: the sockets of the machine; `depth`: how many components of a path name its disk and its volume.
    `conflict`, `begins`, `again` and what is raised: see `restore_into_guest`; `NotFound` also for a volume of which
    nobody knows where it is mounted."""
    with contextlib.ExitStack() as stack:
        inside = stack.enter_context(Inside(env, agent))
        bases = dict(_bases(env, monitor, inside, paths)) if target is None else {}
        wanted = [Wanted(path, depth, target or bases[path], special=target is None) for path in paths]
        tree = GuestTree(guest, stack.enter_context(ChunkCache(env, guest, _CHUNKS)))
        return restore_into_guest(env, tree, inside, wanted, conflict, progress, begins=begins, again=again)


def _bases(env: Env, machine: Path, inside: Inside, paths: Sequence[bytes]) -> Iterator[tuple[bytes, str]]:
    """For each path, where the guest has its volume mounted."""
    known: dict[tuple[str, str], str] = {}
    with Monitor(env, machine) as monitor:
        for path in paths:
            disk, _, rest = path.strip(b"/").partition(b"/")
            volume = rest.partition(b"/")[0]
            if not volume or volume == IMAGE:
                raise UsageError(f"{escaped(path)} is a disk; give files and folders of a volume, as vda/1/etc/fstab")
            place = disk.decode("utf-8", "replace"), volume.decode("utf-8", "replace")
            if place not in known:
                known[place] = mounted(monitor, inside, *place)
            yield path, known[place]
