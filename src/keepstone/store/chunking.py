# SPDX-License-Identifier: Apache-2.0
"""Where data is cut into chunks.

Disks: fixed blocks of `DISK_CHUNK`, aligned, so that a changed sector costs one block. Files up to `SMALL_FILE` are
one chunk. Larger files: FastCDC (Xia et al., IEEE TPDS 2020) with normalisation, minimum, average and maximum of
`FILE_CHUNKS`: an insertion moves no cut but the ones beside it. The parameters are in the store's descriptor and
never change silently.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeAlias

__all__ = ["DISK_CHUNK", "FILE_CHUNKS", "SMALL_FILE", "Cut", "cut_file", "cut_fixed"]

DISK_CHUNK = 256 << 10
FILE_CHUNKS = (256 << 10, 1 << 20, 4 << 20)
SMALL_FILE = 256 << 10

Cut: TypeAlias = Callable[[memoryview, bool], list[int]]
"""How a file that is longer than `SMALL_FILE` is cut: `cut_file`, or another way that a writer wants."""

_local = threading.local()


def cut_fixed(length: int, chunk: int) -> list[int]:
    """Lengths of the fixed chunks of `length` bytes; the last one may be short."""
    whole, rest = divmod(length, chunk)
    return [chunk] * whole + ([rest] if rest else [])


def cut_file(data: memoryview, last: bool, sizes: tuple[int, int, int] = FILE_CHUNKS) -> list[int]:
    """Lengths of the content-defined chunks at the beginning of `data`.

    Without `last` the final cut is left out, because more data could move it: the caller goes on from the end of
    the chunks given. `data` must then be longer than the largest chunk.
    """
    from pyfastcdc import FastCDC

    chunker = getattr(_local, "chunker", None)
    if chunker is None or _local.sizes != sizes:
        minimum, average, maximum = sizes
        chunker = _local.chunker = FastCDC(average, min_size=minimum, max_size=maximum, normalized_chunking=2)
        _local.sizes = sizes
    lengths = [chunk.length for chunk in chunker.cut_buf(data)]
    return lengths if last else lengths[:-1]
