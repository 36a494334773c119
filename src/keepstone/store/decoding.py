# SPDX-License-Identifier: Apache-2.0
"""Reading stored structures: whatever is wrong with the bytes comes out as one class of error."""

from __future__ import annotations

from typing import Protocol, TypeVar

import msgspec

from keepstone.errors import CorruptObject

__all__ = ["decode"]

T_co = TypeVar("T_co", covariant=True)


class _Decoder(Protocol[T_co]):
    def decode(self, data: bytes | memoryview, /) -> T_co: ...


def decode(decoder: _Decoder[T_co], data: bytes | memoryview, what: str) -> T_co:
    """What `decoder` reads; `CorruptObject` naming `what` where it cannot."""
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise CorruptObject(f"{what} is damaged ({error}); run `keepstone store verify`") from error
