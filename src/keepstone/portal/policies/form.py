# SPDX-License-Identifier: Apache-2.0
"""A policy as a form: what stands in it for a policy that there is, and the policy that was filled in.

Times are those of clocks in the policy's zone. What the form does not ask for stays as it is in the policy that is
edited; whether what was given makes a policy is for the operation to say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from datetime import date, datetime
from typing import Any

from keepstone.errors import InvalidRequest
from keepstone.portal.api import Document
from keepstone.portal.dates import MONTHS, WEEKDAYS
from keepstone.portal.rendering import at
from keepstone.portal.speech import _, later

__all__ = ["BETWEEN", "FREQUENCIES", "KINDS", "RULES", "UNITS", "WEEKS", "filled", "properties"]

Values = Mapping[str, Sequence[str]]

KINDS = {
    "MAB": later("Files and disks"),
    "V1": later("Virtual machines, standard"),
    "V2": later("Virtual machines, enhanced"),
    "AzureWorkload": later("Databases"),
}
FREQUENCIES = {
    "Daily": later("Daily"),
    "Weekly": later("Weekly"),
    "Hourly": later("Hourly"),
    "Interval": later("At an interval"),
}
BETWEEN = {"": later("none"), "Differential": later("differential"), "Incremental": later("incremental")}
RULES = {
    "daily": later("for how long daily points are kept"),
    "weekly": later("for how long weekly points are kept"),
    "monthly": later("for how long monthly points are kept"),
    "yearly": later("for how long yearly points are kept"),
}
"""What is kept besides, each with what its number is."""
UNITS = (later("Days"), later("Weeks"), later("Months"), later("Years"))
WEEKS = (later("First"), later("Second"), later("Third"), later("Fourth"), later("Last"))

_NEW: dict[str, list[str]] = {
    "kind": ["MAB"], "zone": ["UTC"], "frequency": ["Daily"], "times": ["22:00"], "weekday": ["Sunday"], "every": ["1"],
    "hours": ["4"], "from": ["08:00"], "window": ["12"], "minutes": ["60"],
    "daily": ["on"], "daily-count": ["30"], "daily-unit": ["Days"],
    "weekly": [], "weekly-count": ["12"], "weekly-unit": ["Weeks"], "weekly-day": ["Sunday"],
    "monthly": [], "monthly-count": ["12"], "monthly-unit": ["Months"],
    "yearly": [], "yearly-count": ["10"], "yearly-unit": ["Years"], "yearly-month": ["January"],
    "snapshots": ["2"], "drill": [""], "workload": ["SQLDataBase"],
    "between": [""], "between-day": ["Monday"], "between-times": ["22:00"], "between-count": ["30"],
    "log": [""], "log-count": ["30"],
}  # fmt: skip
for _rule in ("monthly", "yearly"):
    _NEW |= {f"{_rule}-by": ["Weekly"], f"{_rule}-dates": ["1"], f"{_rule}-week": ["First"], f"{_rule}-day": ["Sunday"]}


# --- from a policy to the form


def filled(there: Document | None) -> dict[str, list[str]]:
    """What stands in the form for these properties; for a new policy where there are none."""
    values = deepcopy(_NEW)
    if there is None:
        return values
    management = str(there.get("backupManagementType"))
    v2 = there.get("policyType") == "V2"
    values["kind"] = [("V2" if v2 else "V1") if management == "AzureIaasVM" else management]
    values["zone"] = [str(at(there, "settings.timeZone") or there.get("timeZone") or "UTC")]
    values["snapshots"] = [_text(there.get("instantRpRetentionRangeInDays"))]
    values["drill"] = [_text(at(there, "keepstone.drillEveryDays"))]
    parts = _parts(there)
    _fill_schedule(values, at(parts["Full"], "schedulePolicy", {}))
    _fill_retention(values, at(parts["Full"], "retentionPolicy", {}))
    if management == "AzureWorkload":
        values["workload"] = [str(there.get("workLoadType") or "SQLDataBase")]
        for name in ("Differential", "Incremental"):
            if name in parts:
                values["between"] = [name]
                inner = at(parts[name], "schedulePolicy", {})
                values["between-day"] = _words(inner.get("scheduleRunDays"), WEEKDAYS)
                values["between-times"] = [_clocks(inner)]
                values["between-count"] = [_text(at(parts[name], "retentionPolicy.retentionDuration.count"))]
        if "Log" in parts:
            values["log"] = [_text(at(parts["Log"], "schedulePolicy.scheduleFrequencyInMins"))]
            values["log-count"] = [_text(at(parts["Log"], "retentionPolicy.retentionDuration.count"))]
    return values


def _fill_schedule(values: dict[str, list[str]], schedule: Document) -> None:
    if schedule.get("scheduleFrequencyInMins") is not None:
        values |= {"frequency": ["Interval"], "minutes": [_text(schedule["scheduleFrequencyInMins"])]}
        return
    frequency = str(schedule.get("scheduleRunFrequency")).capitalize()
    inside = schedule.get(f"{frequency.casefold()}Schedule") or schedule
    values["frequency"] = [frequency]
    if frequency == "Hourly":
        values["hours"] = [_text(inside.get("interval"))]
        values["from"] = [_clock(inside.get("scheduleWindowStartTime"))]
        values["window"] = [_text(inside.get("scheduleWindowDuration"))]
        return
    values["times"] = [_clocks(inside)]
    if frequency == "Weekly":
        values["weekday"] = _words(inside.get("scheduleRunDays"), WEEKDAYS)
        values["every"] = [_text(schedule.get("scheduleWeeklyFrequency") or 1)]


def _fill_retention(values: dict[str, list[str]], retention: Document) -> None:
    if retention.get("retentionDuration"):
        retention = {"dailySchedule": {"retentionDuration": retention["retentionDuration"]}}
    for rule in RULES:
        inside = retention.get(f"{rule}Schedule")
        values[rule] = ["on"] if inside else []
        if not inside:
            continue
        values[f"{rule}-count"] = [_text(at(inside, "retentionDuration.count"))]
        values[f"{rule}-unit"] = _words([at(inside, "retentionDuration.durationType")], UNITS)
        if rule == "weekly":
            values["weekly-day"] = _words(inside.get("daysOfTheWeek"), WEEKDAYS)
        if rule == "yearly":
            values["yearly-month"] = _words(inside.get("monthsOfYear"), MONTHS)
        if rule in ("monthly", "yearly"):
            values[f"{rule}-by"] = [str(inside.get("retentionScheduleFormatType")).capitalize()]
            days = at(inside, "retentionScheduleDaily.daysOfTheMonth")
            if days:
                texts = ["last" if day.get("isLast") else _text(day.get("date")) for day in days]
                values[f"{rule}-dates"] = [", ".join(texts)]
            week = inside.get("retentionScheduleWeekly")
            if week:
                values[f"{rule}-week"] = _words(week.get("weeksOfTheMonth"), WEEKS)
                values[f"{rule}-day"] = _words(week.get("daysOfTheWeek"), WEEKDAYS)


# --- from the form to a policy


def properties(given: Values, there: Document | None, today: date) -> Document:
    """What was filled in, over the properties that there are. `InvalidRequest` names what cannot be read."""
    form = _Form(given)
    kind = form.text("kind")
    if kind not in KINDS:
        raise InvalidRequest(_("choose what the policy is for"), target="kind")
    found = deepcopy(there or {})
    found.pop("protectedItemsCount", None)
    parts = _parts(found)
    full = parts.get("Full", {})
    schedule = _schedule(form, full.get("schedulePolicy") or {}, kind == "V2", today)
    retention = _retention(form, full.get("retentionPolicy") or {}, full.get("schedulePolicy") or {}, schedule)
    if kind == "AzureWorkload":
        return _workload(form, found, parts, {"schedulePolicy": schedule, "retentionPolicy": retention}, today)
    found |= {"schedulePolicy": schedule, "retentionPolicy": retention, "timeZone": form.text("zone")}
    found["backupManagementType"] = "MAB" if kind == "MAB" else "AzureIaasVM"
    if kind == "MAB":
        return found
    if kind == "V2":
        found["policyType"] = "V2"
    elif found.get("policyType") == "V2":
        del found["policyType"]
    found.setdefault("instantRPDetails", {})
    _put(found, "instantRpRetentionRangeInDays", form.maybe("snapshots", _("the days of instant restore")))
    drills = dict(found.get("keepstone") or {})
    _put(drills, "drillEveryDays", form.maybe("drill", _("the days between restore drills")))
    _put(found, "keepstone", drills or None)
    return found


def _workload(form: _Form, found: Document, parts: Mapping[str, Document], full: Document, today: date) -> Document:
    found["backupManagementType"] = "AzureWorkload"
    found["workLoadType"] = form.text("workload") or "SQLDataBase"
    settings = found.get("settings") or {"issqlcompression": False, "isCompression": False}
    found["settings"] = {**settings, "timeZone": form.text("zone")}
    made = [{**parts.get("Full", {}), "policyType": "Full", **full}]
    between = form.text("between")
    if between:
        at_ = _clock_times(form.text("between-times"), _("the times of the backups between full ones"), today)
        schedule = {
            "schedulePolicyType": "SimpleSchedulePolicy",
            "scheduleRunFrequency": "Weekly",
            "scheduleRunDays": form.texts("between-day"),
            "scheduleRunTimes": at_,
            "scheduleWeeklyFrequency": 0,
        }
        made.append(
            _simple(between, schedule, form.number("between-count", _("the days of backups between full ones")))
        )
    minutes = form.maybe("log", _("the minutes between backups of logs"))
    if minutes is not None:
        schedule = {"schedulePolicyType": "LogSchedulePolicy", "scheduleFrequencyInMins": minutes}
        made.append(_simple("Log", schedule, form.number("log-count", _("the days of logs"))))
    found["subProtectionPolicy"] = made
    return found


def _simple(kind: str, schedule: Document, days: int) -> Document:
    duration = {"count": days, "durationType": "Days"}
    kept = {"retentionPolicyType": "SimpleRetentionPolicy", "retentionDuration": duration}
    return {"policyType": kind, "schedulePolicy": schedule, "retentionPolicy": kept}


def _schedule(form: _Form, before: Document, v2: bool, today: date) -> Document:
    frequency = form.text("frequency")
    if frequency not in FREQUENCIES:
        raise InvalidRequest(_("choose how often points are made"), target="frequency")
    if frequency == "Interval":
        minutes = form.number("minutes", _("the minutes from one point to the next"))
        return {"schedulePolicyType": "LogSchedulePolicy", "scheduleFrequencyInMins": minutes}
    kind = "SimpleSchedulePolicyV2" if v2 else "SimpleSchedulePolicy"
    found: Document = {"schedulePolicyType": kind, "scheduleRunFrequency": frequency}
    anchor = _day_of(before) or today  # the week from which others are counted stays
    if frequency == "Hourly":
        found["hourlySchedule"] = {
            "interval": form.number("hours", _("the hours from one point to the next")),
            "scheduleWindowStartTime": _moments([form.text("from")], _("the time of the first point"), anchor)[0],
            "scheduleWindowDuration": form.number("window", _("the hours in which points are made")),
        }
        return found
    inside: Document = {"scheduleRunTimes": _clock_times(form.text("times"), _("the times of the day"), anchor)}
    if frequency == "Weekly":
        inside["scheduleRunDays"] = form.texts("weekday")
    if v2:
        return found | {f"{frequency.casefold()}Schedule": inside}
    every = form.number("every", _("the weeks from one to the next")) if frequency == "Weekly" else 1
    return found | inside | {"scheduleWeeklyFrequency": every if every > 1 else 0}


def _retention(form: _Form, before: Document, old: Document, new: Document) -> Document:
    """`old` and `new`: the schedules. A rule's time of the day follows the schedule's, unless it was another one."""
    found: Document = {"retentionPolicyType": "LongTermRetentionPolicy"}
    was, is_ = _clock(_first_run(old)), _first_run(new)
    for rule, label in RULES.items():
        if not form.text(rule):
            continue
        inside = before.get(f"{rule}Schedule")
        made: Document = {}
        times = list((inside or {}).get("retentionTimes") or ())
        if (inside is None or (times and _clock(times[0]) == was)) and is_ is not None:
            times = [is_]
        if times:
            made["retentionTimes"] = times
        unit = form.text(f"{rule}-unit")
        count = form.number(f"{rule}-count", _(label))
        made["retentionDuration"] = {"count": count, "durationType": unit}
        if rule == "weekly":
            made["daysOfTheWeek"] = form.texts("weekly-day")
        if rule in ("monthly", "yearly"):
            made |= _days(form, rule)
        if rule == "yearly":
            made["monthsOfYear"] = form.texts("yearly-month")
        found[f"{rule}Schedule"] = made
    return found


def _days(form: _Form, rule: str) -> Document:
    if form.text(f"{rule}-by") == "Daily":
        days = [_day(word, rule) for word in _split(form.text(f"{rule}-dates"))]
        return {"retentionScheduleFormatType": "Daily", "retentionScheduleDaily": {"daysOfTheMonth": days}}
    week = {"daysOfTheWeek": form.texts(f"{rule}-day"), "weeksOfTheMonth": form.texts(f"{rule}-week")}
    return {"retentionScheduleFormatType": "Weekly", "retentionScheduleWeekly": week}


def _day(word: str, rule: str) -> Document:
    if word.casefold() == "last":
        return {"date": 0, "isLast": True}
    if not (word.isascii() and word.isdecimal() and len(word) < 3):
        raise InvalidRequest(
            _(
                "the days of %(rule)s points have %(word)s; write numbers from 1 to 28, or last",
                rule=_("monthly") if rule == "monthly" else _("yearly"),
                word=repr(word[:20]),
            ),
            target=rule,
        )
    return {"date": int(word), "isLast": False}


class _Form:
    """What was given, by name."""

    def __init__(self, given: Values) -> None:
        self._given = given

    def text(self, name: str) -> str:
        return next(reversed(self._given.get(name) or ("",))).strip()

    def texts(self, name: str) -> list[str]:
        return list(self._given.get(name) or ())

    def number(self, name: str, label: str) -> int:
        """`InvalidRequest` for one that is none, in the words of its label."""
        text = self.text(name)
        if not (text.isascii() and text.isdecimal() and len(text) < 8):
            raise InvalidRequest(
                _("%(label)s: %(text)s is no whole number", label=label, text=repr(text[:20])), target=name
            )
        return int(text)

    def maybe(self, name: str, label: str) -> int | None:
        return self.number(name, label) if self.text(name) else None


def _parts(there: Document) -> dict[str, Document]:
    """The parts of a policy by their types; one that has no parts is a full one."""
    parts = there.get("subProtectionPolicy")
    if parts is None:
        return {"Full": there}
    return {str(part.get("policyType")).capitalize(): part for part in parts}


def _put(document: Document, key: str, value: Any) -> None:
    if value is None:
        document.pop(key, None)
    else:
        document[key] = value


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _words(given: Any, known: Sequence[str]) -> list[str]:
    """Words as they are spelled here."""
    spelled = {word.casefold(): word for word in known}
    return [spelled.get(str(word).casefold(), str(word)) for word in given or ()]


def _split(text: str) -> list[str]:
    return [word for word in re.split(r"[\s,;]+", text) if word]


def _clock_times(text: str, label: str, day: date) -> list[str]:
    return _moments(_split(text), label, day)


def _moments(clocks: Sequence[str], label: str, day: date) -> list[str]:
    found = []
    for clock in clocks:
        if not re.fullmatch(r"([01]?\d|2[0-3]):[0-5]\d", clock, re.ASCII):
            raise InvalidRequest(
                _("%(label)s: %(text)s is no time; write it as 22:30", label=label, text=repr(clock[:20])),
                target="times",
            )
        found.append(f"{day.isoformat()}T{clock:0>5}:00Z")
    return found


def _runs(schedule: Document) -> list[Any]:
    frequency = str(schedule.get("scheduleRunFrequency")).casefold()
    inside = schedule.get(f"{frequency}Schedule") or schedule
    start = inside.get("scheduleWindowStartTime")
    return [start] if start else list(inside.get("scheduleRunTimes") or ())


def _first_run(schedule: Document) -> str | None:
    runs = _runs(schedule)
    return str(runs[0]) if runs else None


def _day_of(schedule: Document) -> date | None:
    first = _first_run(schedule)
    try:
        return datetime.fromisoformat(first).date() if first else None
    except ValueError:
        return None


def _clock(moment: Any) -> str:
    try:
        return f"{datetime.fromisoformat(str(moment)):%H:%M}"
    except ValueError:
        return ""


def _clocks(schedule: Document) -> str:
    return ", ".join(_clock(one) for one in schedule.get("scheduleRunTimes") or ())
