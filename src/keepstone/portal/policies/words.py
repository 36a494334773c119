# SPDX-License-Identifier: Apache-2.0
"""A policy in words. Whatever its document lacks, or has that is not understood, is left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from keepstone.portal.api import Document
from keepstone.portal.rendering import at

__all__ = ["KINDS", "kind", "retention", "said", "schedule", "span"]

KINDS = {"AzureIaasVM": "virtual machines", "MAB": "files and disks", "AzureWorkload": "databases"}
"""What policies are for, by their management."""
_UNITS = {"days": "day", "weeks": "week", "months": "month", "years": "year"}
_RULES = (("daily", "every point"), ("weekly", "weekly"), ("monthly", "monthly"), ("yearly", "yearly"))


def kind(properties: Document) -> str:
    """What it is for."""
    management = str(properties.get("backupManagementType", ""))
    found = KINDS.get(management, management)
    if management == "AzureIaasVM":
        return f"{found}, {'enhanced' if properties.get('policyType') == 'V2' else 'standard'}"
    return found


def span(minutes: int) -> str:
    """So many minutes, for people."""
    found = []
    for size, unit in ((1440, "day"), (60, "hour"), (1, "minute")):
        count, minutes = divmod(minutes, size)
        if count:
            found.append(_count(count, unit))
    return " ".join(found) or "0 minutes"


def schedule(properties: Document) -> str:
    """When it makes points, without its time zone."""
    return "; ".join(_named(part, _schedule(part.get("schedulePolicy") or {})) for part in _parts(properties))


def retention(properties: Document) -> str:
    """How long it keeps them."""
    return "; ".join(_named(part, _retention(part.get("retentionPolicy") or {})) for part in _parts(properties))


def said(properties: Document) -> dict[str, str]:
    """All that the form of a policy is about, in words by what it is about."""
    zone = at(properties, "settings.timeZone") or properties.get("timeZone") or "UTC"
    found = {"For": kind(properties)}
    for part in _parts(properties):
        type_ = part.get("policyType", "")
        before = f"{type_}: " if "subProtectionPolicy" in properties else ""
        found[f"{before}Makes points"] = _schedule(part.get("schedulePolicy") or {})
        kept = part.get("retentionPolicy") or {}
        if kept.get("retentionDuration"):
            found[f"{before}Keeps every point"] = _duration(kept)
        for rule, label in _RULES:
            if kept.get(f"{rule}Schedule"):
                found[f"{before}Keeps {label}"] = _rule(rule, kept[f"{rule}Schedule"])
    found["Time zone"] = str(zone)
    if properties.get("instantRpRetentionRangeInDays") is not None:
        found["Instant restore"] = _count(properties["instantRpRetentionRangeInDays"], "day")
    every = at(properties, "keepstone.drillEveryDays")
    if properties.get("backupManagementType") == "AzureIaasVM":
        found["Restore drills"] = f"every {_count(every, 'day')}" if every else "none of its own"
    return found


def _parts(properties: Document) -> Iterator[Document]:
    parts = properties.get("subProtectionPolicy")
    yield from (one for one in (parts if isinstance(parts, list) else [properties]) if isinstance(one, dict))


def _named(part: Document, words: str) -> str:
    return (
        f"{part['policyType']}: {words}" if "policyType" in part and part["policyType"] not in ("V1", "V2") else words
    )


def _schedule(given: Document) -> str:
    minutes = given.get("scheduleFrequencyInMins")
    if minutes is not None:
        return f"every {span(minutes)}"
    frequency = str(given.get("scheduleRunFrequency", ""))
    inside = given.get(f"{frequency.casefold()}Schedule") or given
    if frequency.casefold() == "hourly":
        hours = inside.get("interval")
        window = f"from {_time(inside.get('scheduleWindowStartTime'))} for {inside.get('scheduleWindowDuration')} hours"
        return f"every {_count(hours, 'hour')} {window}"
    times = _listed([_time(one) for one in inside.get("scheduleRunTimes") or ()])
    if frequency.casefold() == "weekly":
        every = given.get("scheduleWeeklyFrequency") or 1
        weeks = "" if every == 1 else f"every {every} weeks "
        return f"{weeks}on {_listed(inside.get('scheduleRunDays') or ())} at {times}"
    return f"daily at {times}"


def _retention(given: Document) -> str:
    found = [_duration(given)] if given.get("retentionDuration") else []
    for rule, label in _RULES:
        inside = given.get(f"{rule}Schedule")
        if inside:
            found.append(f"{label} {_duration(inside)}")
    return ", ".join(found)


def _rule(rule: str, given: Document) -> str:
    days = given.get("daysOfTheWeek")
    if rule == "daily":
        return _duration(given)
    if rule == "weekly":
        return f"{_duration(given)}, of {_listed(days or ())}"
    months = f" of {_listed(given.get('monthsOfYear') or ())}" if rule == "yearly" else ""
    week = given.get("retentionScheduleWeekly")
    if str(given.get("retentionScheduleFormatType")).casefold() == "weekly" and week:
        weeks = _listed([str(one).casefold() for one in week.get("weeksOfTheMonth") or ()])
        return f"{_duration(given)}, of the {weeks} {_listed(week.get('daysOfTheWeek') or ())}{months}"
    numbers = [
        "the last day" if one.get("isLast") else f"day {one.get('date')}"
        for one in at(given, "retentionScheduleDaily.daysOfTheMonth", ())
    ]
    return f"{_duration(given)}, of {_listed(numbers)}{months}"


def _duration(given: Document) -> str:
    count, unit = at(given, "retentionDuration.count"), str(at(given, "retentionDuration.durationType"))
    return _count(count, _UNITS.get(unit.casefold(), unit))


def _count(count: Any, unit: str) -> str:
    return f"{count} {unit}{'' if count == 1 else 's'}"


def _time(moment: Any) -> str:
    try:
        return f"{datetime.fromisoformat(str(moment)):%H:%M}"
    except ValueError:
        return str(moment)


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
