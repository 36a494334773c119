# SPDX-License-Identifier: Apache-2.0
"""Decoders of messages, made one at a time.

msgspec (0.22) puts together what it knows of a struct when it first decodes one, and lets other threads run meanwhile;
one of them that decodes the same struct then finds it half done, and the process dies (seen with 125 threads at once).
A decoder that is made under a lock before it is used by anybody has all of it.
"""

from __future__ import annotations

import threading
from typing import Any, TypeVar

import msgspec

__all__ = ["from_json", "from_msgpack", "known"]

T = TypeVar("T")
_lock = threading.Lock()


_json: dict[Any, msgspec.json.Decoder[Any]] = {}
_msgpack: dict[Any, msgspec.msgpack.Decoder[Any]] = {}


def from_msgpack(kind: type[T]) -> msgspec.msgpack.Decoder[T]:
    """The decoder of messages of this kind in msgpack."""
    decoder = _msgpack.get(kind)
    if decoder is None:
        with _lock:
            decoder = _msgpack[kind] = msgspec.msgpack.Decoder(kind)
    return decoder


def from_json(kind: type[T]) -> msgspec.json.Decoder[T]:
    """The same in JSON."""
    decoder = _json.get(kind)
    if decoder is None:
        with _lock:
            decoder = _json[kind] = msgspec.json.Decoder(kind)
    return decoder


def known(kind: type[T]) -> type[T]:
    """The same kind, safe for `msgspec.convert` from now on."""
    from_msgpack(kind)
    return kind
