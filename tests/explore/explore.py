# SPDX-License-Identifier: Apache-2.0
"""Explore schedules of the store's protocol.

python -m tests.explore.explore --schedules 10000           # the product; exit 1 if any loses data
python -m tests.explore.explore --variant "no second mark"  # until it is found to lose data
python -m tests.explore.explore --seed 1055                 # one schedule again
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from .scenario import prepare, run_schedule
from .variants import VARIANTS, switched

__all__ = ["Exploration", "explore", "find"]

_BATCH = 250


@dataclass(slots=True)
class Exploration:
    """Counts over all schedules; `bad`: seed and problems of those that lost something."""

    schedules: int = 0
    distinct: int = 0
    switches: int = 0
    revoked: int = 0
    swept: int = 0
    seconds: float = 0.0
    bad: list[tuple[int, list[str]]] = None  # type: ignore[assignment]


def _batch(variant: str, seeds: range) -> list[tuple[int, list[str], int, int, int, int]]:
    prepare()
    with switched(variant):
        results = [run_schedule(seed) for seed in seeds]
    return [
        (result.seed, result.problems, hash(result.trace), result.steps, result.lost_leases, result.swept)
        for result in results
    ]


def _batches(first: int, count: int) -> Iterator[range]:
    for start in range(first, first + count, _BATCH):
        yield range(start, min(start + _BATCH, first + count))


def explore(count: int, *, first: int = 0, processes: int | None = None, variant: str = "") -> Exploration:
    """Run `count` schedules with the seeds from `first` on."""
    begin = time.monotonic()
    total = Exploration(bad=[])
    traces: set[int] = set()

    def add(results: Iterable[tuple[int, list[str], int, int, int, int]]) -> None:
        for seed, problems, trace, steps, revoked, swept in results:
            total.schedules += 1
            total.switches += steps
            total.revoked += revoked
            total.swept += swept
            traces.add(trace)
            if problems:
                total.bad.append((seed, problems))

    if processes == 1:
        for seeds in _batches(first, count):
            add(_batch(variant, seeds))
    else:
        with ProcessPoolExecutor(processes or len(os.sched_getaffinity(0))) as pool:
            for results in pool.map(_batch, [variant] * -(-count // _BATCH), _batches(first, count)):
                add(results)
    total.distinct = len(traces)
    total.seconds = time.monotonic() - begin
    return total


def find(variant: str, most: int) -> tuple[int, list[str]] | None:
    """(seed, problems) of the first schedule in which this variant loses data; None after `most` schedules."""
    prepare()
    with switched(variant):
        for seed in range(most):
            problems = run_schedule(seed).problems
            if problems:
                return seed, problems
    return None


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--variant", choices=["", *VARIANTS], default="")
    parser.add_argument("--seed", type=int)
    arguments = parser.parse_args()
    if arguments.seed is not None:
        prepare()
        with switched(arguments.variant):
            result = run_schedule(arguments.seed)
        print(f"seed {arguments.seed}: {result.problems or 'nothing lost'}")
        return bool(result.problems)
    total = explore(arguments.schedules, first=arguments.first, variant=arguments.variant)
    print(
        json.dumps(
            {
                "schedules": total.schedules,
                "distinct": total.distinct,
                "switches": total.switches,
                "leases_revoked": total.revoked,
                "packs_swept": total.swept,
                "seconds": round(total.seconds, 1),
                "lost": len(total.bad),
                "first": total.bad[:3],
            }
        )
    )
    return bool(total.bad) != bool(arguments.variant)


if __name__ == "__main__":
    sys.exit(main())
