# SPDX-License-Identifier: Apache-2.0
"""Backups one after the other: of chunks, with and without a parent, and of a tree that changes."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.crash.product.check import again, check
from tests.crash.product.work import Work, open_store
from tests.crash.workload import scratch

__all__ = ["again", "check"]

if __name__ == "__main__":
    work = Work(open_store(Path(sys.argv[1])))
    work.backup("ABCDE")
    work.backup("ABcDEF")
    with scratch() as tree:
        work.backup_tree(tree, "tree one")
        work.backup_tree(tree, "tree two")
    work.backup("EDCBA", item="other")
