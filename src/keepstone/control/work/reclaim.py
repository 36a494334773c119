# SPDX-License-Identifier: Apache-2.0
"""Giving back the space that no point of a vault needs any more."""

from __future__ import annotations

from keepstone.control.plane import Plane
from keepstone.jobs import Context

__all__ = ["RECLAIM", "reclaim"]

RECLAIM = "Reclaim"


def reclaim(plane: Plane, context: Context) -> None:
    """The handler."""
    done = plane.stores.open(context.claim.vault).reclaim()
    context.result({"freed": done.bytes_freed, "packs": done.packs_deleted})
