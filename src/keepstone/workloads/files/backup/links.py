# SPDX-License-Identifier: Apache-2.0
"""Files with several names: each is read once, and its other names refer to the same chunks.

A file is forgotten when all its names have been seen. Of very many whose other names do not come, the oldest are
forgotten before that: a late name of one is read again.
"""

from __future__ import annotations

import os

from keepstone.workloads.files.backup.intake import Item, Taken

__all__ = ["Link", "Links"]

_MOST = 1 << 15


class Link:
    """A file with several names. `taken`: what became of it, with its chunks `refs`; None while it is being read.

    `left`: how many names are still to come.
    """

    __slots__ = ("key", "left", "refs", "state", "taken", "waiting")

    def __init__(self, key: tuple[int, int], status: os.stat_result) -> None:
        self.key = key
        self.state = _state(status)
        self.left = status.st_nlink - 1
        self.refs: list[int] = []
        self.taken: Taken | None = None
        self.waiting: list[Item] = []


class Links:
    """The files with several names of which some are still to come."""

    def __init__(self) -> None:
        self._links: dict[tuple[int, int], Link] = {}

    def find(self, item: Item) -> Link | None:
        """The file that this is another name of; this one waits if it is being read. None: it has to be read itself."""
        status = item.status
        key = status.st_dev, status.st_ino
        link = self._links.get(key)
        if link is None:
            if self._has_room():
                item.link = self._links[key] = Link(key, status)
            return None
        if link.state != _state(status):
            return None
        link.left -= 1
        if link.taken is None:
            link.waiting.append(item)
        elif link.left <= 0:
            del self._links[key]
        return link

    def _has_room(self) -> bool:
        if len(self._links) < _MOST:
            return True
        oldest = next(iter(self._links.values()))
        if oldest.taken is None:
            return False
        del self._links[oldest.key]
        return True

    def settle(self, item: Item, refs: list[int], taken: Taken) -> tuple[list[Item], bool]:
        """What became of a file: the names that waited for it, and whether it is true of them as well."""
        link, item.link = item.link, None
        if link is None:
            return [], False
        good = taken.error is None and item.status.st_ino == link.key[1]
        if not good or link.left <= 0:
            del self._links[link.key]
        link.refs, link.taken = refs, taken
        waiting, link.waiting = link.waiting, []
        return waiting, good


def _state(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
