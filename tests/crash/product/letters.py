# SPDX-License-Identifier: Apache-2.0
"""Points made of chunks that are named by a letter each: small, incompressible, and known in advance."""

from __future__ import annotations

import hashlib
from functools import cache

from keepstone.store import Chunks, LocalWriter, Outcome, Point, Scratch, Store, pack

__all__ = ["KIND", "restore", "small_packs", "submit", "write"]

KIND = "letters"
_SIZE = 1500  # bytes of a chunk


def small_packs() -> None:
    """From now on, in this whole process, a tiny point has several packs, finished at different times."""
    pack.PACK_TARGET = 3 * _SIZE


@cache
def _chunk(letter: str) -> bytes:
    return hashlib.shake_128(letter.encode()).digest(_SIZE)


def submit(writer: LocalWriter, letters: str) -> dict[int, int]:
    """Hand in these chunks, without those that the parent has; where each lies, filled in as they are settled."""
    places = _unchanged(writer, letters)
    for index, letter in enumerate(letters):
        if index not in places:

            def read(scratch: Scratch, letter: str = letter) -> Chunks:
                scratch.view[:_SIZE] = _chunk(letter)
                return Chunks(scratch.view[:_SIZE], [_SIZE], [], None)

            def done(refs: list[int], _: object, index: int = index) -> None:
                places[index] = refs[0]

            writer.submit(read, done)
    return places


def _unchanged(writer: LocalWriter, letters: str) -> dict[int, int]:
    roots = writer.parent_root()
    if not roots:
        return {}
    node = writer.node(roots[0])
    refs = writer.usable(writer.chunk_refs(node)) or []
    there = dict(zip(node.body.decode(), refs, strict=False))
    return {index: there[letter] for index, letter in enumerate(letters) if letter in there}


def write(writer: LocalWriter, letters: str) -> str:
    """Make a point of these chunks; its id."""
    places = submit(writer, letters)
    writer.drain()
    root = writer.put_node(KIND, [places[index] for index in range(len(letters))], [], letters.encode())
    size = _SIZE * len(letters)
    return writer.commit(Outcome(root=[root], detail=b"", source=b"/", logical=size, read=size, files=1, warnings=0))


def restore(store: Store, point: Point) -> str:
    """The letters of a point, if its chunks are those letters' indeed; else what is wrong."""
    found: dict[int, bytes] = {}
    with store.reader(point) as reader:
        node = reader.node(reader.root()[0])
        wanted = [(ref, index) for index, ref in enumerate(reader.chunk_refs(node))]
        reader.fetch(wanted, lambda index, data: found.__setitem__(index, bytes(data)))
    letters = node.body.decode()
    right = found == {index: _chunk(letter) for index, letter in enumerate(letters)}
    return letters if right else f"wrong chunks for {letters}"
