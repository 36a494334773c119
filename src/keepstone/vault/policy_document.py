# SPDX-License-Identifier: Apache-2.0
"""Protection policies as ARM has them, and the domain's `Policy` out of them.

The document that a client sends is kept as it is, so that what Keepstone does not know comes back unchanged; here it
is only read. Shapes: Microsoft.RecoveryServices, backup API, `ProtectionPolicy` and its kinds. Of the moments in
`scheduleRunTimes` and `retentionTimes` only the time of the day counts, in the policy's own zone; the date is the week
from which `scheduleWeeklyFrequency` is counted.

Wider than Azure: a `LogSchedulePolicy`, an interval in minutes, is taken for full backups too, and a policy of virtual
machines may have `keepstone.drillEveryDays`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from typing import Any, NoReturn, TypeVar

from keepstone.errors import InvalidPolicy
from keepstone.vault.policy import BackupType, Management, Part, Policy
from keepstone.vault.retention import Days, Duration, Retention, Rule, Unit, WeekDays
from keepstone.vault.schedule import Daily, Hourly, Interval, Schedule, Weekly

__all__ = ["read_policy"]

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_WEEKS = ("Last", "First", "Second", "Third", "Fourth")  # by the numbers of `WeekDays`
_MONTHS = ("", "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
           "November", "December")  # fmt: skip

T = TypeVar("T")


def read_policy(name: str, properties: Mapping[str, Any]) -> Policy:
    """The policy that these `properties` of an ARM resource say. `InvalidPolicy` names the part that does not do, as a
    path from `properties`."""
    with _within("properties"):
        at = _Object(properties, "")
        management = at.one_of("backupManagementType", {kind.value: kind for kind in Management})
        if management is Management.WORKLOAD:
            settings = at.child("settings") if at.has("settings") else _Object({}, "settings")
            parts = tuple(_part(part) for part in at.children("subProtectionPolicy"))
            return Policy(name=name, management=management, parts=parts, zone=settings.text("timeZone", "UTC"))
        part = Part(BackupType.FULL, _schedule(at.child("schedulePolicy")), _retention(at.child("retentionPolicy")))
        snapshots = "instantRpRetentionRangeInDays"
        return Policy(
            name=name,
            management=management,
            parts=(part,),
            zone=at.text("timeZone", "UTC"),
            snapshot_days=at.number(snapshots) if at.has(snapshots) else None,
            drill_days=at.child("keepstone").number("drillEveryDays") if at.has("keepstone") else None,
        )


def _part(at: _Object) -> Part:
    kind = at.one_of("policyType", {kind.value: kind for kind in BackupType})
    with _within(at.path):
        return Part(kind, _schedule(at.child("schedulePolicy")), _retention(at.child("retentionPolicy")))


def _schedule(at: _Object) -> Schedule:
    kinds: dict[str, Callable[[_Object], Schedule]] = {
        "SimpleSchedulePolicy": _simple,
        "SimpleSchedulePolicyV2": _simple_v2,
        "LogSchedulePolicy": lambda at: Interval(timedelta(minutes=at.number("scheduleFrequencyInMins"))),
    }
    return at.one_of("schedulePolicyType", kinds)(at)


def _simple(at: _Object) -> Schedule:
    frequencies: dict[str, Callable[[], Schedule]] = {
        "Daily": lambda: Daily(at.times("scheduleRunTimes")),
        "Weekly": lambda: Weekly(
            at.chosen("scheduleRunDays", _DAYS),
            at.times("scheduleRunTimes"),
            max(1, at.number("scheduleWeeklyFrequency", 1)),  # Azure sends 0 for every week
            at.first_date("scheduleRunTimes"),
        ),
        "Hourly": lambda: _hourly(at.child("hourlySchedule")),
    }
    return at.one_of("scheduleRunFrequency", frequencies)()


def _simple_v2(at: _Object) -> Schedule:
    def weekly() -> Schedule:
        week = at.child("weeklySchedule")
        return Weekly(
            week.chosen("scheduleRunDays", _DAYS),
            week.times("scheduleRunTimes"),
            anchor=week.first_date("scheduleRunTimes"),
        )

    frequencies: dict[str, Callable[[], Schedule]] = {
        "Daily": lambda: Daily(at.child("dailySchedule").times("scheduleRunTimes")),
        "Weekly": weekly,
        "Hourly": lambda: _hourly(at.child("hourlySchedule")),
    }
    return at.one_of("scheduleRunFrequency", frequencies)()


def _hourly(at: _Object) -> Hourly:
    return Hourly(
        at.moment("scheduleWindowStartTime").time(),
        timedelta(hours=at.number("interval")),
        timedelta(hours=at.number("scheduleWindowDuration")),
    )


def _retention(at: _Object) -> Retention:
    kinds: dict[str, Callable[[], Retention]] = {
        "SimpleRetentionPolicy": lambda: Retention(daily=_duration(at)),
        "LongTermRetentionPolicy": lambda: Retention(
            daily=at.maybe("dailySchedule", _duration),
            weekly=at.maybe("weeklySchedule", _weekly),
            monthly=at.maybe("monthlySchedule", _monthly),
            yearly=at.maybe("yearlySchedule", _yearly),
        ),
    }
    return at.one_of("retentionPolicyType", kinds)()


def _duration(at: _Object) -> Duration:
    duration = at.child("retentionDuration")
    with _within(at.path):
        return Duration(duration.number("count"), duration.one_of("durationType", {unit.value: unit for unit in Unit}))


def _weekly(at: _Object) -> Rule:
    return Rule(_duration(at), weekdays=at.chosen("daysOfTheWeek", _DAYS), at=at.time_of_day("retentionTimes"))


def _monthly(at: _Object) -> Rule:
    return Rule(_duration(at), days=_days(at), at=at.time_of_day("retentionTimes"))


def _yearly(at: _Object) -> Rule:
    months = at.chosen("monthsOfYear", _MONTHS)
    return Rule(_duration(at), days=_days(at), months=months, at=at.time_of_day("retentionTimes"))


def _days(at: _Object) -> Days | WeekDays:
    def by_number() -> Days:
        numbers = set()
        for day in at.child("retentionScheduleDaily").children("daysOfTheMonth"):
            numbers.add(0 if day.value.get("isLast") else day.number("date"))
        return Days(frozenset(numbers))

    def by_weekday() -> WeekDays:
        week = at.child("retentionScheduleWeekly")
        return WeekDays(week.chosen("daysOfTheWeek", _DAYS), week.chosen("weeksOfTheMonth", _WEEKS))

    formats: dict[str, Callable[[], Days | WeekDays]] = {"Daily": by_number, "Weekly": by_weekday}
    with _within(at.path):
        return at.one_of("retentionScheduleFormatType", formats)()


@contextmanager
def _within(path: str) -> Iterator[None]:
    """What is wrong inside is named from outside: the target gets `path` in front."""
    try:
        yield
    except InvalidPolicy as error:
        if error.target.startswith(f"{path}."):
            raise
        raise InvalidPolicy(str(error), target=f"{path}.{error.target}") from error


class _Object:
    """A JSON object that knows where it stands; every reading of it says so where it fails."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, Mapping):
            raise InvalidPolicy(f"{path or 'properties'} has to be an object", target=path or "properties")
        self.value = value
        self.path = path

    def has(self, key: str) -> bool:
        return self.value.get(key) is not None

    def child(self, key: str) -> _Object:
        if not self.has(key):
            self._fail(key, "is missing")
        return _Object(self.value[key], self._path(key))

    def maybe(self, key: str, read: Callable[[_Object], T]) -> T | None:
        return read(self.child(key)) if self.has(key) else None

    def children(self, key: str) -> list[_Object]:
        return [_Object(value, f"{self._path(key)}[{index}]") for index, value in enumerate(self._list(key))]

    def one_of(self, key: str, meanings: Mapping[str, T]) -> T:
        """What this word means; case does not count, as in Azure."""
        value = self.value.get(key)
        for word, meaning in meanings.items():
            if isinstance(value, str) and value.casefold() == word.casefold():
                return meaning
        self._fail(key, f"is {value!r}; choose one of {', '.join(meanings)}")

    def chosen(self, key: str, words: tuple[str, ...]) -> frozenset[int]:
        """The positions of these words."""
        numbers = {word.casefold(): number for number, word in enumerate(words) if word}
        found = set()
        for value in self._list(key):
            number = numbers.get(value.casefold()) if isinstance(value, str) else None
            if number is None:
                self._fail(key, f"has {value!r}; choose among {', '.join(filter(None, words))}")
            found.add(number)
        return frozenset(found)

    def number(self, key: str, default: int | None = None) -> int:
        value = self.value.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            self._fail(key, f"is {value!r}, and has to be a whole number")
        if not 0 <= value <= 1_000_000:
            self._fail(key, f"is {value}, and has to be between 0 and 1,000,000")
        return value

    def text(self, key: str, default: str) -> str:
        value = self.value.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            self._fail(key, f"is {value!r}, and has to be a text")
        return value

    def moment(self, key: str) -> datetime:
        return self._moment(key, self.value.get(key))

    def times(self, key: str) -> tuple[time, ...]:
        return tuple(self._moment(key, value).time().replace(tzinfo=None) for value in self._list(key))

    def first_date(self, key: str) -> date:
        values = self._list(key)
        return self._moment(key, values[0]).date() if values else date(1970, 1, 4)

    def time_of_day(self, key: str) -> time | None:
        return self.times(key)[0] if self.value.get(key) else None

    def _moment(self, key: str, value: Any) -> datetime:
        if isinstance(value, str):
            try:
                return datetime.fromisoformat(value).replace(second=0, microsecond=0)
            except ValueError:
                pass
        self._fail(key, f"has {value!r}, and has to be a date and time such as 2026-01-31T22:30:00Z")

    def _list(self, key: str) -> list[Any]:
        value = self.value.get(key)
        if not isinstance(value, list) or len(value) > 1000:
            self._fail(key, "has to be a list" if not isinstance(value, list) else "is too long")
        return value

    def _path(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def _fail(self, key: str, what: str) -> NoReturn:
        path = self._path(key)
        raise InvalidPolicy(f"{path} {what}", target=path)
