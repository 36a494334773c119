# SPDX-License-Identifier: Apache-2.0
"""A job: how far it is while it goes on, and what came of it."""

from __future__ import annotations

import re

from keepstone.portal.actions.jobs import offered
from keepstone.portal.api import Document
from keepstone.portal.places import named
from keepstone.portal.rendering import at, moment_of
from keepstone.portal.visit import Answer, Page, Views, Visit

__all__ = ["views"]

views = Views()
_OPEN = ("InProgress", "Cancelling")
_OWN = ("Bytes Done", "Bytes Expected")


@views("GET", "/job")
def job(visit: Visit) -> Answer:
    """`NotFound`."""
    name = named(visit, "job")
    found = visit.client.get(name.id)
    over = at(found, "properties.status") not in _OPEN
    bag = at(found, "properties.extendedInfo.propertyBag") or {}
    warnings = [str(value) for key, value in bag.items() if re.fullmatch(r"Warning \d+", key)]
    facts = {key: value for key, value in bag.items() if key not in _OWN and not key.startswith("Warning ")}
    shown = {
        "job": found,
        "name": name,
        "over": over,
        "facts": (at(found, "properties.keepstone.asked") or {}) | facts,
        "log": at(found, "properties.keepstone.log") or (),
        "warnings": warnings,
        "progress": None if over else _progress(found, visit),
        "actions": offered(visit, found),
    }
    return Page("job.html", shown, part="state")


def _progress(job: Document, visit: Visit) -> Document:
    """How far it is, how fast, and when it will be over if it goes on like this; None for what is not known."""
    bag = at(job, "properties.extendedInfo.propertyBag") or {}
    done, expected = (int(bag.get(key) or 0) for key in _OWN)
    began = moment_of(at(job, "properties.startTime"))
    seconds = max(0.001, (visit.plane.env.utc() - began).total_seconds()) if began is not None else 0.0
    rate = done / seconds if done and seconds else None
    left = (expected - done) / rate if rate and expected > done else None
    return {
        "done": done,
        "expected": expected or None,
        "percent": min(100, int(100 * done / expected)) if expected else None,
        "rate": rate,
        "left": None if left is None else int(left),
    }
