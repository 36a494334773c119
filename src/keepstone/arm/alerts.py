# SPDX-License-Identifier: Apache-2.0
"""Alerts, as Azure Monitor has them, of the subscription, a group, or a vault. Source: Microsoft.AlertsManagement,
alerts 2019-03-01.

Whoever may see the alerts of a vault sees them at each of the three. Azure's roles name that after the vault
(`monitoringAlerts`), so it is the vault that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from keepstone.arm.answers import moment, paged, skip_token
from keepstone.arm.named import check_named
from keepstone.arm.table import GROUP, SUBSCRIPTION, VAULT, Answer, Call, Table
from keepstone.arm.vaults import find
from keepstone.catalogue import alerts as rows
from keepstone.control import alerts, people
from keepstone.errors import InvalidRequest
from keepstone.vault import folded
from keepstone.vault.alerts import RULES, Alert, Condition, Severity, State

__all__ = ["table"]

table = Table()
_READ = "Microsoft.RecoveryServices/Vaults/monitoringAlerts/read"
_WRITE = "Microsoft.RecoveryServices/Vaults/monitoringAlerts/write"
_ALERTS = "providers/Microsoft.AlertsManagement/alerts"
_SERVICE = "Azure Backup"  # what Azure calls the source of a vault's alerts
_RANGES = {"1h": timedelta(hours=1), "1d": timedelta(days=1), "7d": timedelta(days=7), "30d": timedelta(days=30)}
_SORTED = {"startdatetime": "raised", "lastmodifieddatetime": "changed"}
_PAGE, _LARGEST = 25, 250

Run = Callable[[Call], Answer]


def _everywhere(verb: str, rest: str, name: str, action: str) -> Callable[[Run], Run]:
    """Says that the function below answers this at every scope."""

    def register(run: Run) -> Run:
        for scope in (SUBSCRIPTION, GROUP, VAULT):
            table(verb, f"{scope}/{_ALERTS}{rest}", name, action=action, filtered=scope != VAULT)(run)
        return run

    return register


@_everywhere("GET", "", "alerts.get_all", _READ)
def listing(call: Call) -> Answer:
    """Those that changed within a day, or in `timeRange` or `customTimeRange`, the newest first, page by page."""
    size, by, descending = _page_size(call), *_order(call)
    where = _filters(call)
    with call.plane.look() as connection:
        where.append(_scope(call, connection))
        found = alerts.listing(
            connection, where, by=by, descending=descending, limit=size + 1, after=_after(skip_token(call))
        )
    context = folded(_asked(call, "includeContext") or "false") == "true"
    return paged(
        call, found, size, lambda one: f"{getattr(one, by).isoformat()} {one.id}", lambda one: document(one, context)
    )


@_everywhere("GET", "/{alert}", "alerts.get_by_id", _READ)
def get(call: Call) -> Answer:
    """`NotFound`."""
    with call.plane.look() as connection:
        return Answer(body=document(_find(call, connection)))


@_everywhere("POST", "/{alert}/changestate", "alerts.change_state", _WRITE)
def change_state(call: Call) -> Answer:
    """What people did about it: `newState` is New, Acknowledged or Closed."""
    assert call.who is not None
    with call.plane.change() as change:
        alert = _find(call, change.connection)
        people.authorize(call.held, call.who, _WRITE, alert.resource)
        given = _asked(call, "newState")
        if given is None:
            raise InvalidRequest(f"the newState is missing; it is one of {', '.join(State)}", target="newState")
        state = State(_word("newState", given, State))
        return Answer(body=document(alerts.set_state(change, alert, state, call.who.client)))


def document(alert: Alert, context: bool = True) -> dict[str, Any]:
    """An alert as clients see it. `context`: with what only Keepstone says of it."""
    rule, (name, group) = alert.rule, _parts(alert.resource)
    properties: dict[str, Any] = {
        "essentials": {
            "severity": str(rule.severity),
            "signalType": "Log",
            "alertState": str(alert.state),
            "monitorCondition": str(alert.condition),
            "monitorService": _SERVICE,
            "targetResource": alert.resource,
            "targetResourceName": name,
            "targetResourceGroup": group,
            "targetResourceType": _type(alert.resource),
            "sourceCreatedId": str(alert.id),
            "smartGroupId": None,
            "smartGroupingReason": None,
            "alertRule": rule.name,
            "startDateTime": moment(alert.raised),
            "lastModifiedDateTime": moment(alert.changed),
            "lastModifiedUserName": alert.by or "System",
            "monitorConditionResolvedDateTime": moment(alert.resolved),
            "actionStatus": {"isSuppressed": False},
            "description": alert.message,
        },
    }
    if context:
        properties["context"] = {
            "kind": str(alert.kind),
            "category": str(rule.category),
            "entityFriendlyName": alert.entity,
            "occurrences": alert.count,
            "lastOccurrence": moment(alert.last),
            "jobId": None if alert.job is None else str(alert.job),
            "recommendation": rule.todo,
        }
    return {"id": alert.path, "name": rule.name, "type": "Microsoft.AlertsManagement/alerts", "properties": properties}


def _scope(call: Call, connection: sa.Connection) -> sa.ColumnElement[bool]:
    """Those at the path's scope that the client may see, and that its filters of resources let through."""
    if "vault" in call.names:
        vault = find(call, connection)
        return rows.c.vault == vault.id if _is_meant(call, vault.path) else sa.false()
    check_named(call, connection)
    return rows.c.resource.in_([one for one in alerts.resources(connection) if _is_meant(call, one)])


