# SPDX-License-Identifier: Apache-2.0
"""The views that somebody may see, as Azure's Business Continuity Center names and orders them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from gettext import gettext as _

from keepstone.portal.visit import Visit

__all__ = ["Entry", "navigation"]


@dataclass(frozen=True, slots=True)
class Entry:
    """`path`: behind the portal's prefix. `icon`: of `icons.html`. `about`: other paths that stand beneath it."""

    path: str
    title: str
    icon: str
    about: Sequence[str] = ()


ENTRIES = (
    Entry("/", _("Overview"), "overview"),
    Entry("/items", _("Protected items"), "items", ("/item", "/point")),
    Entry("/jobs", _("Jobs"), "jobs", ("/job",)),
)


def navigation(visit: Visit) -> Sequence[Entry]:
    """What is beside every page."""
    return ENTRIES
