# SPDX-License-Identifier: Apache-2.0
"""Two processes that back up at the same time, while a third forgets, purges and reclaims."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from tests.crash.product.check import again, check
from tests.crash.product.work import Work, open_store

__all__ = ["again", "check"]


def _beside(work: Callable[[], None]) -> int:
    child = os.fork()
    if not child:
        try:
            work()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return child


def _writer(disk: Path, item: str, plans: list[str]) -> None:
    work = Work(open_store(disk))
    for plan in plans:
        work.backup(plan, item)


def _collector(disk: Path, commit: str | None) -> None:
    work = Work(open_store(disk))
    work.purge(commit)
    work.reclaim()
    work.reclaim()


if __name__ == "__main__":
    place = Path(sys.argv[1])
    doomed = Work(open_store(place)).backup("ABCxyz", "doomed")
    children = [
        _beside(lambda: _writer(place, "left", ["ABCDE", "ABDE", "xyE"])),
        _beside(lambda: _writer(place, "right", ["FGABx", "GHz"])),
        _beside(lambda: _collector(place, doomed)),
    ]
    statuses = [os.waitpid(child, 0)[1] for child in children]
    sys.exit(any(statuses))
