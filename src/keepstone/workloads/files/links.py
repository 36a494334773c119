# SPDX-License-Identifier: Apache-2.0
"""Files with several names: each is read once, and its other names refer to the same chunks.

A file is forgotten when all its names have been seen. Of very many that wait for other names, some may be read twice.
"""

from __future__ import annotations

from keepstone.workloads.files.intake import Item, Taken, is_unchanged

__all__ = ["Link", "Links"]

_MOST = 1 << 16


class Link:
    """A file with several names. `taken`: what became of it, with its chunks `refs`; None while it is being read."""

    __slots__ = ("key", "left", "refs", "status", "taken", "waiting")

    def __init__(self, item: Item) -> None:
        self.status = item.status
        self.key = item.status.st_dev, item.status.st_ino
        self.left = item.status.st_nlink - 1
        self.refs: list[int] = []
        self.taken: Taken | None = None
        self.waiting: list[Item] = []


class Links:
    """The files with several names of which some are still to come."""

    def __init__(self) -> None:
        self._links: dict[tuple[int, int], Link] = {}

    def find(self, item: Item) -> Link | None:
        """The file that this is another name of; this one waits if it is being read. None: it has to be read itself."""
        link = self._links.get((item.status.st_dev, item.status.st_ino))
        if link is None:
            if len(self._links) < _MOST:
                item.link = Link(item)
                self._links[item.link.key] = item.link
            return None
        if not is_unchanged(link.status, item.status):
            return None
        link.left -= 1
        if link.taken is None:
            link.waiting.append(item)
        elif link.left <= 0:
            del self._links[link.key]
        return link

    def settle(self, item: Item, refs: list[int], taken: Taken) -> tuple[list[Item], bool]:
        """What became of a file: the names that waited for it, and whether it is true of them as well."""
        link, item.link = item.link, None
        if link is None:
            return [], False
        good = taken.error is None and item.status.st_ino == link.status.st_ino
        if not good or link.left <= 0:
            del self._links[link.key]
        link.refs, link.taken = refs, taken
        waiting, link.waiting = link.waiting, []
        return waiting, good
