# SPDX-License-Identifier: Apache-2.0
"""The ids of a session's own new chunks, beyond what fits in a dict."""

from __future__ import annotations

from array import array
from collections.abc import Callable

import numpy as np

from keepstone.store.segment import Segment, prefixes

__all__ = ["SpilledIds"]

_MERGE = 1 << 18  # rows up to which the newest column grows


class SpilledIds:
    """Sorted columns of 16 bytes a chunk; `confirm(place)` gives the whole id, as for hits of the index."""

    def __init__(self, confirm: Callable[[int], bytes | None]) -> None:
        self._confirm = confirm
        self._columns: list[Segment] = []

    def add(self, places: dict[bytes, int]) -> None:
        prefix = np.asarray(prefixes(b"".join(places)))
        place = np.frombuffer(array("Q", places.values()), np.uint64)
        kept = self._columns
        if kept and len(kept[-1]) < _MERGE:
            prefix, place = np.concatenate((kept[-1].prefix, prefix)), np.concatenate((kept[-1].place, place))
            kept = kept[:-1]
        order = np.argsort(prefix, kind="stable")
        column = Segment([], prefix[order].data, place[order].data)
        self._columns = [*kept, column]  # a new list: workers may hold the old one

    def find(self, ids: list[bytes]) -> dict[bytes, int]:
        found: dict[bytes, int] = {}
        wanted = prefixes(b"".join(ids))
        for column in self._columns:
            for index, ref in column.find(wanted):
                if self._confirm(ref) == ids[index]:
                    found[ids[index]] = ref
        return found
