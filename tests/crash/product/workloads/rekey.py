# SPDX-License-Identifier: Apache-2.0
"""The root key is rotated, twice, between backups."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.crash.product.check import again, check
from tests.crash.product.work import NEW, OLD, Work, open_store, promise

__all__ = ["again", "check"]

if __name__ == "__main__":
    disk = Path(sys.argv[1])
    work = Work(open_store(disk, [OLD]))
    work.backup("ABC")
    promise(doing="rekey")
    work.store.rekey([NEW])
    promise(did="rekey")
    work.backup("BCD")
    work = Work(open_store(disk, [NEW]))
    work.store.rekey([NEW])
    work.backup("CDE")
