# SPDX-License-Identifier: Apache-2.0
"""Bytes of a file, counted with its holes or without them."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["reads"]


def reads(plain: Callable[[int, int], bytes], extents: list[tuple[int, int]] | None, offset: int, length: int) -> bytes:
    """`length` bytes by `plain(offset, length)`; with `extents`, (offset, length) of the data, counted in that alone.

    `OSError` where there are fewer.
    """
    if extents is None:
        wanted = [(offset, length)]
    else:
        wanted, begin, left = [], 0, length
        for at, count in extents:
            if left and offset < begin + count:
                within = offset - begin
                taken = min(count - within, left)
                wanted.append((at + within, taken))
                offset += taken
                left -= taken
            begin += count
    parts = [plain(at, count) for at, count in wanted]
    data = parts[0] if len(parts) == 1 else b"".join(parts)
    if len(data) != length:
        raise OSError("it is shorter than its directory says")
    return data
