# SPDX-License-Identifier: Apache-2.0
"""Finding entries in all points of an item, the newest first.

A request takes a few seconds: it says then how far it came, in which point and where in that, and the next one goes on
from there.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime

from keepstone.control import points
from keepstone.control.browsing import Named, Turn, looking
from keepstone.control.plane import Plane
from keepstone.errors import CorruptObject, NotFound, ObjectMissing
from keepstone.vault import Item, RecoveryPoint, Vault
from keepstone.workloads.guestfiles.finding import Finder

__all__ = ["Hits", "Place", "found"]

_POINTS = 200  # that one request looks into at most


@dataclass(frozen=True, slots=True)
class Place:
    """How far a search came: in the point of this name, which was made then, up to this path; empty where all of it
    was looked at."""

    made: datetime
    name: str
    path: bytes


@dataclass(frozen=True, slots=True)
class Hits:
    """`after`: how far the search came where there is more to look at. `damage`: why some may be missing."""

    found: list[tuple[RecoveryPoint, Named]]
    after: Place | None
    damage: str


def found(plane: Plane, vault: Vault, item: Item, pattern: bytes, *, after: Place | None = None, limit: int) -> Hits:
    """At most `limit` entries that the pattern matches (as `find` has it), behind that place. `WrongKey` where the item
    is sealed. A point that is gone from the store or damaged is left out, and said."""
    listed = _listed(plane, item, after)
    finder, turn = Finder([pattern]), Turn(plane.env)
    hits: list[tuple[RecoveryPoint, Named]] = []
    damage = ""
    for at, point in enumerate(listed):
        behind = after.path if after is not None and point.name == after.name else b""
        try:
            with looking(plane, vault, point) as look:
                matches = look.find(finder, turn, after=behind, limit=limit - len(hits))
        except (CorruptObject, NotFound, ObjectMissing) as error:
            damage = damage or f"recovery point {point.name} cannot be searched: {error}"
            continue
        hits += [(point, one) for one in matches.found]
        damage = damage or matches.damage
        is_last = at == len(listed) - 1 and len(listed) < _POINTS
        if matches.after or (turn.is_late() and not is_last):
            return Hits(hits, Place(point.made, point.name, matches.after), damage)
    last = listed[-1] if len(listed) >= _POINTS else None
    return Hits(hits, None if last is None else Place(last.made, last.name, b""), damage)


def _listed(plane: Plane, item: Item, after: Place | None) -> list[RecoveryPoint]:
    """The points that are left to look into."""
    with plane.look() as connection:
        listed: list[RecoveryPoint] = []
        if after is not None and after.path:
            with contextlib.suppress(NotFound):  # removed since; the older ones are left
                listed.append(points.find(connection, item, after.name))
        before = None if after is None else (after.made, after.name)
        return listed + points.listing(connection, item, before=before, limit=_POINTS)
