# SPDX-License-Identifier: Apache-2.0
"""The way of a backup through a tree: depth first, in order of names, beside the parent point.

A page of a directory is compared with the parent's as a whole; only where it differs are its entries looked at one by one. Files that have to be
read are handed on in batches or, long ones, in pieces; their pages wait for them. What is in memory is the way down, the pages that
wait, and what is being read: it does not grow with the tree.

Everything here runs on one thread, also what the writer calls back; only reading is done by workers.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import msgspec

from keepstone.env import Env
from keepstone.errors import CorruptObject, KeepstoneError
from keepstone.store import SEGMENT, Writer
from keepstone.workloads.files.batch import Batch, BatchRead
from keepstone.workloads.files.draft import Draft
from keepstone.workloads.files.earlier import SLACK, Earlier, EarlierPage, Found
from keepstone.workloads.files.folders import Folder, Folders
from keepstone.workloads.files.intake import Intake, Item, Taken, is_fatal
from keepstone.workloads.files.links import Links
from keepstone.workloads.files.metadata import Attributes, link_of, special
from keepstone.workloads.files.page import Extra, split_names
from keepstone.workloads.files.scan import DIRECTORY, REGULAR, Listing, first_page, later_page
from keepstone.workloads.files.selection import CACHE_TAG, Rules
from keepstone.workloads.files.stream import Stream
from keepstone.workloads.progress import Progress

__all__ = ["Tally", "Traversal", "Visit"]

_GONE = {errno.ENOENT, errno.ESTALE}
_OTHER_KIND = {errno.ELOOP, errno.ENOTDIR, errno.ENXIO}
_TRIES = 3
_NO_EXTRA = Extra()


@dataclass(slots=True)
class Tally:
    """What was seen. `size`: bytes of all regular files, `read` of those that were read. `unchanged`: files taken from the parent."""

    files: int = 0
    directories: int = 0
    size: int = 0
    read: int = 0
    unchanged: int = 0
    warnings: int = 0
    users: set[int] = field(default_factory=set)
    groups: set[int] = field(default_factory=set)


class Visit:
    """A directory on the way. It is entry `index` of the page `above`; of the root, `above` is None.

    `before`: how many pages the parent has of it. `results`: the places of its pages so far, by page; `same`: whether they are the parent's.
    `open`: how many pages are not finished, and one more while it is being walked. `subs`: its directories that are still to be entered, last
    first; `later`: names of its later pages, last first. `path`: where it is beneath the source, as patterns see it.
    """

    __slots__ = ("above", "before", "earlier", "folder", "index", "later", "open", "path", "results", "same", "subs")

    def __init__(
        self, above: Draft | None, index: int, folder: Folder, earlier: Earlier, before: int, path: str = ""
    ) -> None:
        self.above = above
        self.index = index
        self.folder = folder
        self.earlier = earlier
        self.before = before
        self.path = path
        self.results: list[list[int]] = []
        self.open = 1
        self.same = True
        self.subs: list[Sub] = []
        self.later: list[bytes] = []


class Sub(NamedTuple):
    """A directory that is to be entered: entry `index` of a page. `before`: its pages in the parent. `fresh`: its attributes are not known."""

    draft: Draft
    index: int
    name: bytes
    device: int
    inode: int
    before: list[int]
    fresh: bool


class Traversal:
    """See the module. `read`: whether files are read at all. `listed` is told path and size of everything that is no directory.

    `root_refs`: the places of the root's pages, in the end.
    """

    def __init__(
        self,
        env: Env,
        writer: Writer,
        rules: Rules,
        root: Folder,
        progress: Progress,
        *,
        read: bool = True,
        listed: Callable[[bytes, int], None] | None = None,
    ) -> None:
        self.tally = Tally()
        self.root_refs: list[int] = []
        self._fs = env.fs
        self._writer = writer
        self._rules = rules
        self._progress = progress
        self._read = read
        self._listed = listed
        self._trusted = writer.parent.started - SLACK if writer.parent is not None else 0
        files = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1 << 12) // 4  # at most a quarter for each kind of use
        workers = max(1, env.threads)
        self._folders = Folders(env.fs, root, max(16, min(256, files)))
        self._batch_folders = max(1, min(256, files) // (2 * workers + 2))
        self._attributes = Attributes(env.fs)
        self._intake = Intake(env.fs, self._folders, self._attributes, max(4, min(100, files // workers)))
        self._batch = Batch(self._intake, self._batch_folders)
        self._streams: set[Stream] = set()
        self._links = Links()
        self._again: list[Item] = []
        self._root = root

    def run(self, only: bytes | None = None) -> None:
        """Go through everything beneath the root; with `only`, just the entry of this name. `OSError` where the root cannot be listed."""
        before = self._writer.parent_root()
        visit = Visit(None, 0, self._root, Earlier(self._writer, before, partial(self._lost_page, self._root)), len(before))
        if only is None:
            self.tally.directories = 1
            listing, visit.later = self._look(visit)
        else:
            listing = later_page(self._fs, self._root.fd, only + b"\0", partial(self._missed, self._root))
        if listing is not None:
            self._plan(visit, listing)
        stack = [visit]
        while stack:
            visit = stack[-1]
            if visit.subs:
                below = self._enter(visit, visit.subs.pop())
                if below is None:
                    continue
                if below.subs or below.later:
                    stack.append(below)
                else:
                    self._leave(below)
            elif visit.later:
                self._turn(visit)
            else:
                self._leave(stack.pop())
            if self._again:
                self._put_back()
        while self._batch.items or self._streams or self._again:
            self._flush()
            self._writer.drain()
            self._put_back()
        self._writer.drain()

    def close(self) -> None:
        """Let go of everything. No worker may be reading any more."""
        for stream in self._streams:
            stream.close()
        self._folders.close()

    # ------------------------------------------------------------------ directories

    def _enter(self, visit: Visit, sub: Sub) -> Visit | None:
        draft, index, name, device, inode, before, fresh = sub
        if self._rules.one_file_system and device != self._root.device:
            draft.put_directory(index, [], not before)
            self._settle(draft)
            return None
        try:
            folder = self._folders.enter(visit.folder, name, device, inode)
        except OSError as error:
            self._refuse(draft, index, visit.folder.path(name), error)
            return None
        below = Visit(draft, index, folder, Earlier(self._writer, before, partial(self._lost_page, folder)), len(before))
        if self._rules.selective:
            below.path = f"{visit.path}{os.fsdecode(name)}/"
        try:
            if fresh:
                self._attributes_of(below, device)
            listing, below.later = self._look(below)
        except OSError as error:
            self._folders.unpin(folder)
            self._folders.release(folder)
            self._refuse(draft, index, folder.path(), error)
            return None
        self.tally.directories += 1
        if listing is not None:
            self._plan(below, listing)
        self._folders.unpin(folder)
        return below

    def _look(self, visit: Visit) -> tuple[Listing | None, list[bytes]]:
        """What is in a directory that was just opened."""
        folder, rules = visit.folder, self._rules
        takes: Callable[[str, bool], bool] | None = None
        if rules.selective:
            takes = partial(self._takes, visit.path)
        if rules.skip_caches and rules.is_cache(folder.fd):
            takes = _takes_tag
        return first_page(self._fs, folder.fd, takes, partial(self._missed, folder))

    def _takes(self, path: str, name: str, is_directory: bool) -> bool:
        return self._rules.takes(path + name, is_directory)

    def _turn(self, visit: Visit) -> None:
        """Go on to the next page of a long directory."""
        folder = visit.folder
        names = visit.later.pop()
        try:
            fd = self._folders.pin(folder)
        except OSError as error:
            for name in split_names(names):
                self._missed(folder, name, error)
            return
        listing = later_page(self._fs, fd, names, partial(self._missed, folder))
        if listing is not None:
            self._plan(visit, listing)
        self._folders.unpin(folder)

    def _leave(self, visit: Visit) -> None:
        """The last of a directory has been seen."""
        if visit.folder is not self._root:
            self._folders.release(visit.folder)
        draft = self._shut(visit)
        if draft is not None:
            self._settle(draft)

    def _shut(self, visit: Visit) -> Draft | None:
        """One page of a directory less is awaited; the page above, if that was the last one."""
        visit.open -= 1
        if visit.open:
            return None
        refs = [ref for page in visit.results for ref in page]
        if visit.above is None:
            self.root_refs = refs
        elif refs or not self._rules.selective or self._rules.keeps_empty(visit.path):
            visit.above.put_directory(visit.index, refs, visit.same and len(refs) == visit.before)
        else:
            self.tally.directories -= 1
            visit.above.drop(visit.index)
        return visit.above

    def _settle(self, draft: Draft) -> None:
        """One thing less is awaited by a page; carries upwards what is finished by that."""
        above: Draft | None = draft
        while above is not None:
            above.pending -= 1
            if above.pending:
                return
            visit = above.visit
            visit.results[above.number], same = above.finish()
            visit.same = visit.same and same
            above = self._shut(visit)

    # ------------------------------------------------------------------ pages

    def _plan(self, visit: Visit, listing: Listing) -> None:
        """Take a page of a directory from the parent, or see to what is needed of it. The folder is pinned."""
        kinds = listing.kinds
        total = len(kinds)
        regular = kinds.count(REGULAR)
        directories = kinds.count(DIRECTORY)
        size = sum(listing.sizes)
        if regular != total:
            size = sum([size for size, kind in zip(listing.sizes, kinds, strict=True) if kind == REGULAR])
        tally = self.tally
        tally.files += total - directories
        tally.size += size
        tally.users.update(listing.uids)
        tally.groups.update(listing.gids)
        if self._listed is not None:
            self._list(self._listed, visit.folder, listing)
        pages = visit.earlier.beside(listing.names)
        twin = pages[0] if len(pages) == 1 else None
        if twin is not None and listing.newest < self._trusted and twin.is_like(listing):
            place = twin.place()
            if place is not None and self._reuse(visit, listing, twin, place, directories):
                tally.unchanged += total - directories
                self._progress.advance(size, total - directories, size)
                return
        draft = self._draft(visit, listing, twin, None)
        self._plan_each(draft, listing, self._entries(visit.folder, pages))
        self._settle(draft)

    def _draft(self, visit: Visit, listing: Listing, twin: EarlierPage | None, place: int | None) -> Draft:
        draft = Draft(self._writer, visit, len(visit.results), listing, twin, place)
        visit.results.append([])
        visit.open += 1
        return draft

    def _reuse(self, visit: Visit, listing: Listing, twin: EarlierPage, place: int, directories: int) -> bool:
        """Take a page as the parent has it, as far as its directories are the parent's as well."""
        if not directories:
            visit.results.append([place])
            return True
        kinds, devices, inodes = listing.kinds, listing.devices, listing.inodes
        try:
            before = twin.directories(kinds)
        except CorruptObject as error:
            self._lost_page(visit.folder, error)
            return False
        draft = self._draft(visit, listing, twin, place)
        draft.pending = directories
        names = split_names(listing.names)
        places = [index for index, kind in enumerate(kinds) if kind == DIRECTORY]
        visit.subs = [
            Sub(draft, index, names[index], devices[index], inodes[index], refs, False)
            for index, refs in zip(reversed(places), reversed(before), strict=True)
        ]
        return True

    def _entries(self, folder: Folder, pages: list[EarlierPage]) -> dict[bytes, Found]:
        """The entries of these pages of the parent by name."""
        entries: dict[bytes, Found] = {}
        for page in pages:
            try:
                found = page.entries()
            except CorruptObject as error:
                self._lost_page(folder, error)
            else:
                entries = entries | found if entries else found
        return entries

    def _plan_each(self, draft: Draft, listing: Listing, entries: dict[bytes, Found]) -> None:
        folder = draft.visit.folder
        subs = []
        names = split_names(listing.names)
        for index, (name, status, kind) in enumerate(zip(names, listing.stats, listing.kinds, strict=True)):
            before = entries.get(name)
            same = before is not None and self._trusts(status) and before.is_same(status)
            if kind == DIRECTORY:
                pages = before.refs if before is not None and before.kind == DIRECTORY else []
                subs.append(Sub(draft, index, name, status.st_dev, status.st_ino, pages, not same))
                draft.pending += 1
                if before is not None and same:
                    draft.put(index, [], before.extra)
            elif before is not None and same and self._keep(draft, index, before, status):
                pass
            elif kind == REGULAR:
                draft.pending += 1
                self._want(Item(draft, index, folder, name, status, self._hint(before)))
            else:
                self._plan_special(draft, index, name, status)
        subs.reverse()
        draft.visit.subs = subs

    def _trusts(self, status: os.stat_result) -> bool:
        return status.st_ctime_ns < self._trusted and status.st_mtime_ns < self._trusted

    def _keep(self, draft: Draft, index: int, before: Found, status: os.stat_result) -> bool:
        """Take an entry that is no directory from the parent; False where its chunks are about to be reclaimed."""
        refs = self._writer.usable(before.refs)
        if refs is None:
            return False
        extra, link = before.extra, link_of(status)
        if extra.link != link:
            extra = msgspec.structs.replace(extra, link=link)
        draft.put(index, refs, extra)
        self.tally.unchanged += 1
        if before.kind == REGULAR:
            self._progress.advance(status.st_size, 1, status.st_size)
        else:
            self._progress.advance(0, 1)
        return True

    def _hint(self, before: Found | None) -> int:
        if before is None or before.kind != REGULAR or len(before.refs) != 1:
            return -1
        refs = self._writer.usable(before.refs)
        return refs[0] if refs else -1

    def _plan_special(self, draft: Draft, index: int, name: bytes, status: os.stat_result) -> None:
        folder = draft.visit.folder
        xattrs = {}
        try:
            xattrs = self._attributes.beside(folder.fd, name, status.st_dev)
        except OSError as error:
            if error.errno not in _GONE:
                self._warn(folder.path(name), f"its extended attributes cannot be read ({error.strerror})")
        try:
            draft.put(index, [], special(self._fs, folder.fd, name, status, xattrs))
        except OSError as error:
            self._refuse(draft, index, folder.path(name), error)
        self._progress.advance(0, 1)

    # ------------------------------------------------------------------ files

    def _want(self, item: Item) -> None:
        """A file is to be read, unless it is another name of one that is read anyway."""
        if not self._read:
            self._settle(item.draft)
            return
        if item.status.st_nlink > 1:
            link = self._links.find(item)
            if link is not None:
                if link.taken is not None:
                    self._take(item, link.refs, link.taken)
                return
        self._queue(item)

    def _queue(self, item: Item) -> None:
        if item.status.st_size > SEGMENT or item.tries >= _TRIES:
            self._stream(item)
        else:
            if not self._batch.has_room(item):
                self._flush()
            self._batch.add(item)

    def _put_back(self) -> None:
        """Once more what could not be settled when the writer called back."""
        again, self._again = self._again, []
        for item in again:
            self._queue(item)

    def _flush(self) -> None:
        batch = self._batch
        if batch.items:
            self._batch = Batch(self._intake, self._batch_folders)
            self._writer.submit(batch.read, partial(self._batch_read, batch))

    def _batch_read(self, batch: Batch, refs: list[int], read: BatchRead) -> None:
        batch.release()
        results, size = read
        self.tally.read += size
        at = 0
        for item, result in zip(batch.items, results, strict=True):
            if isinstance(result, int):
                count, taken = result, None
            else:
                count, taken = result.count, result
            end = at + count
            if taken is None and item.link is None:
                item.draft.put(item.index, refs[at:end])
                self._settle(item.draft)
            else:
                self._take(item, refs[at:end], taken or Taken(count=count))
            at = end
        self._progress.advance(size, len(results))

    def _stream(self, item: Item) -> None:
        try:
            stream = Stream(self._intake, item)
        except OSError as error:
            if is_fatal(error):
                raise
            self._take(item, [], Taken(error=error))
            return
        self._streams.add(stream)
        stream.pending = 1  # until all pieces are submitted
        while not stream.over:
            self._writer.submit(stream.piece(), partial(self._piece_read, stream))
        self._piece_over(stream)

    def _piece_read(self, stream: Stream, refs: list[int], size: int) -> None:
        stream.refs += refs
        self.tally.read += size
        self._progress.advance(size)
        self._piece_over(stream)

    def _piece_over(self, stream: Stream) -> None:
        stream.pending -= 1
        if not stream.pending:
            self._streams.discard(stream)
            taken = stream.taken()
            stream.close()
            self._progress.advance(0, 1)
            self._take(stream.item, [] if taken.error is not None else stream.refs, taken)

    def _take(self, item: Item, refs: list[int], taken: Taken) -> None:
        """What became of a file, for this name of it and those that waited."""
        tally = self.tally
        if taken.again:
            assert taken.status is not None
            tally.size += taken.status.st_size - item.status.st_size
            item.status = taken.status
            item.tries += 1
            self._again.append(item)
            return
        if taken.error is not None:
            if self._refuse(item.draft, item.index, item.folder.path(item.name), taken.error):
                tally.files -= 1
                tally.size -= item.status.st_size
        else:
            item.draft.put_file(item.index, refs, item.status, taken)
            if taken.status is not None:
                tally.size += taken.status.st_size - item.status.st_size
            if taken.flags:
                self._warn(item.folder.path(item.name), "changed while it was read; what was read may mix old and new")
            if taken.note:
                self._warn(item.folder.path(item.name), taken.note)
        waiting, good = self._links.settle(item, refs, taken)
        for other in waiting:
            if good:
                self._take(other, refs, taken)
            else:
                self._again.append(other)
        self._settle(item.draft)

    # ------------------------------------------------------------------ what goes wrong

    def _refuse(self, draft: Draft, index: int, path: bytes, error: OSError) -> bool:
        """An entry could not be opened or read; whether it is left out for that."""
        if is_fatal(error):
            raise error
        gone = error.errno in _GONE
        if gone or error.errno in _OTHER_KIND:
            what = "vanished" if gone else "became something else"
            self._warn(path, f"{what} while it was backed up; it is not in this point")
            draft.drop(index)
            return True
        self._warn(path, f"cannot be read ({error.strerror}); its content is not in this point")
        draft.fail(index)
        return False

    def _missed(self, folder: Folder, name: bytes, error: OSError) -> None:
        if is_fatal(error):
            raise error
        what = "vanished" if error.errno in _GONE else f"cannot be looked at ({error.strerror})"
        self._warn(folder.path(name), f"{what} while it was backed up; it is not in this point")

    def _lost_page(self, folder: Folder, error: KeepstoneError) -> None:
        self._warn(folder.path(), f"what the last point says of it is damaged ({error}); everything in it is read again")

    def _attributes_of(self, visit: Visit, device: int) -> None:
        """The attributes of a directory that was just opened, for the page that it stands in."""
        draft = visit.above
        assert draft is not None
        try:
            xattrs = self._attributes.read(visit.folder.fd, device)
        except OSError as error:
            self._warn(visit.folder.path(), f"its extended attributes cannot be read ({error.strerror})")
        else:
            if xattrs:
                draft.put(visit.index, [], Extra(xattrs=xattrs))

    def _warn(self, path: bytes, message: str) -> None:
        self.tally.warnings += 1
        self._progress.warn(path, message)

    def _list(self, listed: Callable[[bytes, int], None], folder: Folder, listing: Listing) -> None:
        for name, kind, size in zip(split_names(listing.names), listing.kinds, listing.sizes, strict=True):
            if kind != DIRECTORY:
                listed(folder.path(name), size if kind == REGULAR else 0)


def _takes_tag(name: str, _: bool) -> bool:
    return name == os.fsdecode(CACHE_TAG)
