# SPDX-License-Identifier: Apache-2.0
"""Chunks on their way to the machine that reads them, in the frames that they are stored in: a third of the bytes, and
decompressed by the one who wants them.

    head      chunk_head(FRAMED, number of chunks, bytes that follow)
    frame     codec u8, 3 bytes of nothing, length of all chunks together u32
    chunks    for each: number of its node in the request, its number among those asked for, its length, u32 each
    payload   as it is stored

Which chunks lie together says who brought them together. So an answer has frames only where nobody but the reader has
brought anything (`control/sessions/framing.py`), and only frames of which all was asked for.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from keepstone.errors import CorruptObject
from keepstone.remote.wire import FRAMED, chunk_head
from keepstone.store import StoredFrame, Turn, no_turn
from keepstone.store.frame import MAX_FRAME, expand

__all__ = ["Head", "Room", "Sink", "Taker", "framed", "unframed"]

_FRAME = struct.Struct("<B3xI")
_CHUNK = struct.Struct("<III")

Head = tuple[int, int]
"""(number of the node in a request, number of the chunk there)"""
Sink = Callable[[int, int, memoryview], None]
"""Takes a chunk with its head; it is valid during the call."""
Room = Callable[[int], memoryview | None]
"""Gives memory for so many bytes, if there is some."""


@dataclass(frozen=True, slots=True)
class Taker:
    """Who takes the chunks of a request.

    `check`: asked, before the sink is, about each chunk that came in a frame, which the service did not compare with
    its id; without, no frames are asked for. `room`: for the chunks of a frame, see `store.Roomy`. `turn`: held while
    these are handed out.
    """

    sink: Sink
    check: Sink | None = None
    room: Room = lambda count: None
    turn: Turn = no_turn


def framed(heads: Sequence[Head], frame: StoredFrame) -> bytes:
    """A frame for the answer. `heads`: of its chunks."""
    chunks = b"".join(_CHUNK.pack(*head, length) for head, length in zip(heads, frame.lengths, strict=True))
    body = _FRAME.pack(frame.codec, frame.raw_length) + chunks
    return b"".join((chunk_head(FRAMED, len(heads), len(body) + len(frame.payload)), body, frame.payload))


def unframed(count: int, body: memoryview, room: Room = lambda count: None) -> Iterator[tuple[int, int, memoryview]]:
    """(number of the node, number of the chunk, chunk) of each in a frame. `count`: how many there are. `room`: memory
    for so many bytes, where they are put, if there is some. `CorruptObject` where it says of itself what cannot be."""
    begin = _FRAME.size + _CHUNK.size * count
    if begin > len(body):
        raise CorruptObject("the service sent a frame that is shorter than its head")
    codec, raw_length = _FRAME.unpack_from(body)
    chunks = list(_CHUNK.iter_unpack(body[_FRAME.size : begin]))
    if not 0 < raw_length <= MAX_FRAME or sum(length for _, _, length in chunks) != raw_length:
        raise CorruptObject("the service sent a frame of another length than its chunks")
    data = memoryview(expand(body[begin:], codec, raw_length, into=room(raw_length)))
    ends = accumulate(length for _, _, length in chunks)
    for (node, index, length), end in zip(chunks, ends, strict=True):
        yield node, index, data[end - length : end]
