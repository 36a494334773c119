# SPDX-License-Identifier: Apache-2.0
"""Letting the snapshots of one machine of this host go, because somebody asked for it."""

from __future__ import annotations

from keepstone.control import snapshots
from keepstone.control.plane import Plane
from keepstone.control.work.loading import ending, subject
from keepstone.jobs import Context

__all__ = ["let_go"]


def let_go(plane: Plane, context: Context) -> None:
    """The handler. What `snapshots.let_go` raises."""
    about = subject(plane, context)
    snapshots.let_go(plane, about.item)
    context.note(f"the machine of {about.item.friendly} keeps no snapshots")
    with ending(plane, context):
        pass
