# SPDX-License-Identifier: Apache-2.0
"""Looking whether a vault's store is whole: everything that it promises is there.

No data is read for that. Where something is wrong, all of it is: only so it is known which points are hit, and that
what was damaged once is whole again.
"""

from __future__ import annotations

from keepstone.control.plane import Plane
from keepstone.errors import CorruptObject
from keepstone.jobs import Context

__all__ = ["VERIFY", "verify"]

VERIFY = "Verify"
_NAMED = 5


def verify(plane: Plane, context: Context) -> None:
    """The handler. `CorruptObject` names what is damaged, and how many points it hits."""
    store = plane.stores.open(context.claim.vault)

    def tick(done: int, all_of_it: int) -> None:
        context.progress(done, all_of_it)
        context.check()

    found = store.verify()
    if not found.ok:
        found = store.verify(deep=True, tick=tick)
    context.result({"points": found.points, "packs": found.packs, "findings": len(found.findings)})
    if found.ok:
        return
    named = "; ".join(finding.message for finding in found.findings[:_NAMED])
    more = len(found.findings) - _NAMED
    raise CorruptObject(
        f"{len(found.findings)} objects of the vault's store are damaged or gone, and {len(found.damaged_points)} of "
        f"{found.points} points cannot be restored whole: {named}{f'; and {more} more' if more > 0 else ''}"
    )
