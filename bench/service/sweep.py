# SPDX-License-Identifier: Apache-2.0
"""Retention of all items: every point is judged, and what was judged is written down where it is new.

The policies keep every point for longer than there are any, so a sweep removes none: what is measured is the judging,
and not the store. The first sweep writes the date of every point, as after a change of all policies. Then nothing has
changed: the second one judges all of them again, as it is done once a week, and the third one looks what there is to
judge, as it does hour by hour.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from bench.measure import Failed
from bench.service.estate import GROUP, VAULT, Size
from keepstone.catalogue import every, items, judgements, points
from keepstone.control import policies, retention, vaults
from keepstone.control.installation import Installation
from keepstone.control.plane import Plane
from keepstone.env import Env
from keepstone.vault import RecoveryPoint

__all__ = ["measure"]

_SAMPLE = 500  # items that are judged without a database


def measure(root: Path, size: Size) -> dict[str, float]:
    """Seconds of each sweep, and CPU microseconds of one judgement of a point."""
    plane = Installation(Env(), root).plane()
    try:
        first = _timed(lambda: _sweep(plane))
        with plane.database.change() as connection:
            connection.execute(judgements.delete())
        again = _timed(lambda: _sweep(plane))
        hourly = _timed(lambda: _sweep(plane))
        return {
            "points": size.items * size.points,
            "judge_cpu_us": _judge(plane),
            "sweep_first_s": first[0],
            "sweep_first_cpu_s": first[1],
            "sweep_all_s": again[0],
            "sweep_all_cpu_s": again[1],
            "sweep_s": hourly[0],
            "sweep_cpu_s": hourly[1],
        }
    finally:
        plane.database.close()


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of the CPU."""
    wall, spent = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - spent


def _sweep(plane: Plane) -> None:
    if retention.sweep(plane):
        raise Failed("retention has removed points: the estate's policies do not keep them all")


def _judge(plane: Plane) -> float:
    """The rules alone, over points in memory."""
    with plane.look() as connection:
        vault = vaults.find(connection, plane.place.subscription, GROUP, VAULT)
        known = {policy.id: policies.parsed(policy) for policy in policies.listing(connection, vault)}
        chosen = connection.execute(items.select().where(items.c.vault == vault.id).limit(_SAMPLE)).mappings().all()
        found = [(known[row["policy"]], every(connection, RecoveryPoint, points.c.item == row["id"])) for row in chosen]
    _, spent = _timed(lambda: [retention.judged(policy, mine) for policy, mine in found])
    return spent / sum(len(mine) for _, mine in found) * 1e6
