# SPDX-License-Identifier: Apache-2.0
"""A policy in words. Whatever its document lacks, or has that is not understood, is left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from keepstone.portal.api import Document
from keepstone.portal.dates import named
from keepstone.portal.rendering import at
from keepstone.portal.speech import _, counted, later

__all__ = ["KINDS", "kind", "retention", "said", "schedule", "span"]

KINDS = {
    "AzureIaasVM": later("virtual machines"),
    "MAB": later("files and disks"),
    "AzureWorkload": later("databases"),
}
"""What policies are for, by their management."""
_KEPT = {
    "daily": later("every point %(time)s"),
    "weekly": later("weekly %(time)s"),
    "monthly": later("monthly %(time)s"),
    "yearly": later("yearly %(time)s"),
}
_LABELS = {
    "daily": later("Keeps every point"),
    "weekly": later("Keeps weekly"),
    "monthly": later("Keeps monthly"),
    "yearly": later("Keeps yearly"),
}
_WEEKS = {
    "first": later("first"),
    "second": later("second"),
    "third": later("third"),
    "fourth": later("fourth"),
    "last": later("last"),
}


def kind(properties: Document) -> str:
    """What it is for."""
    management = str(properties.get("backupManagementType", ""))
    if management == "AzureIaasVM":
        enhanced = properties.get("policyType") == "V2"
        return _("virtual machines, enhanced") if enhanced else _("virtual machines, standard")
    return _(KINDS[management]) if management in KINDS else management


def span(minutes: int) -> str:
    """So many minutes, for people."""
    days, rest = divmod(minutes, 1440)
    found = [_count(days, "days")] if days else []
    found += [_count(rest // 60, "hours")] if rest // 60 else []
    found += [_count(rest % 60, "minutes")] if rest % 60 else []
    return " ".join(found) or _count(0, "minutes")


def schedule(properties: Document) -> str:
    """When it makes points, without its time zone."""
    return "; ".join(_named(part, _schedule(part.get("schedulePolicy") or {})) for part in _parts(properties))


def retention(properties: Document) -> str:
    """How long it keeps them."""
    return "; ".join(_named(part, _retention(part.get("retentionPolicy") or {})) for part in _parts(properties))


def said(properties: Document) -> dict[str, str]:
    """All that the form of a policy is about, in words by what it is about."""
    zone = at(properties, "settings.timeZone") or properties.get("timeZone") or "UTC"
    found = {_("For"): kind(properties)}
    for part in _parts(properties):
        kept = part.get("retentionPolicy") or {}
        facts = {_("Makes points"): _schedule(part.get("schedulePolicy") or {})}
        if kept.get("retentionDuration"):
            facts[_("Keeps every point")] = _duration(kept)
        for rule, label in _LABELS.items():
            if kept.get(f"{rule}Schedule"):
                facts[_(label)] = _rule(rule, kept[f"{rule}Schedule"])
        if "subProtectionPolicy" in properties:
            type_ = part.get("policyType", "")
            facts = {_("%(part)s: %(says)s", part=type_, says=label): fact for label, fact in facts.items()}
        found |= facts
    found[_("Time zone")] = str(zone)
    if properties.get("instantRpRetentionRangeInDays") is not None:
        found[_("Instant restore")] = _count(properties["instantRpRetentionRangeInDays"], "days")
    every = at(properties, "keepstone.drillEveryDays")
    if properties.get("backupManagementType") == "AzureIaasVM":
        drills = _("every %(time)s", time=_count(every, "days")) if every else _("none of its own")
        found[_("Restore drills")] = drills
    return found


def _parts(properties: Document) -> Iterator[Document]:
    parts = properties.get("subProtectionPolicy")
    yield from (one for one in (parts if isinstance(parts, list) else [properties]) if isinstance(one, dict))


def _named(part: Document, words: str) -> str:
    if "policyType" not in part or part["policyType"] in ("V1", "V2"):
        return words
    return _("%(part)s: %(says)s", part=part["policyType"], says=words)


def _schedule(given: Document) -> str:
    minutes = given.get("scheduleFrequencyInMins")
    if minutes is not None:
        return _("every %(time)s", time=span(minutes))
    frequency = str(given.get("scheduleRunFrequency", ""))
    inside = given.get(f"{frequency.casefold()}Schedule") or given
    if frequency.casefold() == "hourly":
        return _(
            "every %(time)s from %(first)s for %(window)s",
            time=_count(inside.get("interval"), "hours"),
            first=_time(inside.get("scheduleWindowStartTime")),
            window=_count(inside.get("scheduleWindowDuration"), "hours"),
        )
    times = _listed([_time(one) for one in inside.get("scheduleRunTimes") or ()])
    if frequency.casefold() != "weekly":
        return _("daily at %(times)s", times=times)
    every, days = given.get("scheduleWeeklyFrequency") or 1, _days(inside.get("scheduleRunDays"))
    if every == 1:
        return _("on %(days)s at %(times)s", days=days, times=times)
    return counted(
        "every %(number)s week on %(days)s at %(times)s",
        "every %(number)s weeks on %(days)s at %(times)s",
        every,
        days=days,
        times=times,
    )


def _retention(given: Document) -> str:
    found = [_duration(given)] if given.get("retentionDuration") else []
    for rule, text in _KEPT.items():
        inside = given.get(f"{rule}Schedule")
        if inside:
            found.append(_(text, time=_duration(inside)))
    return ", ".join(found)


def _rule(rule: str, given: Document) -> str:
    time = _duration(given)
    if rule == "daily":
        return time
    if rule == "weekly":
        return _("%(time)s, of %(days)s", time=time, days=_days(given.get("daysOfTheWeek")))
    week = given.get("retentionScheduleWeekly")
    if str(given.get("retentionScheduleFormatType")).casefold() == "weekly" and week:
        weeks = [str(one).casefold() for one in week.get("weeksOfTheMonth") or ()]
        which = _listed([_(_WEEKS[one]) if one in _WEEKS else one for one in weeks])
        days = _("the %(weeks)s %(days)s", weeks=which, days=_days(week.get("daysOfTheWeek")))
    else:
        numbers = at(given, "retentionScheduleDaily.daysOfTheMonth", ())
        days = _listed(
            [_("the last day") if one.get("isLast") else _("day %(number)s", number=one.get("date")) for one in numbers]
        )
    if rule == "yearly":
        months = _days(given.get("monthsOfYear"))
        return _("%(time)s, of %(days)s of %(months)s", time=time, days=days, months=months)
    return _("%(time)s, of %(days)s", time=time, days=days)


def _duration(given: Document) -> str:
    return _count(at(given, "retentionDuration.count"), str(at(given, "retentionDuration.durationType")))


def _count(count: Any, unit: str) -> str:
    """As many as a policy says, in its units."""
    if not isinstance(count, int):
        return f"{count} {unit}"
    match unit.casefold():
        case "minutes":
            return counted("%(number)s minute", "%(number)s minutes", count)
        case "hours":
            return counted("%(number)s hour", "%(number)s hours", count)
        case "days":
            return counted("%(number)s day", "%(number)s days", count)
        case "weeks":
            return counted("%(number)s week", "%(number)s weeks", count)
        case "months":
            return counted("%(number)s month", "%(number)s months", count)
        case "years":
            return counted("%(number)s year", "%(number)s years", count)
    return f"{count} {unit}"


def _time(moment: Any) -> str:
    try:
        return f"{datetime.fromisoformat(str(moment)):%H:%M}"
    except ValueError:
        return str(moment)


def _days(names: Any) -> str:
    """Days or months."""
    return _listed([named(str(one)) for one in names or ()])


def _listed(words: Sequence[str]) -> str:
    if len(words) < 2:
        return "".join(words)
    return _("%(words)s and %(last)s", words=", ".join(words[:-1]), last=words[-1])
