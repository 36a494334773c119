# SPDX-License-Identifier: Apache-2.0
"""Two writers under way in turns: the second refers to packs of the first that are not committed yet."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.crash.product import letters
from tests.crash.product.check import again, check
from tests.crash.product.work import Work, open_store, promise

__all__ = ["again", "check"]

if __name__ == "__main__":
    disk = Path(sys.argv[1])
    first = open_store(disk).writer("first", letters.KIND, tags=["ABCDEFGH"])
    letters.submit(first, "ABCDEFG")
    first.drain()
    Work(open_store(disk)).backup("FEDCBA", item="second")
    commit = letters.write(first, "ABCDEFGH")
    promise(point=commit, holds="ABCDEFGH")
    dropped = open_store(disk).writer("dropped", letters.KIND, tags=["ijklmn"])
    letters.submit(dropped, "ijklmn")
    dropped.drain()
    Work(open_store(disk)).backup("jkm", item="third")
    dropped.abort()
    Work(open_store(disk)).backup("lmi", item="fourth")
