# SPDX-License-Identifier: Apache-2.0
"""Reclaim, compaction and compaction of the compacted, with backups between."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.crash.product.check import again, check
from tests.crash.product.work import Work, open_store

__all__ = ["again", "check"]

if __name__ == "__main__":
    work = Work(open_store(Path(sys.argv[1])))
    first = work.backup("ABCDEFG")
    second = work.backup("ACEHI")
    work.purge(first)
    work.reclaim()
    third = work.backup("AHJ")
    work.purge(second)
    work.reclaim()
    work.backup("BCDI", "other")
    work.purge(third)
    work.reclaim()
    work.reclaim()