def _is_meant(call: Call, resource: str) -> bool:
    _, group = _parts(resource)
    facts = {
        "targetResource": resource,
        "targetResourceType": _type(resource),
        "targetResourceGroup": group or "",
    }
    wanted = {key: _asked(call, key) for key in facts}
    return (
        ("group" not in call.names or folded(group or "") == folded(call.names["group"]))
        and all(value is None or folded(value) == folded(facts[key]) for key, value in wanted.items())
        and _may_read(call, resource)
    )


def _find(call: Call, connection: sa.Connection) -> Alert:
    """The alert that the path names. `NotFound` also for one of elsewhere, and for one that the client may not see."""
    check_named(call, connection)
    alert = alerts.find(connection, call.names["alert"])
    here = "vault" not in call.names or alert.vault == find(call, connection).id
    if "group" in call.names and folded(_parts(alert.resource)[1] or "") != folded(call.names["group"]):
        here = False
    if not here or not _may_read(call, alert.resource):
        raise alerts.missing(call.names["alert"])
    return alert


def _may_read(call: Call, resource: str) -> bool:
    assert call.who is not None
    return people.may(call.held, call.who.id, _READ, resource)


def _filters(call: Call) -> list[sa.ColumnElement[bool]]:
    """What is asked of the alerts themselves. `InvalidRequest`."""
    where = _time(call)
    severity, state, condition, rule, service = (
        _asked(call, key) for key in ("severity", "alertState", "monitorCondition", "alertRule", "monitorService")
    )
    if severity is not None:
        word = _word("severity", severity, Severity)
        where.append(rows.c.kind.in_([kind for kind, one in RULES.items() if one.severity == word]))
    if state is not None:
        where.append(rows.c.state == _word("alertState", state, State))
    if condition is not None:
        where.append(rows.c.condition == _word("monitorCondition", condition, Condition))
    if rule is not None:
        where.append(rows.c.kind.in_([kind for kind, one in RULES.items() if folded(one.name) == folded(rule)]))
    if service is not None and folded(service) != folded(_SERVICE):
        where.append(sa.false())
    return where


def _time(call: Call) -> list[sa.ColumnElement[bool]]:
    """In which time they changed last."""
    custom, given = _asked(call, "customTimeRange"), _asked(call, "timeRange")
    if custom is None:
        length = _RANGES[_word("timeRange", given or "1d", _RANGES)]
        return [rows.c.changed >= call.plane.env.utc() - length]
    if given is not None:
        raise InvalidRequest("give timeRange or customTimeRange, not both", target="customTimeRange")
    try:
        begin, end = (_in_utc(datetime.fromisoformat(one)) for one in custom.split("/"))
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(
            f"customTimeRange is {custom!r}; write two moments such as 2026-01-31T00:00:00Z/2026-02-01T00:00:00Z",
            target="customTimeRange",
        ) from error
    return [rows.c.changed >= begin, rows.c.changed <= end]


def _in_utc(value: datetime) -> datetime:
    return value.astimezone(UTC) if value.tzinfo is not None else value.replace(tzinfo=UTC)


def _order(call: Call) -> tuple[str, bool]:
    """The column of a moment that they are sorted by, and whether the newest is the first."""
    by = _word("sortBy", _asked(call, "sortBy") or "lastModifiedDateTime", ("startDateTime", "lastModifiedDateTime"))
    order = _word("sortOrder", _asked(call, "sortOrder") or "desc", ("asc", "desc"))
    return _SORTED[folded(by)], order == "desc"


def _page_size(call: Call) -> int:
    given = _asked(call, "pageCount")
    if given is None:
        return _PAGE
    if not (given.isascii() and given.isdigit() and 1 <= int(given) <= _LARGEST):
        raise InvalidRequest(f"pageCount is {given!r}; it is a number from 1 to {_LARGEST}", target="pageCount")
    return int(given)


def _after(token: str) -> tuple[datetime, UUID] | None:
    if not token:
        return None
    when, _, identity = token.partition(" ")
    try:
        return _in_utc(datetime.fromisoformat(when)), UUID(identity)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest("$skipToken is none that this list gave", target="$skipToken") from error


def _asked(call: Call, key: str) -> str | None:
    """A parameter of the query; None where it is not there, or says nothing."""
    return next((value for name, value in call.query.items() if folded(name) == folded(key)), None) or None


def _word(key: str, given: str, words: Any) -> str:
    """A word as Azure spells it. `InvalidRequest` where it is none."""
    for word in words:
        if folded(word) == folded(given):
            return str(word)
    raise InvalidRequest(f"{key} is {given!r}; choose one of {', '.join(words)}", target=key)


def _parts(resource: str) -> tuple[str, str | None]:
    """What a vault is called, and the group that it is in: none where it is the subscription."""
    parts = resource.split("/")
    return parts[-1], parts[4] if len(parts) > 4 else None


def _type(resource: str) -> str:
    """As Azure writes it here."""
    group = _parts(resource)[1]
    return "microsoft.recoveryservices/vaults" if group is not None else "microsoft.resources/subscriptions"
