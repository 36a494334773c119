# SPDX-License-Identifier: Apache-2.0
"""What an rpm says of itself, without rpm: its header, as rpm's `docs/manual/format_v4.md` describes it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["files", "header"]

_LEAD, _ENTRY = 96, 16
_LEAD_MAGIC, _HEADER_MAGIC = b"\xed\xab\xee\xdb", b"\x8e\xad\xe8\x01"
_TAGS = {
    1000: "name", 1001: "version", 1002: "release", 1022: "architecture", 1030: "modes", 1037: "flags",
    1049: "requires", 1116: "places", 1117: "names", 1118: "folders",
}  # fmt: skip
_NUMBERS = {3: ">H", 4: ">I"}
_TEXT, _TEXTS = 6, (8, 9)


def header(path: Path) -> dict[str, Any]:
    """The tags of interest. `ValueError` for what is no rpm."""
    data = path.read_bytes()
    if data[:4] != _LEAD_MAGIC:
        raise ValueError(f"{path} is no rpm")
    _, end = _header(data, _LEAD)
    found, _ = _header(data, -(-end // 8) * 8)
    return found


def files(found: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Each path with its mode."""
    for name, place, mode in zip(found["names"], found["places"], found["modes"], strict=True):
        yield found["folders"][place] + name, mode


def _header(data: bytes, at: int) -> tuple[dict[str, Any], int]:
    if data[at : at + 4] != _HEADER_MAGIC:
        raise ValueError("a header begins otherwise")
    count, size = struct.unpack_from(">II", data, at + 8)
    store = at + 16 + count * _ENTRY
    found: dict[str, Any] = {}
    for number in range(count):
        tag, kind, offset, many = struct.unpack_from(">IIII", data, at + 16 + number * _ENTRY)
        name = _TAGS.get(tag)
        start = store + offset
        if name is None:
            continue
        if kind in _NUMBERS:
            found[name] = [value for (value,) in struct.iter_unpack(
                _NUMBERS[kind], data[start : start + many * struct.calcsize(_NUMBERS[kind])]
            )]  # fmt: skip
        elif kind in _TEXTS or kind == _TEXT:
            texts = [text.decode() for text in data[start : store + size].split(b"\0", many)[:many]]
            found[name] = texts[0] if kind == _TEXT else texts
    return found, store + size
