# SPDX-License-Identifier: Apache-2.0
"""A service keeps its journal in the store, beside a backup: entries, a snapshot, what lies before it is dropped."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from keepstone.errors import KeepstoneError
from keepstone.store import Store
from tests.crash.product.check import again
from tests.crash.product.check import check as check_store
from tests.crash.product.work import Work, attempt, open_store, promise

__all__ = ["again", "check"]

_SNAPSHOTS = (3, 5)
_TRIES = 2


def _body(sequence: int) -> bytes:
    return b"entry %d" % sequence * 10


def _append(store: Store, sequence: int) -> bool:
    """As a service does: tried again before it goes on to the next one."""
    for _ in range(_TRIES):
        with attempt(f"entry {sequence}"):
            store.journal.append(sequence, _body(sequence), snapshot=sequence in _SNAPSHOTS)
            promise(entry=sequence)
            return True
    return False


def check(disk: Path, acks: list[Any]) -> list[str]:
    """The journal reads from a snapshot, or from its beginning, to what was acknowledged or one entry further."""
    acknowledged = max((ack["entry"] for ack in acks if "entry" in ack), default=0)
    try:
        entries = dict(open_store(disk).journal.entries())
    except KeepstoneError as error:
        return [f"JOURNAL: {type(error).__name__}: {error}"]
    violations = check_store(disk, acks)
    last = max(entries, default=0)
    if not acknowledged <= last <= acknowledged + 1:
        violations.append(f"JOURNAL: it ends with {last}, and {acknowledged} was acknowledged")
    if min(entries, default=1) != max([1, *(number for number in _SNAPSHOTS if number <= last)]):
        violations.append(f"JOURNAL: it begins with {min(entries, default=0)}")
    violations += [f"WRONG: entry {number}" for number, body in entries.items() if body != _body(number)]
    return violations


if __name__ == "__main__":
    work = Work(open_store(Path(sys.argv[1])))
    journal = work.store.journal
    for number in range(1, 7):
        if not _append(work.store, number):
            break
        if number == 1:
            work.backup("ABC")
        if number in _SNAPSHOTS:
            with attempt(f"drop before {number}"):
                journal.drop(number)
                promise(dropped=number)
