# SPDX-License-Identifier: Apache-2.0
"""How bad an alert is, in Azure's words."""

from __future__ import annotations

from dataclasses import dataclass

from keepstone.portal.speech import later

__all__ = ["SEVERITIES", "Severity"]


@dataclass(frozen=True, slots=True)
class Severity:
    """`tone`: also the icon that is drawn beside it."""

    title: str
    tone: str


SEVERITIES = {
    "Sev0": Severity(later("Critical"), "bad"),
    "Sev1": Severity(later("Error"), "bad"),
    "Sev2": Severity(later("Warning"), "warning"),
    "Sev3": Severity(later("Informational"), "waiting"),
    "Sev4": Severity(later("Verbose"), "waiting"),
}
"""The worst first."""
