# SPDX-License-Identifier: Apache-2.0
"""Looking into the file systems of disks: what `Tree` offers of a point of files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from keepstone.disks import BlockSource
from keepstone.env import Env
from keepstone.errors import CorruptObject
from keepstone.store import PointRecord, Reader
from keepstone.workloads.chunks import ChunkCache
from keepstone.workloads.content import Content
from keepstone.workloads.files import Entry, Tree
from keepstone.workloads.files.browse import Folder, Found
from keepstone.workloads.files.tree import listing
from keepstone.workloads.guestfiles.reader import REFUSED, GuestReader
from keepstone.workloads.guestfiles.wire import Volume
from keepstone.workloads.guestfiles.worker import Worker
from keepstone.workloads.images.point import PointDisk
from keepstone.workloads.machines import KIND, machine_of

__all__ = ["GuestTree", "disks_of", "guest_reader", "looking_into", "tree_of", "volumes"]

_FILES = "files"
_CACHE = 32 << 20  # bytes of files
_DISK = 32 << 20  # bytes of chunks of each disk


class GuestTree(Tree):
    """The tree of disks; see `reader.py`. A directory is one page, however many entries it has."""

    reader: GuestReader

    def content(self, found: Found) -> Content:
        """See `Tree`."""
        if found.entry.extra.flags & REFUSED:
            raise CorruptObject(
                "its content is kept in a way that cannot be read here (compacted, deduplicated, encrypted, or in a "
                "cloud); start the machine from this point to get at it"
            )
        return super().content(found)

    def _page(self, folder: Folder, number: int) -> list[tuple[Entry, list[int]]]:
        ref = folder.pages[number]
        page = self._pages.get(ref)
        if page is None:
            page = list(listing(self.reader, [ref], folder.path))
            self._pages.put(ref, page, sum(500 + len(entry.name) for entry, _ in page))
        return page


@contextmanager
def looking_into(env: Env, disks: Mapping[bytes, BlockSource], point: PointRecord) -> Iterator[GuestTree]:
    """Look into these disks of a point, by their names; a single one has none."""
    with GuestReader(env, disks, point) as reader, ChunkCache(env, reader, _CACHE) as chunks:
        yield GuestTree(reader, chunks)


def disks_of(reader: Reader) -> dict[bytes, Reader]:
    """What reads each disk of a point, by its name; a single one has none. `CorruptObject`, `HostileName`."""
    if reader.point.kind != KIND:
        return {b"": reader}
    return {disk.name.encode(): one for disk, one in machine_of(reader).disks}


@contextmanager
def guest_reader(env: Env, reader: Reader) -> Iterator[GuestReader]:
    """The files of the disks of a point. `CorruptObject` where it is no sound point of disks."""
    with ExitStack() as stack:
        disks = {
            name: stack.enter_context(PointDisk(env, part, cache=_DISK)) for name, part in disks_of(reader).items()
        }
        yield stack.enter_context(GuestReader(env, disks, reader.point))


@contextmanager
def tree_of(env: Env, reader: Reader, cache: int = 64 << 20) -> Iterator[Tree]:
    """The files of a point, whatever it is of. `cache`: bytes of them that are kept at most. As `guest_reader`."""
    with ExitStack() as stack:
        if reader.point.kind == _FILES:
            yield Tree(reader, stack.enter_context(ChunkCache(env, reader, cache)))
            return
        guest = stack.enter_context(guest_reader(env, reader))
        yield GuestTree(guest, stack.enter_context(ChunkCache(env, guest, cache)))


def volumes(env: Env, disk: BlockSource) -> list[Volume]:
    """What is on a disk: its volumes, and the file systems in them. What `Worker` raises."""
    with Worker(env, disk) as worker:
        return worker.volumes()
