# SPDX-License-Identifier: Apache-2.0
"""What the head chain says must be there, held against what is.

Verify tells it to people; reclaim asks before it deletes, because the packs of a point whose cell somebody took away
are that point's last chance.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from keepstone.errors import CorruptObject, KeepstoneError, ObjectMissing, RollbackDetected, StorageError
from keepstone.store.chain import Chain, Head
from keepstone.store.commits import ABORTED, giving_up
from keepstone.store.context import Context
from keepstone.store.layout import COMMITS, DELETED, MOVES_TAG, names

__all__ = ["LOST", "Ledger"]

LOST = (ObjectMissing, CorruptObject, StorageError)
"""How reading an object that is lost ends. `AccessDenied` is none of it: that object is there."""


def _way_out(name: str) -> str:
    give_up = f", or {giving_up(name.removeprefix(COMMITS))}" if name.startswith(COMMITS) else ""
    return "restore it from a copy" + give_up


class Ledger(msgspec.Struct):
    """`present`: each object that must be there, and the entry that left it so; `gone`: cells that were purged;
    `stale`: digests of the markers that were taken back. `newest`, `digest`: of the last entry."""

    context: Context
    newest: int = 0
    digest: str = ""
    present: dict[str, Head] = msgspec.field(default_factory=dict)
    gone: set[str] = msgspec.field(default_factory=set)
    stale: dict[str, set[str]] = msgspec.field(default_factory=dict)
    _undeleting: dict[str, str] = msgspec.field(default_factory=dict)

    @classmethod
    def read(cls, context: Context, problem: Callable[[str, KeepstoneError], None]) -> Ledger:
        """Replay the chain; entries that are missing or damaged are told to `problem` and passed over."""
        heads, newest, digest = Chain(context).entries(problem)
        ledger = cls(context, newest, digest)
        for head in heads:
            ledger._apply(head)
        return ledger

    def _apply(self, head: Head) -> None:
        name, marker = head.object, DELETED + head.object.removeprefix(COMMITS)
        if head.event == "keys":  # an older keys object went when this one came
            self.present = {key: other for key, other in self.present.items() if other.event != "keys"}
        if name in self.gone or (head.event == "forget" and COMMITS + name.removeprefix(DELETED) in self.gone):
            return  # of somebody who was about to enter it when it was purged
        if head.event in ("init", "keys", "commit", "move", "forget"):
            self.present[name] = head
        elif head.event == "undelete":
            forgotten = self.present.pop(name, None)
            if forgotten is not None:
                self._undeleting[name] = forgotten.digest
            self.gone.discard(COMMITS + name.removeprefix(DELETED))  # a purge was cut off before the cell went
        elif head.event == "undeleted" and name in self._undeleting:
            self.stale.setdefault(name, set()).add(self._undeleting.pop(name))
        elif head.event in ("purge", "drop-move"):
            self.present.pop(name, None)
            self.present.pop(marker, None)
            self.gone.add(name)

    def compare(self, problem: Callable[[str, KeepstoneError], None], prefix: str = "") -> None:
        """Tell what is missing or not what was written, of the objects whose names begin with `prefix`."""
        for name, head in self.present.items():
            if name.startswith(prefix):
                try:
                    self._compare(name, head)
                except KeepstoneError as error:
                    problem(name, error)

    def _compare(self, name: str, head: Head) -> None:
        try:
            data = self.context.storage.read(name)
        except ObjectMissing:
            if Chain(self.context).explains(name, head.sequence):
                return  # purged or undeleted while we looked
            raise ObjectMissing(
                f"{name} is gone, and nobody deleted it (head {head.sequence}); {_way_out(name)}"
            ) from None
        if self.context.hashing.digest(data).hex() != head.digest:
            raise CorruptObject(f"{name} is not what was committed (head {head.sequence}); {_way_out(name)}")

    def lost(self) -> list[str]:
        """The commits whose cells are gone, damaged or out of the storage's reach, and nobody purged them."""
        lost: list[str] = []

        def note(name: str, error: KeepstoneError) -> None:
            if isinstance(error, LOST):
                lost.append(name.removeprefix(COMMITS))

        self.compare(note, COMMITS)
        return lost

    def _is_aborted(self, name: str) -> bool:
        """Whether the cell is no record: the lease of a writer that died after its commit may outlive the purge."""
        try:
            return self.context.storage.read(name) == ABORTED
        except ObjectMissing:
            return True

    def returned(self, problem: Callable[[str, KeepstoneError], None]) -> None:
        """Tell what was taken away and is there all the same: put back by somebody, or a step that was interrupted."""
        markers = set(names(self.context.storage, DELETED))
        for name in names(self.context.storage, COMMITS):
            marker = DELETED + name.removeprefix(COMMITS)
            if name.startswith(COMMITS + MOVES_TAG):
                continue  # it shows nobody a point, and the next reclaim drops it again
            if name in self.gone and marker not in markers and not self._is_aborted(name):
                problem(name, RollbackDetected(f"{name} was purged and is there again; purge it again"))
        for marker in markers & self.stale.keys():
            if self._digest(marker) in self.stale[marker]:  # a new one is a forget that was cut off before its entry
                problem(
                    marker, RollbackDetected(f"{marker} was taken back and is there again; undelete the point again")
                )

    def leftovers(self) -> list[str]:
        """Markers of cells that were purged and are gone: the purge was cut off right before its end."""
        purged = self.gone.difference(names(self.context.storage, COMMITS))
        markers = names(self.context.storage, DELETED)
        return [marker for marker in markers if COMMITS + marker.removeprefix(DELETED) in purged]

    def _digest(self, name: str) -> str | None:
        try:
            return self.context.hashing.digest(self.context.storage.read(name)).hex()
        except ObjectMissing:
            return None
