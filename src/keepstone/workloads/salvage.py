# SPDX-License-Identifier: Apache-2.0
"""Fetching what can still be read from a store where some of it is damaged."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import TypeVar

from keepstone.errors import CorruptObject, KeepstoneError, ObjectMissing
from keepstone.store import Reader

__all__ = ["DAMAGE", "fetch"]

DAMAGE = (CorruptObject, ObjectMissing)
"""What is raised for a part of a store that is damaged or gone; the rest of a point can do without it."""

Cookie = TypeVar("Cookie")


def fetch(
    reader: Reader,
    requests: list[tuple[int, Cookie]],
    sink: Callable[[Cookie, memoryview], None],
    waits: Callable[[Cookie], bool],
    lost: Callable[[Cookie, KeepstoneError], None],
) -> None:
    """As `Reader.fetch`, but what cannot be read is told to `lost` and does not stop the rest.

    Requests that still wait after damage was met are fetched again in two portions, and these in two, down to single
    chunks. `sink` must not raise what is in `DAMAGE`.
    """
    try:
        reader.fetch(requests, sink)
        return
    except DAMAGE as error:
        reason = error
    readable = []
    for ref, cookie in sorted(requests, key=lambda request: request[0]):
        if waits(cookie):
            try:
                reader.chunk_length(ref)  # tells of a pack that is gone, without reading a frame
                readable.append((ref, cookie))
            except DAMAGE as error:
                lost(cookie, error)
    refs = [ref for ref, _ in readable]
    if len({ref for ref, _ in requests}) == 1:  # it was asked for alone
        for _, cookie in readable:
            lost(cookie, reason)
    elif refs:
        middle = bisect_left(refs, refs[len(refs) // 2]) or bisect_left(refs, refs[0] + 1)
        fetch(reader, readable[:middle], sink, waits, lost)
        fetch(reader, [request for request in readable[middle:] if waits(request[1])], sink, waits, lost)
