# SPDX-License-Identifier: Apache-2.0
"""Protocols with one safeguard taken out. The explorer must find that each of them loses data: this tests the tester.

Each variant replaces a method of the store while it is switched on; the product has no switch for any of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from keepstone.errors import LeaseLost
from keepstone.store import commits as commits_module
from keepstone.store import leases as leases_module
from keepstone.store import reclaim as reclaim_module
from keepstone.store import writer as writer_module
from keepstone.store.commits import ABORTED, Commits
from keepstone.store.layout import commit_name, pack_name
from keepstone.store.leases import Leases, Tomb, Tombs
from keepstone.store.reclaim import Reclaimed
from keepstone.store.session import Session
from keepstone.store.survey import Survey

__all__ = ["VARIANTS", "switched"]


def _pbs(context: Any, points: Any, **_: Any) -> Reclaimed:
    """Mark, then sweep what was dead at the time of the mark: no lease is asked, no second look is taken
    (PSA-2025-00019-1)."""
    survey = Survey(context)
    dead = survey.dead()
    for pack in dead:
        context.storage.delete(pack_name(pack))
    return Reclaimed(packs_deleted=len(dead), waiting=[])


def _relist(context: Any, points: Any, **_: Any) -> Reclaimed:
    """The same with a second look right before the sweep, still without asking for leases."""
    survey = Survey(context)
    dead = survey.dead()
    survey.refresh()
    dead = survey.removable(dead)
    for pack in dead:
        context.storage.delete(pack_name(pack))
    return Reclaimed(packs_deleted=len(dead), waiting=[])


def _dawdle(context: Any) -> None:
    """Be slow where the mistake is: the shorter its window, the more schedules it takes until somebody fits in."""
    for _ in range(20):
        context.env.step("dawdle")


def _publish_unchecked(self: Commits, commit: str, record: Any) -> bytes:
    """Check, then write: the cell is not a single assignment any more."""
    name = commit_name(commit)
    sealed = self._context.seal("commit", name, commits_module._encoder.encode(record))
    if self.decided(commit):
        raise LeaseLost("aborted")
    _dawdle(self._context)
    self._context.env.step(f"put {name}")
    self._context.storage.objects[name] = sealed  # type: ignore[attr-defined]
    return sealed


def _abort_unchecked(self: Commits, commit: str) -> bool:
    name = commit_name(commit)
    if self.decided(commit):
        return self._context.storage.read(name) == ABORTED
    self._context.env.step(f"put {name}")
    self._context.storage.objects.setdefault(name, ABORTED)  # type: ignore[attr-defined]
    return True


class _LateLease(Session):
    """The tombstones are listed before the lease is published, and a while passes between the two."""

    def __init__(self, context: Any, tag: str, **options: Any) -> None:
        condemned = Tombs(context).condemned()
        _dawdle(context)
        super().__init__(context, tag, **options)
        self.condemned = condemned


def _first_mark_only(self: Survey) -> None:
    """No second mark: what was committed since the first one is not looked at."""


def _ignore_tombs(self: Tombs) -> frozenset[bytes]:
    return frozenset()


def _ignore_leases(self: Leases, commits: list[str], *, abort_after: int) -> list[str]:
    return []


def _own_verdict(self: Tombs, name: str, verdict: Tomb) -> Tomb | None:
    """Each collector sweeps what it found dead itself."""
    _dawdle(self._context)
    is_there = self._is_there(name)
    _dawdle(self._context)
    return verdict if is_there else None


VARIANTS: dict[str, list[Callable[[], Any]]] = {
    "pbs: mark and sweep, no leases": [lambda: mock.patch.object(reclaim_module, "reclaim", _pbs)],
    "pbs: list again, no leases": [lambda: mock.patch.object(reclaim_module, "reclaim", _relist)],
    "check, then write": [
        lambda: mock.patch.object(Commits, "publish", _publish_unchecked),
        lambda: mock.patch.object(Commits, "abort", _abort_unchecked),
    ],
    "no second mark": [lambda: mock.patch.object(reclaim_module, "_mark_again", _first_mark_only)],
    "writer ignores tombstones": [lambda: mock.patch.object(Tombs, "condemned", _ignore_tombs)],
    "collector ignores leases": [lambda: mock.patch.object(leases_module.Leases, "drain", _ignore_leases)],
    "each collector its own verdict": [lambda: mock.patch.object(Tombs, "decide", _own_verdict)],
    "tombstones listed before the lease": [lambda: mock.patch.object(writer_module, "Session", _LateLease)],
}


@contextmanager
def switched(name: str) -> Iterator[None]:
    """The protocol with this safeguard taken out; the product's own for an empty name."""
    patches = [patch() for patch in VARIANTS.get(name, [])]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()
