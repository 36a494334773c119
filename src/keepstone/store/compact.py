# SPDX-License-Identifier: Apache-2.0
"""Compaction: copy what is needed out of packs that are mostly dead, then say where it went.

A compaction is a session like a backup: a lease, new packs, a barrier, a commit cell. Its record is a list of moves
instead of a point, so a collector that runs at the same time waits for it or aborts it, and its new packs are
needed from the moment the cell is written. The old packs are condemned afterwards like any others: a writer that
still refers to a chunk which was dead when it was not copied keeps the old pack alive through the second mark.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from keepstone.store.commits import Move, MoveRecord
from keepstone.store.context import Context
from keepstone.store.footer import METADATA, Footer
from keepstone.store.frame import FRAME_LIMIT, NODE_FRAME_LIMIT, make_frame
from keepstone.store.layout import MOVES_TAG
from keepstone.store.moves import encode_move
from keepstone.store.packs import Packs
from keepstone.store.session import Session

__all__ = ["compact"]


def compact(context: Context, packs: Packs, needed: Iterable[tuple[Footer, npt.NDArray[np.bool_]]], level: int) -> str:
    """Copy the chunks that are needed of each of these packs; the commit of the move record.

    Every chunk is compared with its id on the way: damage stops the compaction and is not carried on. `LeaseLost`.
    """
    session = Session(context, MOVES_TAG, level=level, check=False)
    try:
        moves = [_copy(session, packs, footer, marks) for footer, marks in needed]
        return session.publish(MoveRecord(moves=moves), set(), "move")
    except BaseException:
        session.close()
        raise


def _copy(session: Session, packs: Packs, footer: Footer, needed: npt.NDArray[np.bool_]) -> Move:
    moved: list[tuple[int, int]] = []
    group: list[tuple[int, memoryview]] = []
    size = 0
    limit = NODE_FRAME_LIMIT if footer.kind == METADATA else FRAME_LIMIT

    def flush() -> None:
        nonlocal size
        if group:
            ids = [footer.id(position) for position, _ in group]
            lengths = [len(chunk) for _, chunk in group]
            data = b"".join([chunk for _, chunk in group])
            frame = make_frame(session.context.hashing, session.level, data, ids, lengths)
            first = session.append(footer.kind, frame)
            moved.extend((position, first + index) for index, (position, _) in enumerate(group))
        group.clear()
        size = 0

    for frame in range(footer.frames):
        positions = range(footer.first_chunk[frame], footer.first_chunk[frame + 1])
        wanted = [position for position in positions if needed[position]]
        if not wanted:
            continue
        data, offsets = packs.frame(footer.pack, frame)
        for position in wanted:
            at = position - positions.start
            chunk = data[offsets[at] : offsets[at + 1]]
            packs.check_id(footer, position, chunk)
            if group and size + len(chunk) > limit:
                flush()
            group.append((position, chunk))
            size += len(chunk)
    flush()
    return encode_move(footer.pack, footer.chunks, moved, session.numbers)
