# SPDX-License-Identifier: Apache-2.0
"""The chunk index and this machine's memory of the newest head, kept on the same disk, and thrown away."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from tests.crash.product.check import again as again_store
from tests.crash.product.check import check as check_store
from tests.crash.product.work import Work, open_store

__all__ = ["again", "check"]

check = partial(check_store, cached=True)
again = partial(again_store, cached=True)

if __name__ == "__main__":
    disk = Path(sys.argv[1])
    made = []
    for number, plan in enumerate(("ABC", "CDE", "EFG", "GHI", "IJA", "KLB", "BDG", "AMN")):
        work = Work(open_store(disk, cached=True))
        made.append(work.backup(plan, f"item {number}"))
        if number in (1, 5):
            work.verify()
        if number == 4:
            work.store.rebuild_index()
    work.purge(made[3])  # so that the index names a pack which goes
    work.reclaim()
    work.store.rebuild_index()
    work.backup("NMA")
