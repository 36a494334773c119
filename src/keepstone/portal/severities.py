# SPDX-License-Identifier: Apache-2.0
"""How bad an alert is, in Azure's words."""

from __future__ import annotations

from dataclasses import dataclass

from keepstone.portal.speech import later as _

__all__ = ["SEVERITIES", "Severity"]


@dataclass(frozen=True, slots=True)
class Severity:
    """`tone`: also the icon that is drawn beside it."""

    title: str
    tone: str


SEVERITIES = {
    "Sev0": Severity(_("Critical"), "bad"),
    "Sev1": Severity(_("Error"), "bad"),
    "Sev2": Severity(_("Warning"), "warning"),
    "Sev3": Severity(_("Informational"), "waiting"),
    "Sev4": Severity(_("Verbose"), "waiting"),
}
"""The worst first."""
