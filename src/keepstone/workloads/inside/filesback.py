# SPDX-License-Identifier: Apache-2.0
"""Files of a machine's point back into its guest: where each path goes to, and the restore there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from keepstone.env import Env
from keepstone.errors import UsageError
from keepstone.workloads.chunks import ChunkCache
from keepstone.workloads.escaping import escaped
from keepstone.workloads.files import Conflict
from keepstone.workloads.guestfiles.reader import IMAGE, GuestReader
from keepstone.workloads.guestfiles.tree import GuestTree
from keepstone.workloads.hypervisors import LibvirtAddress, VmAddress
from keepstone.workloads.inside.guest import Inside
from keepstone.workloads.inside.restore import IntoGuest, Wanted, restore_into_guest
from keepstone.workloads.inside.tidier import Tidier
from keepstone.workloads.kvm.mounts import mounts
from keepstone.workloads.kvm.qmp import Monitor
from keepstone.workloads.libvirt import Virsh, find
from keepstone.workloads.libvirt.alone import alone
from keepstone.workloads.libvirt.mounts import mounts as mounts_of_domain
from keepstone.workloads.machines.mounts import Mount, mounted
from keepstone.workloads.progress import Progress

__all__ = ["files_back", "mounts_of"]

_CHUNKS = 32 << 20  # bytes of files


def files_back(
    env: Env,
    guest: GuestReader,
    address: VmAddress,
    paths: Sequence[bytes],
    depth: int,
    target: str | None,
    conflict: Conflict | None,
    progress: Progress,
    *,
    begins: Callable[[], None] = lambda: None,
    again: bool = False,
) -> IntoGuest:
    """Restore these files and folders to where they came from, or beneath the folder `target` of the guest. `depth`:
    how many components of a path name its disk and its volume. `conflict`, `begins`, `again` and what is raised: see
    `restore_into_guest` and `Inside`; `errors.Conflict` where somebody else does it to this guest now, `NotFound` also
    for a volume of which nobody knows where it is mounted."""
    with contextlib.ExitStack() as stack:
        address, held = stack.enter_context(_alone(address))
        tidier = stack.enter_context(Tidier(address, holding=held))
        inside = stack.enter_context(Inside(env, address, holding=[tidier.pipe]))
        bases = dict(_bases(env, address, inside, paths)) if target is None else {}
        wanted = [Wanted(path, depth, target or bases[path], special=target is None) for path in paths]
        tree = GuestTree(guest, stack.enter_context(ChunkCache(env, guest, _CHUNKS)))
        return restore_into_guest(env, tree, inside, tidier, wanted, conflict, progress, begins=begins, again=again)


@contextlib.contextmanager
def _alone(address: VmAddress) -> Iterator[tuple[VmAddress, list[int]]]:
    """The machine, and what nobody else has as long as files are put into it. QEMU's sockets have one client each."""
    if not isinstance(address, LibvirtAddress):
        yield address, []
        return
    domain = find(Virsh(address.connect), address.uuid)
    taken = f"files are put back into the guest of {domain.name} already"
    with alone(f"keepstone-inside-{domain.uuid}", taken) as held:
        yield LibvirtAddress(domain.uuid, address.connect), [held]


def mounts_of(env: Env, address: VmAddress, inside: Inside) -> list[Mount]:
    """What the guest of this machine has mounted of its disks."""
    if isinstance(address, LibvirtAddress):
        return list(mounts_of_domain(Virsh(address.connect), address.uuid))
    with Monitor(env, address.monitor) as monitor:
        return list(mounts(monitor, inside.filesystems()))


def _bases(env: Env, address: VmAddress, inside: Inside, paths: Sequence[bytes]) -> Iterator[tuple[bytes, str]]:
    """For each path, where the guest has its volume mounted."""
    known: list[Mount] | None = None
    for path in paths:
        disk, _, rest = path.strip(b"/").partition(b"/")
        volume = rest.partition(b"/")[0]
        if not volume or volume == IMAGE:
            raise UsageError(f"{escaped(path)} is a disk; give files and folders of a volume, as vda/1/etc/fstab")
        known = mounts_of(env, address, inside) if known is None else known
        yield path, mounted(known, disk.decode("utf-8", "replace"), volume.decode("utf-8", "replace"))
