# SPDX-License-Identifier: Apache-2.0
"""The names of days and months, as policies write them and as people read them."""

from __future__ import annotations

from datetime import date

from keepstone.portal.speech import _, later

__all__ = ["MONTHS", "WEEKDAYS", "month_of", "named", "short", "shortest"]

WEEKDAYS = (
    later("Monday"), later("Tuesday"), later("Wednesday"), later("Thursday"), later("Friday"), later("Saturday"),
    later("Sunday"),
)  # fmt: skip
MONTHS = (
    later("January"), later("February"), later("March"), later("April"), later("May"), later("June"), later("July"),
    later("August"), later("September"), later("October"), later("November"), later("December"),
)  # fmt: skip
_SHORT = {
    "Monday": later("Mon"), "Tuesday": later("Tue"), "Wednesday": later("Wed"), "Thursday": later("Thu"),
    "Friday": later("Fri"), "Saturday": later("Sat"), "Sunday": later("Sun"),
    "January": later("Jan"), "February": later("Feb"), "March": later("Mar"), "April": later("Apr"),
    "May": later("May"), "June": later("Jun"), "July": later("Jul"), "August": later("Aug"),
    "September": later("Sep"), "October": later("Oct"), "November": later("Nov"), "December": later("Dec"),
}  # fmt: skip
_SHORTEST = {
    "Monday": later("Mo"), "Tuesday": later("Tu"), "Wednesday": later("We"), "Thursday": later("Th"),
    "Friday": later("Fr"), "Saturday": later("Sa"), "Sunday": later("Su"),
}  # fmt: skip
_KNOWN = {name.casefold(): name for name in (*WEEKDAYS, *MONTHS)}


def named(name: str) -> str:
    """A day or a month, however a policy spells it; anything else as it is."""
    known = _KNOWN.get(name.casefold())
    return name if known is None else _(known)


def short(name: str) -> str:
    """A day or a month, in few letters; what has no shorter name, by its own."""
    return _(_SHORT.get(name, name))


def shortest(name: str) -> str:
    """A day of the week, in two letters or so."""
    return _(_SHORTEST[name])


def month_of(day: date) -> str:
    """Its month, with the year."""
    return _("%(month)s %(year)s", month=_(MONTHS[day.month - 1]), year=day.year)
