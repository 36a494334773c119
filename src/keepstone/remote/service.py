# SPDX-License-Identifier: Apache-2.0
"""The service as a job of an agent has it, through calls: a session to write a point by, and a point to read.

An upload that was cut goes on behind what came, and what came of an answer is not asked for again: a link that never
lasts for all of it does in the end.
"""

from __future__ import annotations

import contextlib
import http.client
import struct
from itertools import groupby
from typing import Protocol
from urllib.parse import quote

from keepstone.errors import CorruptObject, KeepstoneError, ObjectMissing, WriterFailed
from keepstone.remote.calls import Broken, Calls
from keepstone.remote.framed import Taker, unframed
from keepstone.remote.wire import (
    CHUNK_HEAD,
    CORRUPT,
    FRAMED,
    MISSING,
    Commit,
    Committed,
    Fetch,
    Found,
    Opened,
    Progress,
    Seen,
    Wanted,
    decode,
    encode,
    parse_chunk_head,
)

__all__ = ["HttpPoint", "HttpSession"]

_READ = 1 << 20  # bytes of a chunk, before one is longer


class HttpSession:
    """`writer.Session` through calls."""

    def __init__(self, calls: Calls, session: str) -> None:
        self._calls = calls
        self._query = f"?session={quote(session)}"

    def send(self, first: int, records: list[list[bytes]]) -> None:
        at = first
        lost = False

        def on() -> None:
            nonlocal at, lost
            if lost:
                at = decode(self._calls.once(f"sessions/state{self._query}", []), Progress).next
                lost = False
                if at < first:
                    raise WriterFailed("the service has lost a part of this upload; start the backup again")
            if at < first + len(records):
                pieces = [piece for record in records[at - first :] for piece in record]
                lost = True
                at = decode(
                    self._calls.once(f"sessions/records{self._query}&first={at}", pieces, large=True), Progress
                ).next
                lost = False

        while at < first + len(records):
            self._calls.persist(on, lambda: at)

    def nodes(self, wanted: Wanted) -> list[Seen]:
        return decode(self._post("nodes", encode(wanted)), list[Seen])

    def ids(self, path: list[int]) -> bytes:
        return self._post("ids", encode(path))

    def known(self, ids: bytes) -> Found:
        return decode(self._post("known", ids), Found)

    def commit(self, commit: Commit) -> str:
        return decode(self._post("commit", encode(commit)), Committed).point

    def abort(self) -> None:
        with contextlib.suppress(KeepstoneError, Broken):  # else the service gives it up by itself
            self._calls.once(f"sessions/abort{self._query}", [])

    def _post(self, verb: str, body: bytes) -> bytes:
        return self._calls.post(f"sessions/{verb}{self._query}", body)


class HttpPoint:
    """`reader.Point` through calls. `job`, `token`: of the restore that may read it."""

    def __init__(self, calls: Calls, job: str, token: int) -> None:
        self._calls = calls
        self._query = f"?job={quote(job)}&token={token}"

    def open(self) -> Opened:
        """Begin to read."""
        return decode(self._post("open", b""), Opened)

    def nodes(self, wanted: Wanted) -> list[Seen]:
        return decode(self._post("nodes", encode(wanted)), list[Seen])

    def columns(self, path: list[int]) -> bytes:
        return self._post("columns", encode(path))

    def fetch(self, fetch: Fetch, taker: Taker) -> None:
        check = taker.check
        left = {
            (node, index): at for node, (_, wanted) in enumerate(fetch.nodes) for index, at in enumerate(_u32s(wanted))
        }

        def once() -> None:
            """What came before a cut is not asked for again: a link that never lasts for all of it does in the end."""
            nodes: list[tuple[list[int], bytes]] = []
            asked: list[list[tuple[int, int]]] = []
            for node, those in groupby(left, lambda one: one[0]):
                asked.append(list(those))
                nodes.append(
                    (fetch.nodes[node][0], struct.pack(f"<{len(asked[-1])}I", *[left[one] for one in asked[-1]]))
                )

            def take(node: int, index: int, chunk: memoryview, *, checked: bool) -> None:
                if node >= len(asked) or index >= len(asked[node]) or (check is None and not checked):
                    raise CorruptObject("the service sent a chunk that it was not asked for")
                one = asked[node][index]
                if one in left:
                    if check is not None and not checked:
                        check(*one, chunk)
                    try:
                        taker.sink(*one, chunk)
                    except OSError as error:  # not of the connection
                        raise _Stopped(error) from error
                    del left[one]

            if left:
                body = encode(Fetch(nodes, check is not None))
                self._calls.stream(f"points/fetch{self._query}", body, lambda response: _read(response, take, taker))

        try:
            self._calls.persist(once, lambda: len(left))
        except _Stopped as stopped:
            raise stopped.reason from stopped

    def _post(self, verb: str, body: bytes) -> bytes:
        return self._calls.post(f"points/{verb}{self._query}", body)


class _Stopped(Exception):
    """Whoever takes chunks cannot take them."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def _u32s(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(data) // 4}I", data)


class _Take(Protocol):
    def __call__(self, node: int, index: int, chunk: memoryview, *, checked: bool) -> None: ...


def _read(response: http.client.HTTPResponse, take: _Take, taker: Taker) -> None:
    """Hand out chunks as they come, those of a frame in the room and the turn of who takes them."""
    buffer = memoryview(bytearray(_READ))
    head = memoryview(bytearray(CHUNK_HEAD))
    while True:
        got = _fill(response, head)
        if got == 0:
            return
        if got < CHUNK_HEAD:
            raise http.client.IncompleteRead(b"")
        node, index, length = parse_chunk_head(head)
        if length > len(buffer):
            buffer = memoryview(bytearray(length))
        chunk = buffer[:length]
        if _fill(response, chunk) < length:
            raise http.client.IncompleteRead(b"")
        if node == MISSING:
            raise ObjectMissing(bytes(chunk).decode(errors="replace"))
        if node == CORRUPT:
            raise CorruptObject(bytes(chunk).decode(errors="replace"))
        if node == FRAMED:
            parts = list(unframed(index, chunk, taker.room))
            with taker.turn(len(parts), sum(len(part) for _, _, part in parts)):
                for one, number, part in parts:
                    take(one, number, part, checked=False)
        else:
            take(node, index, chunk, checked=True)


def _fill(response: http.client.HTTPResponse, view: memoryview) -> int:
    at = 0
    while at < len(view):
        count = response.readinto(view[at:])
        if not count:
            break
        at += count
    return at
