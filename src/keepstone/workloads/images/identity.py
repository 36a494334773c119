# SPDX-License-Identifier: Apache-2.0
"""What names the bytes of a part of a disk, found in its manifest alone."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from keepstone.store import ZERO_REF, Reader
from keepstone.workloads.images.leaf import LEAF_SPAN, read_leaf, read_root

__all__ = ["identity"]

_LEAF, _CHUNK, _ZERO, _RANGE = b"leaf", b"chunk", b"zero", b"range"


def identity(reader: Reader, ranges: Iterable[tuple[int, int]]) -> bytes:
    """Where two points have the same of this, they have the same bytes in these ranges (offset, length), and as far as
    the chunks reach of which those are a part. Not so the other way round: equal bytes may be stored in two ways.

    What is a leaf as a whole costs one look at an index. `CorruptObject` where it is no sound point of a disk.
    """
    image, _, leaves = read_root(reader, reader.root())
    digest = blake2b(image.chunk.to_bytes(4, "little"), digest_size=32)
    for offset, length in ranges:
        end = min(offset + length, image.size)
        digest.update(_RANGE + offset.to_bytes(8, "little") + max(end - offset, 0).to_bytes(8, "little"))
        while offset < end:
            index, within = divmod(offset, LEAF_SPAN)
            stop = min(LEAF_SPAN, image.size - index * LEAF_SPAN, end - index * LEAF_SPAN)
            if not within and stop == min(LEAF_SPAN, image.size - index * LEAF_SPAN):
                digest.update(_LEAF + reader.chunk_id(leaves[index]))
            else:
                refs = read_leaf(reader, image, leaves, index)[1]
                for ref in refs[within // image.chunk : -(-stop // image.chunk)]:
                    digest.update(_ZERO if ref == ZERO_REF else _CHUNK + reader.chunk_id(ref))
            offset = index * LEAF_SPAN + stop
    return digest.digest()
