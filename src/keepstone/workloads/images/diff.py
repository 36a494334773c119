# SPDX-License-Identifier: Apache-2.0
"""Where two points of a disk differ, found in their manifests alone."""

from __future__ import annotations

from collections.abc import Iterator

from keepstone.errors import UsageError
from keepstone.store import ZERO_REF, Reader
from keepstone.workloads.images.leaf import LEAF_SPAN, Image, read_leaf, read_root

__all__ = ["diff_images"]


def diff_images(reader_a: Reader, reader_b: Reader) -> Iterator[range]:
    """The ranges of bytes that differ, ascending and to the precision of a chunk.

    What only the longer disk has differs. `UsageError` where the two were cut into chunks of different sizes.
    """
    start = end = 0
    for piece in _pieces(reader_a, reader_b):
        if piece.start == end:
            end = piece.stop
            continue
        if end > start:
            yield range(start, end)
        start, end = piece.start, piece.stop
    if end > start:
        yield range(start, end)


def _pieces(reader_a: Reader, reader_b: Reader) -> Iterator[range]:
    """The same, chunk by chunk."""
    image_a, _, leaves_a = read_root(reader_a, reader_a.root())
    image_b, _, leaves_b = read_root(reader_b, reader_b.root())
    step = image_a.chunk
    if step != image_b.chunk:
        raise UsageError("the two points are cut into chunks of different sizes; restore both and compare them")
    common = min(image_a.size, image_b.size)
    for index in range(Image(common).leaves):
        node_a, refs_a = read_leaf(reader_a, image_a, leaves_a, index)
        node_b, refs_b = read_leaf(reader_b, image_b, leaves_b, index)
        if node_a == node_b:
            continue
        for place, (ref_a, ref_b) in enumerate(zip(refs_a, refs_b, strict=False)):
            if _identity(reader_a, ref_a) != _identity(reader_b, ref_b):
                offset = index * LEAF_SPAN + place * step
                yield range(offset, min(offset + step, common))
    yield range(common, max(image_a.size, image_b.size))


def _identity(reader: Reader, ref: int) -> bytes:
    return b"" if ref == ZERO_REF else reader.chunk_id(ref)
