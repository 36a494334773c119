# SPDX-License-Identifier: Apache-2.0
"""The views that somebody may see, as Azure's Business Continuity Center names and orders them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from keepstone.portal.api import Request
from keepstone.portal.places import vaults
from keepstone.portal.visit import Visit

__all__ = ["Entry", "navigation"]


@dataclass(frozen=True, slots=True)
class Entry:
    """`path`: behind the portal's prefix. `icon`: of `icons.html`. `about`: other paths that stand beneath it. `needs`:
    the list of a vault that one has to be allowed to read, in some vault, for this to be of use."""

    path: str
    title: str
    icon: str
    about: Sequence[str] = ()
    needs: str = ""


ENTRIES = (
    Entry("/", "Overview", "overview", ("/welcome",)),
    Entry("/protectable", "Protectable items", "protectable", needs="backupProtectableItems"),
    Entry("/items", "Protected items", "items", ("/item", "/point")),
    Entry("/jobs", "Jobs", "jobs", ("/job",)),
    Entry("/policies", "Policies", "policies", ("/policy", "/do/policy-save", "/do/policy-delete")),
    Entry("/restore", "Restore", "restore", ("/diff",)),
    Entry("/drills", "Drills", "drills", ("/drill",)),
    Entry("/alerts", "Alerts", "alerts", ("/alert",)),
    Entry("/reports", "Reports", "reports"),
    Entry("/security", "Security", "security"),
    Entry("/infrastructure", "Infrastructure", "infrastructure"),
    Entry("/settings", "Settings", "settings", ("/settings/vault",)),
    Entry("/api", "API", "api"),
)


def navigation(visit: Visit) -> Sequence[Entry]:
    """What is beside every page."""
    known = [str(one["id"]) for one in vaults(visit)] if any(entry.needs for entry in ENTRIES) else []
    return [
        entry
        for entry in ENTRIES
        if not entry.needs or any(visit.client.allows(Request("GET", f"{vault}/{entry.needs}")) for vault in known)
    ]
