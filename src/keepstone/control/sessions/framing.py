# SPDX-License-Identifier: Apache-2.0
"""Chunks of a point for the machine that wants them, in the frames that they are stored in.

A frame goes as it is where all of its chunks are wanted; the others go one by one, each compared with its id. Who reads
a frame learns which chunks somebody brought together: so this is for the machine that brought all that there is in the
vault (`control/writers.py`), and no chunk goes that was not asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from keepstone.errors import CorruptObject, ObjectMissing
from keepstone.remote.framed import Head, framed
from keepstone.remote.wire import chunk_head
from keepstone.store import LocalReader, StoredFrame

__all__ = ["read_framed"]


def read_framed(
    reader: LocalReader, refs: Sequence[int], heads: Sequence[Head]
) -> tuple[list[memoryview], CorruptObject | ObjectMissing | None]:
    """What can be read of these chunks, with heads, in pieces in the order of their first chunks; and why not all."""
    pieces: dict[int, bytes] = {}
    lock = threading.Lock()

    def take(number: int, chunk: memoryview) -> None:
        piece = b"".join((chunk_head(*heads[number], len(chunk)), chunk))
        with lock:
            pieces[number] = piece

    def take_frame(numbers: list[int], frame: StoredFrame) -> None:
        piece = framed([heads[number] for number in numbers], frame)
        with lock:
            pieces[numbers[0]] = piece

    lost: CorruptObject | ObjectMissing | None = None
    try:
        reader.fetch([(ref, number) for number, ref in enumerate(refs)], take, frames=take_frame)
    except (CorruptObject, ObjectMissing) as error:
        lost = error
    return [memoryview(pieces[number]) for number in sorted(pieces)], lost
