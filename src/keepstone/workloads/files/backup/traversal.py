# SPDX-License-Identifier: Apache-2.0
"""The way of a backup through a tree: depth first, in order of names, beside the parent point.

A page of a directory is compared with the parent's as a whole; only where it differs are its entries looked at one by
one. What is in memory is the way down, the pages that wait for something, and what is being read: it does not grow with
the tree.

Everything here runs on one thread, also what the writer calls back; only files are read by workers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from keepstone.env import Env
from keepstone.errors import CorruptObject
from keepstone.store import Writer
from keepstone.workloads.directories.columns import DIRECTORY, REGULAR, split_names
from keepstone.workloads.directories.scan import Listing, Seen, first_page, later_page
from keepstone.workloads.files.backup.draft import Draft
from keepstone.workloads.files.backup.earlier import SLACK, Earlier, EarlierPage, Found
from keepstone.workloads.files.backup.feed import Feed, descriptors
from keepstone.workloads.files.backup.folders import Folder, Folders
from keepstone.workloads.files.backup.intake import Item
from keepstone.workloads.files.backup.metadata import Attributes, link_of, special
from keepstone.workloads.files.backup.tally import Tally, is_gone
from keepstone.workloads.files.page import Extra
from keepstone.workloads.files.selection import CACHE_TAG, Rules

if TYPE_CHECKING:
    from keepstone.workloads.directories.ahead import Ahead

__all__ = ["Traversal", "Visit"]

Listed = Callable[[bytes, int], None]


class Sub(NamedTuple):
    """A directory that is to be entered: this `entry` of a page.

    `before`: its pages in the parent. `fresh`: its attributes are not known yet.
    """

    draft: Draft
    entry: int
    name: bytes
    device: int
    inode: int
    before: list[int]
    fresh: bool


class Visit:
    """A directory on the way. It is entry `index` of the page `above`; of the root, `above` is None.

    `results`: the places of its pages so far, by page; `same`: whether they are the parent's. `open`: how many pages
    are not finished, and one more while it is being walked. `subs`: its directories that are still to be entered, last
    first; `later`: names of its later pages, last first. `path`: where it is beneath the source, as patterns see it;
    `way`: as who looks ahead says it.
    """

    __slots__ = ("above", "earlier", "folder", "index", "later", "open", "path", "results", "same", "subs", "way")

    def __init__(self, above: Draft | None, index: int, folder: Folder, earlier: Earlier) -> None:
        self.above = above
        self.index = index
        self.folder = folder
        self.earlier = earlier
        self.path = ""
        self.way = b""
        self.results: list[list[int]] = []
        self.open = 1
        self.same = True
        self.subs: list[Sub] = []
        self.later: list[bytes] = []


class Traversal:
    """See the module. `read`: whether files are read at all. `root_refs`: the places of the root's pages, in the end.

    `listed` is told path and size of all that is no directory. `ahead`: looks at the same tree before; where nothing is
    left out by `rules` alone.
    """

    def __init__(
        self,
        env: Env,
        writer: Writer,
        rules: Rules,
        root: Folder,
        tally: Tally,
        *,
        read: bool = True,
        listed: Listed | None = None,
        ahead: Ahead | None = None,
    ) -> None:
        self.root_refs: list[int] = []
        self._fs = env.fs
        self._writer = writer
        self._rules = rules
        self._root = root
        self._tally = tally
        self._listed = listed
        self._ahead = ahead
        self._trusted = writer.parent.started - SLACK if writer.parent is not None else 0
        self._folders = Folders(env.fs, root, descriptors())
        self._attributes = Attributes(env.fs)
        self._feed = Feed(env, writer, self._folders, self._attributes, tally, self._settle) if read else None

    def run(self, only: bytes | None = None) -> None:
        """Go through all that is beneath the root; with `only`, just through the entry of this name.

        `OSError` where the root cannot be listed.
        """
        visit = Visit(None, 0, self._root, Earlier(self._writer, self._writer.parent_root(), self._tally, self._root))
        if only is None:
            self._tally.directories = 1
            listing = self._look(visit)
        else:
            listing = later_page(self._fs, self._root.fd, only + b"\0", partial(self._left_out, self._root))
        if listing is not None:
            self._plan(visit, listing)
        stack = [visit]
        while stack:
            visit = stack[-1]
            if visit.subs:
                below = self._enter(visit, visit.subs.pop())
                if below is not None:
                    stack.append(below)
            elif visit.later:
                self._turn(visit)
            else:
                stack.pop()
                if visit.folder is not self._root:
                    self._folders.release(visit.folder)
                self._over(visit)
        if self._feed is not None:
            self._feed.finish()

    def close(self) -> None:
        """Let go of everything. No worker may be reading any more."""
        if self._feed is not None:
            self._feed.close()
        self._folders.close()

    # ------------------------------------------------------------------ directories

    def _enter(self, visit: Visit, sub: Sub) -> Visit | None:
        """Open a directory and see to its first page; None where there is nothing more to do in it."""
        draft, index, name, device, inode, before, fresh = sub
        if device != self._root.device and self._rules.one_file_system:
            draft.put_directory(index, [], not before)
            self._settle(draft)
            return None
        folder = Folder(visit.folder, name, device, inode)
        below = Visit(draft, index, folder, Earlier(self._writer, before, self._tally, folder))
        if self._ahead is not None:
            below.way = visit.way + name + b"\0"
            if not fresh and self._foreseen(below, self._ahead):
                return self._entered(below)
        try:
            folder = below.folder = self._folders.enter(visit.folder, name, device, inode)
            if self._rules.selective:
                below.path = f"{visit.path}{os.fsdecode(name)}/"
            if fresh:
                self._attributes_of(below, device)
            listing = self._look(below)
        except OSError as error:
            if folder.pins:
                self._folders.leave(folder)
            self._refuse(draft, index, visit.folder.path(name), error)
            self._settle(draft)
            return None
        if listing is not None:
            self._plan(below, listing)
        self._folders.unpin(folder)
        return self._entered(below)

    def _foreseen(self, visit: Visit, ahead: Ahead) -> bool:
        """Whether the page of a directory is the parent's by what was seen of it before, and taken; it is not opened
        then."""
        seen = ahead.seen(visit.way, visit.folder.device, visit.folder.inode)
        if seen is None:
            return False
        if not seen.names:
            return not visit.earlier.pages
        pages = visit.earlier.beside(seen.names)
        if len(pages) != 1 or not self._reuse(visit, seen, pages[0]):
            return False
        self._count(seen)
        return True

    def _entered(self, visit: Visit) -> Visit | None:
        """What is still to be done in a directory whose first page was seen to."""
        self._tally.directories += 1
        if visit.subs or visit.later:
            return visit
        if visit.folder.fd >= 0:
            self._folders.release(visit.folder)
        self._over(visit)
        return None

    def _look(self, visit: Visit) -> Listing | None:
        """The first page of a directory that was just opened; the names of the others go into `later`."""
        folder, rules = visit.folder, self._rules
        takes: Callable[[str, bool], bool] | None = None
        if rules.selective:
            takes = partial(self._takes, visit.path)
        if rules.skip_caches and rules.is_cache(folder.fd):
            takes = _takes_tag
        listing, visit.later = first_page(self._fs, folder.fd, takes, partial(self._left_out, folder))
        return listing

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
                self._left_out(folder, name, error)
            return
        listing = later_page(self._fs, fd, names, partial(self._left_out, folder))
        if listing is not None:
            self._plan(visit, listing)
        self._folders.unpin(folder)

    def _over(self, visit: Visit) -> None:
        """The last of a directory has been seen."""
        draft = self._shut(visit)
        if draft is not None:
            self._settle(draft)

    def _shut(self, visit: Visit) -> Draft | None:
        """One page of a directory less is awaited; the page above, if that was the last one."""
        visit.open -= 1
        if visit.open:
            return None
        results, above = visit.results, visit.above
        refs = results[0] if len(results) == 1 else [ref for page in results for ref in page]
        if above is None:
            self.root_refs = refs
        elif refs or not self._rules.selective or self._rules.keeps_empty(visit.path):
            above.put_directory(visit.index, refs, visit.same and len(refs) == visit.earlier.pages)
        else:
            self._tally.directories -= 1
            above.drop(visit.index)
        return above

    def _settle(self, draft: Draft) -> None:
        """A page waits for one thing less; carries upwards what is finished by that."""
        waiting: Draft | None = draft
        while waiting is not None:
            waiting.pending -= 1
            if waiting.pending:
                return
            visit = waiting.visit
            visit.results[waiting.number], same = waiting.finish()
            visit.same = visit.same and same
            waiting = self._shut(visit)

    # ------------------------------------------------------------------ pages

    def _plan(self, visit: Visit, listing: Listing) -> None:
        """Take a page of a directory from the parent, or see to what is needed for it. The folder is pinned."""
        seen = listing.seen
        self._count(seen)
        if self._listed is not None:
            self._list(self._listed, visit.folder, listing)
        pages = visit.earlier.beside(seen.names)
        twin = pages[0] if len(pages) == 1 else None
        if twin is not None and self._reuse(visit, seen, twin):
            return
        draft = self._draft(visit, seen, twin, None)
        self._plan_each(draft, listing, self._entries(visit.folder, pages))
        self._settle(draft)

    def _count(self, seen: Seen) -> None:
        tally = self._tally
        tally.files += seen.files
        tally.size += seen.size
        tally.users |= seen.users
        tally.groups |= seen.groups

    def _draft(self, visit: Visit, seen: Seen, twin: EarlierPage | None, place: int | None) -> Draft:
        draft = Draft(self._writer, visit, len(visit.results), seen, twin, place)
        visit.results.append([])
        visit.open += 1
        return draft

    def _reuse(self, visit: Visit, seen: Seen, twin: EarlierPage) -> bool:
        """Take a page as the parent has it, as far as its directories turn out to be the parent's as well; False where
        it is another one."""
        if seen.newest >= self._trusted or not twin.is_like(seen):
            return False
        place = twin.place()
        if place is None:
            return False
        if seen.directories:
            try:
                before = twin.directories()
            except CorruptObject as error:
                self._tally.lost(visit.folder, error)
                return False
            if before is None:
                return False
            draft = self._draft(visit, seen, twin, place)
            draft.pending = len(before)
            names = split_names(seen.names)
            visit.subs = [
                Sub(draft, index, names[index], device, inode, refs, False)
                for (index, device, inode), refs in zip(reversed(seen.directories), reversed(before), strict=True)
            ]
        else:
            visit.results.append([place])
        self._tally.unchanged += seen.files
        self._tally.progress.advance(seen.size, seen.files, seen.size)
        return True

    def _entries(self, folder: Folder, pages: list[EarlierPage]) -> dict[bytes, Found]:
        """The entries of these pages of the parent by name."""
        entries: dict[bytes, Found] = {}
        for page in pages:
            try:
                found = page.entries()
            except CorruptObject as error:
                self._tally.lost(folder, error)
            else:
                entries = entries | found if entries else found
        return entries

    def _plan_each(self, draft: Draft, listing: Listing, entries: dict[bytes, Found]) -> None:
        """Look at each entry: keep what the parent has, begin with what it has not."""
        folder = draft.visit.folder
        subs = []
        names = split_names(listing.seen.names)
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
                continue
            elif kind != REGULAR:
                self._plan_special(draft, index, name, status)
            else:
                draft.pending += 1
                if status.st_nlink > 1:
                    draft.put(index, [], Extra(link=link_of(status)))
                if self._feed is None:
                    self._settle(draft)
                else:
                    self._feed.want(Item(draft, index, folder, name, status, self._hint(before)))
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
        size = status.st_size if before.kind == REGULAR else 0
        self._tally.unchanged += 1
        self._tally.progress.advance(size, 1, size)
        return True

    def _hint(self, before: Found | None) -> int:
        """Where the only chunk of a file that changed was, if it may be referred to."""
        if before is None or before.kind != REGULAR or len(before.refs) != 1:
            return -1
        refs = self._writer.usable(before.refs)
        return refs[0] if refs else -1

    def _plan_special(self, draft: Draft, index: int, name: bytes, status: os.stat_result) -> None:
        """A symbolic link, device node, fifo or socket."""
        folder = draft.visit.folder
        xattrs: dict[bytes, bytes] = {}
        try:
            xattrs = self._attributes.beside(folder.fd, name, status.st_dev)
        except OSError as error:
            if not is_gone(error):
                self._tally.without_attributes(folder.path(name), error)
        try:
            draft.put(index, [], special(self._fs, folder.fd, name, status, xattrs))
        except OSError as error:
            self._tally.files -= 1
            self._refuse(draft, index, folder.path(name), error)
        self._tally.progress.advance(0, 1)

    def _attributes_of(self, visit: Visit, device: int) -> None:
        """The attributes of a directory that was just opened, for the page that it stands in."""
        try:
            xattrs = self._attributes.read(visit.folder.fd, device)
        except OSError as error:
            self._tally.without_attributes(visit.folder.path(), error)
        else:
            if xattrs and visit.above is not None:
                visit.above.put(visit.index, [], Extra(xattrs=xattrs))

    def _refuse(self, draft: Draft, index: int, path: bytes, error: OSError) -> None:
        """An entry that is not read by workers could not be opened or read."""
        if is_gone(error):
            self._tally.left_out(path, error)
            draft.drop(index)
        else:
            self._tally.unreadable(path, error)
            draft.fail(index)

    def _left_out(self, folder: Folder, name: bytes, error: OSError) -> None:
        self._tally.left_out(folder.path(name), error)

    @staticmethod
    def _list(listed: Listed, folder: Folder, listing: Listing) -> None:
        for name, kind, status in zip(split_names(listing.seen.names), listing.kinds, listing.stats, strict=True):
            if kind != DIRECTORY:
                listed(folder.path(name), status.st_size if kind == REGULAR else 0)


def _takes_tag(name: str, _: bool) -> bool:
    return name == os.fsdecode(CACHE_TAG)
