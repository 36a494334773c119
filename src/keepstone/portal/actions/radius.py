# SPDX-License-Identifier: Apache-2.0
"""What an action would take with it, as the service says it: in the words of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from keepstone.portal.visit import Visit

__all__ = ["Radius", "radius_of"]


@dataclass(frozen=True, slots=True)
class Radius:
    """`lines`: label and text. `refused`: what forbids it."""

    lines: Sequence[tuple[str, str]]
    refused: Sequence[str]


def radius_of(visit: Visit, path: str, **query: str) -> Radius:
    """Of the deletion of what `path` names."""
    found = visit.client.get(f"{path}/blastRadius", **query)["properties"]
    return Radius([(one["label"], one["text"]) for one in found["lines"]], found["refused"])
