# SPDX-License-Identifier: Apache-2.0
"""One upload: a machine makes one point of one item, for one job that it holds.

Invariants
* Records are taken in the order of their numbers, each once. What comes a second time is passed over, what comes too
  early refused: a request may be cut anywhere and repeated any number of times.
* After a failure nothing is taken any more, and every later call says why. Nothing of the point is visible then.
* `commit` makes the point once; asked again, it gives the same id.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import msgspec

from keepstone.control.points import MACHINE
from keepstone.control.sessions.intake import Intake
from keepstone.control.sessions.known import Known
from keepstone.control.sessions.view import Shown, View
from keepstone.env import Pool
from keepstone.errors import Conflict, InvalidRequest, KeepstoneError, WriterFailed, told
from keepstone.remote.wire import Begun, Commit, Found, Seen, Wanted, records
from keepstone.store import LocalWriter, Outcome, PointRecord, Store

__all__ = ["WriteSession", "blank", "clocked", "namer"]

_ID = 32
_CLOCK = "clock="
_ASKED = 1 << 14  # ids that one request may ask for


def namer(store: Store, item: str) -> Callable[[bytes], bytes]:
    """What a machine knows the nodes of its item by: it tells nothing, and nobody else has the same names."""
    hashing = store.context.hashing
    key = hashing.keyed(store.context.keys.metadata, b"node-names/v1" + item.encode())
    return lambda identity: hashing.keyed(key, identity)


def blank(record: PointRecord) -> PointRecord:
    """What of a point's record its machine may know: nothing of where it lies, and of what others had already.

    `started` is what the machine's own clock said then. Whether a file may have changed since is judged by it, and the
    service's clock may be another.
    """
    return msgspec.structs.replace(
        record, packs=b"", root=b"", parent="", added=0, stored=0, tags=[], started=_clock(record)
    )


def clocked(moment: int) -> tuple[str, ...]:
    """What a point remembers of its machine's clock; see `blank`."""
    return (f"{_CLOCK}{moment}",) if moment else ()


def _nodes_of(kind: str) -> tuple[str, ...]:
    """How the kinds of nodes begin that a point of this kind has: a machine is made of images."""
    return (f"{kind}/", "images/") if kind == MACHINE else (f"{kind}/",)


def _clock(record: PointRecord) -> int:
    for tag in record.tags:
        if tag.startswith(_CLOCK) and tag[len(_CLOCK) :].isdecimal():
            return int(tag[len(_CLOCK) :])
    return record.started


class WriteSession:
    """`identity`: its name. `writer`: the point that is being made."""

    def __init__(self, identity: str, store: Store, item: str, writer: LocalWriter, pool: Pool, kind: str) -> None:
        self.identity = identity
        self.point = ""
        self._store = store
        self._writer = writer
        self._whole = writer.undisturbed
        view = self._view = View(writer, writer.parent_root(), namer(store, item), None if self._whole else self._judge)
        self._intake = Intake(writer, view, pool, _nodes_of(kind))
        self._known = Known(store, writer)
        self._next = 0
        self._failed: KeepstoneError | None = None
        self._lock = threading.Lock()

    @property
    def next(self) -> int:
        """The number of the record that is to come."""
        return self._next

    @property
    def over(self) -> bool:
        """Whether nothing can be done with it any more."""
        return bool(self.point) or self._failed is not None

    def begun(self) -> Begun:
        """What the machine is told."""
        writer, context = self._writer, self._store.context
        return Begun(
            session=self.identity,
            id_key=context.keys.id,
            hashing=self._store.descriptor.hashing,
            level=writer.level,
            parent=None if writer.parent is None else blank(writer.parent),
            parent_id=writer.parent_id,
            keys=self._view.keys,
            whole=self._whole,
        )

    def receive(self, first: int, data: memoryview) -> int:
        """Records from the number `first` on; the number of the one that is to come next."""
        with self._lock:
            self._check()
            if first > self._next:
                raise Conflict(f"record {self._next} is missing; send it before {first}")
            try:
                for number, (kind, content) in enumerate(records(data), first):
                    if number == self._next:
                        self._intake.take(kind, content)
                        self._next += 1
            except Exception as error:
                self._fail(error)
                raise
            return self._next

    def nodes(self, wanted: Wanted) -> list[Seen]:
        """Nodes of the previous point."""
        with self._lock:
            self._check()
            return self._view.seen(wanted)

    def ids(self, path: list[int]) -> bytes:
        """The ids of the chunks of one of them."""
        with self._lock:
            self._check()
            return self._view.ids(path)

    def known(self, ids: bytes) -> Found:
        """Which of these chunks the previous point has."""
        with self._lock:
            self._check()
            if len(ids) % _ID:
                raise InvalidRequest(f"ids have {_ID} bytes each")
            wanted = [ids[at : at + _ID] for at in range(0, min(len(ids), _ID * _ASKED), _ID)]
            found = self._known.find(wanted)
            first = len(self._intake.found)
            self._intake.found.extend(found.values())
            return Found(first, list(found))

    def commit(self, commit: Commit) -> str:
        """Make the point; its id."""
        with self._lock:
            if self.point:
                return self.point
            self._check()
            if commit.records != self._next:
                raise Conflict(f"{commit.records} records were sent and {self._next} came; send the others first")
            try:
                self._intake.drain()
                self.point = self._writer.commit(
                    Outcome(
                        root=self._intake.children(commit.root),
                        detail=commit.detail,
                        source=commit.source,
                        logical=commit.logical,
                        read=commit.read,
                        files=commit.files,
                        warnings=commit.warnings,
                    )
                )
            except Exception as error:
                self._fail(error)
                raise
            return self.point

    def abort(self) -> None:
        """Give up; harmless after `commit`."""
        with self._lock:
            if not self.point and self._failed is None:
                self._fail(Conflict("this session was given up; begin another one"))

    def _check(self) -> None:
        if self._failed is not None:
            raise told(self._failed.code, str(self._failed), self._failed.status)  # anew: a traceback grows
        if self.point:
            raise Conflict("the point of this session is made; begin another one")

    def _fail(self, error: Exception) -> None:
        fault = WriterFailed("a fault of the service stopped this upload; its log says more, start the backup again")
        self._failed = error if isinstance(error, KeepstoneError) else fault
        self._intake.drop()
        self._writer.abort()

    def _judge(self, shown: Shown) -> tuple[bool, list[int], list[int]]:
        usable = self._writer.usable
        stale = [] if usable(shown.chunks) is not None else _each(usable, shown.chunks)
        children = [] if usable(shown.children) is not None else _each(usable, shown.children)
        return self._writer.shareable(shown.node), stale, children


def _each(usable: Callable[[list[int]], list[int] | None], places: list[int]) -> list[int]:
    return [index for index, place in enumerate(places) if usable([place]) is None]
