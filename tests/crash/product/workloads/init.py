# SPDX-License-Identifier: Apache-2.0
"""A store is made, and first used."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from keepstone.errors import StoreExists, StoreMissing
from tests.crash.product.check import again as again_store
from tests.crash.product.check import check as check_store
from tests.crash.product.work import STORE, Work, begin, open_store, promise

__all__ = ["again", "check"]


def check(disk: Path, acks: list[Any]) -> list[str]:
    """Before it is acknowledged there is a whole store or none; afterwards there is one."""
    if not any(ack.get("did") == "init" for ack in acks):
        try:
            open_store(disk)
        except StoreMissing:
            return []
        except Exception as error:
            return [f"HALF: {error!r}"]
        if not (disk / STORE / "keys").is_dir():
            return ["HALF: a store without keys"]
    return check_store(disk, acks)


def again(disk: Path) -> list[str]:
    """A store is made where there is none; what a kill left of an `init` is in its way, and taken away."""
    try:
        open_store(disk)
    except StoreMissing:
        try:
            begin(disk)
        except StoreExists:
            shutil.rmtree(disk / STORE)
            begin(disk)
    return again_store(disk)


if __name__ == "__main__":
    made = begin(Path(sys.argv[1]))
    promise(did="init")
    Work(made).backup("ABCD")
