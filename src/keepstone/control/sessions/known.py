# SPDX-License-Identifier: Apache-2.0
"""Whether the previous point of an item has a chunk.

The index would say whether the store has it, from whomever; that is nobody's business. What counts is what the point
itself names: its runs are gathered once, when somebody first asks.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right

from keepstone.errors import KeepstoneError
from keepstone.store import ZERO_REF, LocalWriter, Store

__all__ = ["Known"]


class Known:
    """The chunks of the writer's parent."""

    def __init__(self, store: Store, writer: LocalWriter) -> None:
        self._store = store
        self._writer = writer
        self._runs: tuple[array[int], array[int]] | None = None

    def find(self, ids: list[bytes]) -> dict[int, int]:
        """The places of those that it has, by their number in `ids`."""
        if self._writer.parent is None:
            return {}
        if self._runs is None:
            self._runs = self._gather()
        starts, ends = self._runs
        found: dict[int, int] = {}
        for number, ref in enumerate(self._writer.known(ids, [])):
            if ref is not None:
                at = bisect_right(starts, ref) - 1
                if at >= 0 and ref < ends[at]:
                    found[number] = ref
        return found

    def _gather(self) -> tuple[array[int], array[int]]:
        """Where the runs of the point's chunks begin and end, sorted and joined."""
        writer = self._writer
        runs: set[tuple[int, int]] = set()
        pending = writer.parent_root()
        seen: set[int] = set(pending)
        while pending:
            try:
                node = writer.node(pending.pop())
            except KeepstoneError:
                continue  # what cannot be read is not known
            for first, count in node.chunk_runs(writer.numbers):
                if first != ZERO_REF:
                    runs.add((first, count))
            for ref in writer.child_refs(node):
                if ref not in seen:
                    seen.add(ref)
                    pending.append(ref)
        starts, ends = array("Q"), array("Q")
        for first, count in sorted(self._moved(runs)):
            if starts and first <= ends[-1]:
                ends[-1] = max(ends[-1], first + count)
            else:
                starts.append(first)
                ends.append(first + count)
        return starts, ends

    def _moved(self, runs: set[tuple[int, int]]) -> list[tuple[int, int]]:
        """Runs as they are now: chunks of a pack that was compacted lie elsewhere, one by one."""
        now: list[tuple[int, int]] = []
        for first, count in runs:
            places = self._writer.usable(list(range(first, first + count)))
            if places is None:
                continue
            if places[0] == first and places[-1] == first + count - 1:
                now.append((first, count))
            else:
                now += [(place, 1) for place in places]
        return now
