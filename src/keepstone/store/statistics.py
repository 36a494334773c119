# SPDX-License-Identifier: Apache-2.0
"""How much a store holds."""

from __future__ import annotations

from dataclasses import dataclass

from keepstone.errors import KeepstoneError
from keepstone.store.footer import DATA
from keepstone.store.layout import pack_name
from keepstone.store.store import Store
from keepstone.store.survey import Survey

__all__ = ["Statistics", "statistics"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Bytes: `logical` what restores of all points would write, `unique` of distinct chunks before compression,
    `stored` on the storage in packs, `dead` of `unique` that no point needs. `journal`: entries of a service that
    keeps its journal here. `damage`: what could not be counted, a sentence each; what only damaged points need counts
    as dead."""

    points: int
    deleted_points: int
    items: int
    packs: int
    chunks: int
    logical_bytes: int
    unique_bytes: int
    stored_bytes: int
    dead_bytes: int
    journal: int
    damage: list[str]

    @property
    def deduplication(self) -> float:
        """Logical bytes for each unique one."""
        return self.logical_bytes / self.unique_bytes if self.unique_bytes else 1.0


def statistics(store: Store) -> Statistics:
    """Look at the whole store."""
    damage: dict[str, None] = {}  # each sentence once, in order

    def note(_: str, error: KeepstoneError) -> None:
        damage[str(error)] = None

    survey = Survey(store.context, note)
    points = store.points.list(deleted=True, damaged=[])
    unique = dead = chunks = 0
    for pack in survey.sizes:
        try:
            footer = survey.packs.footer(pack)
        except KeepstoneError as error:
            note(pack_name(pack), error)
            continue
        if footer.kind == DATA:
            chunks += footer.chunks
            unique += footer.raw_bytes
            dead += int(footer.raw_bytes * (1 - survey.needed_share(pack)))
    return Statistics(
        points=sum(point.deleted_until is None for point in points),
        deleted_points=sum(point.deleted_until is not None for point in points),
        items=len({point.record.item for point in points}),
        packs=len(survey.sizes),
        chunks=chunks,
        logical_bytes=sum(point.record.logical for point in points),
        unique_bytes=unique,
        stored_bytes=sum(survey.sizes.values()),
        dead_bytes=dead,
        journal=store.journal.count(),
        damage=list(damage),
    )
