# SPDX-License-Identifier: Apache-2.0
"""Time zones by the names that policies carry: Windows' ("Pacific Standard Time") or IANA's ("America/Los_Angeles").

The mapping is that of Unicode CLDR, windowsZones, as tzlocal ships it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from keepstone.errors import InvalidPolicy

__all__ = ["instant", "windows_names", "zone"]

_GAP = timedelta(hours=24)  # no zone ever skipped more than a day


@cache
def zone(name: str) -> ZoneInfo:
    """The rules of this zone; `InvalidPolicy` where there is none of this name."""
    from tzlocal.windows_tz import win_tz

    try:
        return ZoneInfo(_windows(win_tz).get(name.casefold(), name))
    except (ZoneInfoNotFoundError, ValueError, OSError):  # of a name that is none: a folder, a path, a NUL
        raise InvalidPolicy(
            f"no time zone is called {name[:100]!r}; use a Windows name such as 'W. Europe Standard Time' or an IANA "
            "name such as 'Europe/Berlin'",
            target="properties.timeZone",
        ) from None


@cache
def windows_names() -> tuple[str, ...]:
    """The names that Windows has for zones, in their order."""
    from tzlocal.windows_tz import win_tz

    return tuple(sorted(win_tz))


def _windows(table: dict[str, str]) -> dict[str, str]:
    return {name.casefold(): iana for name, iana in table.items()}


@lru_cache(maxsize=4096)
def instant(local: datetime, rules: ZoneInfo) -> datetime:
    """The moment, in UTC, at which clocks of this zone show `local`, which has no zone itself.

    A time that comes twice, when clocks are set back, is its first coming. One that never comes, when they are set
    forward, is the moment at which they are: so nothing is left out and nothing happens twice.
    """
    there = local.replace(tzinfo=rules, fold=0)
    moment = there.astimezone(UTC)
    if moment.astimezone(rules).replace(tzinfo=None) == local:
        return moment
    return _end_of_gap(moment, local, rules)


def _end_of_gap(moment: datetime, local: datetime, rules: ZoneInfo) -> datetime:
    """The first moment at which clocks show `local` or later, to the second."""
    low, high = moment - _GAP, moment + _GAP
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) // 2
        if middle.astimezone(rules).replace(tzinfo=None) < local:
            low = middle
        else:
            high = middle
    return high.replace(microsecond=0)
