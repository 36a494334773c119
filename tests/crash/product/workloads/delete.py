# SPDX-License-Identifier: Apache-2.0
"""Points are forgotten, taken back, and purged."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.crash.product.check import again, check
from tests.crash.product.work import Work, open_store

__all__ = ["again", "check"]

if __name__ == "__main__":
    work = Work(open_store(Path(sys.argv[1])))
    one, two, three = work.backup("ABCD"), work.backup("CDEF"), work.backup("xyz", "other")
    work.forget(one)
    work.undelete(one)
    work.forget(two)
    work.forget(one)
    work.undelete(two)
    work.purge(one)
    work.purge(three)
    work.reclaim()
    work.backup("ABxy")
