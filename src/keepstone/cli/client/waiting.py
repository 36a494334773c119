# SPDX-License-Identifier: Apache-2.0
"""Following a job to its end, with how far it is, and how a command ends then.

The job is the service's: it goes on whatever becomes of the command that waits for it, and a service that is away for a
minute, as for a new version, is waited for.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from typing import Any

from keepstone.cli.client.http import Answer
from keepstone.cli.client.output import Column, at, moment, octets
from keepstone.cli.client.refusals import UNREACHABLE
from keepstone.cli.client.session import Session
from keepstone.cli.progress import Meter, metered
from keepstone.errors import JobCancelled, KeepstoneError

__all__ = ["COLUMNS", "conclude", "ended", "fact", "follow", "is_open", "job_of"]

Document = dict[str, Any]
_OPEN = ("InProgress", "Cancelling")
_FIRST, _MOST = 0.1, 2.0  # seconds between two looks
_AWAY = 60.0  # seconds for which a service may be away
_DURATION = re.compile(r"PT(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?")


def is_open(job: Document) -> bool:
    """Whether it has not come to its end."""
    return at(job, "properties.status") in _OPEN


def fact(job: Any, name: str) -> Any:
    """What a job says beside its state; None where it does not."""
    return (at(job, "properties.extendedInfo.propertyBag") or {}).get(name)


def _number(job: Any, name: str) -> int:
    text = str(fact(job, name) or "")
    return int(text) if text.isdecimal() else 0


def _seconds(job: Any) -> float:
    found = _DURATION.fullmatch(str(at(job, "properties.duration") or ""))
    if found is None:
        return 0.0
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds


def _took(job: Any) -> str:
    from keepstone.cli.render import duration

    return duration(_seconds(job))


def _reason(job: Any) -> str:
    """Why it failed."""
    errors = at(job, "properties.errorDetails") or []
    return "; ".join(str(error.get("errorString") or "") for error in errors)


def _bag(name: str) -> Any:
    return lambda document: fact(document, name)


COLUMNS = (
    Column("job", "name"),
    Column("operation", "properties.operation"),
    Column("item", "properties.entityFriendlyName"),
    Column("status", "properties.status"),
    Column("started", "properties.startTime", moment),
    Column("took", _took),
    Column("done", lambda document: _number(document, "Bytes Done") or None, octets),
    Column("new", lambda document: _number(document, "New Bytes") or None, octets),
    Column("files", _bag("Files")),
    Column("point", _bag("Recovery Point")),
    Column("target", _bag("Target")),
    Column("error", _reason),
)


def job_of(session: Session, vault: str, answer: Answer) -> Document:
    """The job that a request began."""
    job = session.arm.finish(answer)
    if job is None:
        raise KeepstoneError("the service has begun no job for this; see `keepstone job list`")
    return session.arm.get(f"{vault}/backupJobs/{job}")


def follow(session: Session, job: Document, timeout: float | None = None) -> Document:
    """The job at its end. `KeepstoneError` where that does not come within `timeout` seconds."""
    begun = time.monotonic()
    with _told(session, job), metered(session.console, str(at(job, "properties.operation")).casefold()) as meter:
        pause = _FIRST
        while is_open(job):
            _show(meter, job)
            if timeout is not None and time.monotonic() - begun + pause > timeout:
                raise KeepstoneError(
                    f"job {job['name']} goes on after {timeout:.0f} seconds; wait for it with `keepstone job wait`"
                )
            time.sleep(pause)
            pause = min(pause * 1.5, _MOST)
            job = _again(session, job)
        _show(meter, job)
    return job


def ended(session: Session, vault: str, answer: Answer, *, wait: bool) -> int:
    """The job that a request began, shown at its end, or at once where nobody is to wait; the exit code."""
    job = job_of(session, vault, answer)
    return conclude(session, follow(session, job) if wait else job)


def conclude(session: Session, job: Document) -> int:
    """Show a job; the exit code: 4 where it has warnings. Raises what it failed by."""
    status = at(job, "properties.status")
    if status in ("Failed", "Cancelled"):
        session.console.detail = {"job": job}
        text = f"job {job['name']} ({at(job, 'properties.operation')}) "
        if status == "Cancelled":
            raise JobCancelled(f"{text}was cancelled")
        raise KeepstoneError(f"{text}failed: {_reason(job) or 'see `keepstone job show`'}")
    if status == "CompletedWithWarnings":
        for name, warning in (at(job, "properties.extendedInfo.propertyBag") or {}).items():
            if name.startswith("Warning "):
                session.console.warn(str(warning))
        if not session.console.warned:
            session.console.warn("not everything could be taken as it is; the service's log says more")
    session.show(job, COLUMNS)
    return session.console.ending()


def _again(session: Session, job: Document) -> Document:
    """The job as it is now."""
    end = None
    while True:
        try:
            return session.arm.get(job["id"])
        except KeepstoneError as error:
            if error.code != UNREACHABLE or (end is not None and time.monotonic() > end):
                raise
            if end is None:
                end = time.monotonic() + _AWAY
                session.console.say(f"{error}; waiting for it")
            time.sleep(_MOST / 2)


@contextlib.contextmanager
def _told(session: Session, job: Document) -> Iterator[None]:
    """Whoever stops to wait is told what goes on without him."""
    try:
        yield
    except KeyboardInterrupt:
        session.console.say(
            f"job {job['name']} goes on; `keepstone job wait -n {job['name']}` waits for it, and `keepstone job stop` "
            "ends it"
        )
        raise


def _show(meter: Meter, job: Document) -> None:
    """What the service says of it, on this machine's clock."""
    meter.expected = _number(job, "Bytes Expected")
    meter.done = _number(job, "Bytes Done")
    meter.started = time.monotonic() - _seconds(job)
