# SPDX-License-Identifier: Apache-2.0
"""Logical volumes of LVM2 whose physical volumes are all on one disk: linear and striped ones, of many segments.

The format: lvm2, lib/format_text/layout.h (labels, headers of physical volumes and of metadata areas) and
lib/format_text/import_vsn1.c (the metadata themselves, a text). A volume that is made otherwise, such as a thin one, a
mirror or a snapshot, is told with the reason why it cannot be read.
"""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from keepstone.workloads.guestfiles.blocks import Part, Readable

__all__ = ["Logical", "is_physical", "logical"]

_SECTOR = 512
_LABEL = struct.Struct("<8sQII8s")  # label_header: LABELONE, its sector, a checksum, offset of the header, LVM2 001
_AREA = struct.Struct("<QQ")  # disk_locn: offset, size
_METADATA = struct.Struct("<I16sIQQ")  # mda_header: a checksum, magic, version, start, size
_TEXT = struct.Struct("<QQII")  # raw_locn: offset, size, a checksum, flags
_MAGIC = b" LVM2 x[5A%r0N*>"
_MOST_TEXT = 4 << 20
_DEPTH = 16
_PARTS = 64  # of a volume that are told
_TOKEN = re.compile(r'\s+|#[^\n]*|([A-Za-z0-9_.+/@-]+)|"((?:[^"\\]|\\.)*)"|([{}\[\]=,])')


class Logical(NamedTuple):
    """`name`: group and volume with a dash between, as /dev/mapper has it. `data`: None where it cannot be read, and
    `note` why. `parts`: (offset, length) of its bytes on the disk, or of more than those."""

    name: str
    offset: int
    size: int
    data: Readable | None
    note: str
    parts: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True, slots=True)
class _Physical:
    id: str
    offset: int
    part: Part
    text: str


class _Segment(NamedTuple):
    begin: int
    length: int
    stripe: int
    parts: list[tuple[Readable, int]]


class _Segments:
    """The bytes of a logical volume."""

    def __init__(self, size: int, segments: list[_Segment]) -> None:
        self.size = size
        self._segments = segments

    def read(self, offset: int, length: int) -> bytes:
        """See `Readable`."""
        end = min(offset + length, self.size)
        pieces = []
        for segment in self._segments:
            while segment.begin <= offset < min(segment.begin + segment.length, end):
                within = offset - segment.begin
                count = min(segment.length - within, end - offset)
                which = 0
                if len(segment.parts) > 1:
                    row, rest = divmod(within, segment.stripe * len(segment.parts))
                    which, inside = divmod(rest, segment.stripe)
                    count = min(count, segment.stripe - inside)
                    within = row * segment.stripe + inside
                part, begin = segment.parts[which]
                data = part.read(begin + within, count)
                if len(data) != count:
                    raise OSError("a part of the logical volume is beyond the end of its disk")
                pieces.append(data)
                offset += count
        return b"".join(pieces)


def is_physical(part: Readable) -> bool:
    """Whether this is a physical volume."""
    return _label(part) is not None


def logical(physical: list[tuple[int, Part]]) -> list[Logical]:
    """What is on these physical volumes, each with its offset on the disk."""
    known: dict[str, _Physical] = {}
    for offset, part in physical:
        found = _physical(offset, part)
        if found is not None:
            known[found.id] = found
    groups: dict[str, tuple[int, str, dict[str, Any]]] = {}
    for one in known.values():
        try:
            described = _parsed(one.text)
            for name, group in described.items():
                if isinstance(group, dict) and "physical_volumes" in group:
                    newest = groups.get(str(group.get("id")), (-1, "", {}))
                    number = _number(group, "seqno")
                    if number > newest[0]:
                        groups[str(group.get("id"))] = number, name, group
        except (ValueError, RecursionError):
            continue
    return [one for _, name, group in groups.values() for one in _volumes(name, group, known)]


def _label(part: Readable) -> int | None:
    """Where the header of the physical volume is; it is one of the first four sectors that has the label."""
    head = part.read(0, 4 * _SECTOR)
    for at in range(0, len(head) - _LABEL.size, _SECTOR):
        mark, _, _, offset, kind = _LABEL.unpack_from(head, at)
        if mark == b"LABELONE" and kind == b"LVM2 001":
            return at + int(offset)
    return None


def _physical(offset: int, part: Part) -> _Physical | None:
    at = _label(part)
    header = part.read(at, 40 + 64 * _AREA.size) if at is not None else b""
    if len(header) < 40:
        return None
    identity = header[:32].decode("ascii", "replace")
    areas, ends = list[tuple[int, int]](), 0
    for begin in range(40, len(header) - _AREA.size + 1, _AREA.size):  # data areas, a zero, metadata areas, a zero
        area = _AREA.unpack_from(header, begin)
        if area[0] == 0:
            ends += 1
            if ends == 2:
                break
        elif ends:
            areas.append(area)
    texts = [text for begin, size in areas if (text := _text(part, begin, size))]
    return _Physical(identity, offset, part, texts[0] if texts else "")


def _text(part: Part, begin: int, size: int) -> str:
    """The metadata in this area; it is a ring behind its first sector."""
    header = part.read(begin, _SECTOR)
    if len(header) < _SECTOR:
        return ""
    _, magic, _, _, _ = _METADATA.unpack_from(header)
    offset, length, _, _ = _TEXT.unpack_from(header, _METADATA.size)
    if magic != _MAGIC or not _SECTOR <= offset < size or not 0 < length <= min(_MOST_TEXT, size - _SECTOR):
        return ""
    first = min(length, size - offset)
    data = part.read(begin + offset, first) + part.read(begin + _SECTOR, length - first)
    return data.partition(b"\0")[0].decode("utf-8", "replace")


def _volumes(name: str, group: dict[str, Any], known: dict[str, _Physical]) -> Iterator[Logical]:
    parts: dict[str, tuple[_Physical, int]] = {}
    extent = 0
    with contextlib.suppress(ValueError):  # then no volume can be read, and each says so
        extent = _number(group, "extent_size") * _SECTOR
        for key, one in _section(group, "physical_volumes").items():
            identity = str(one.get("id", "")).replace("-", "") if isinstance(one, dict) else ""
            if identity in known:
                parts[key] = known[identity], _number(one, "pe_start") * _SECTOR
    for key, volume in _section(group, "logical_volumes").items():
        status = volume.get("status") if isinstance(volume, dict) else None
        if not isinstance(status, list) or "VISIBLE" not in status:
            continue
        full = f"{name}-{key}"
        size = 0
        try:
            sections = [
                value for label, value in volume.items() if label.startswith("segment") and isinstance(value, dict)
            ]
            size = sum(_number(one, "extent_count") for one in sections) * extent
            segments = sorted((_segment(one, extent, parts) for one in sections), key=lambda one: one.begin)
            first = segments[0].parts[0]
            offset = next(one.offset for one, _ in parts.values() if one.part is first[0]) + first[1]
            places = _places(segments, [one for one, _ in parts.values()])
            yield Logical(full, offset, size, _Segments(size, segments), "", places)
        except (ValueError, LookupError) as error:
            yield Logical(full, 0, size, None, f"it cannot be read: {error}")


def _places(segments: list[_Segment], physical: list[_Physical]) -> list[tuple[int, int]]:
    """Where these segments are on the disk. Where how they are put together is more than can be said so, it is all of
    the physical volumes, whose metadata say it."""
    whole = [(one.offset, one.part.size) for one in physical]
    offsets = {id(one.part): one.offset for one in physical}
    places, end = list[tuple[int, int]](), 0
    for segment in segments[: _PARTS + 1]:
        part, begin = segment.parts[0]
        if len(segment.parts) > 1 or segment.begin != end or not 0 <= begin <= part.size - segment.length:
            return whole
        places.append((offsets[id(part)] + begin, segment.length))
        end += segment.length
    return places if len(places) <= _PARTS else whole


def _segment(section: dict[str, Any], extent: int, parts: dict[str, tuple[_Physical, int]]) -> _Segment:
    if section.get("type") != "striped":
        raise ValueError(f"volumes of the kind {str(section.get('type'))[:40]!r} are not known")
    stripes = section.get("stripes")
    if not isinstance(stripes, list) or not stripes or len(stripes) % 2 or len(stripes) > 256:
        raise ValueError("its metadata are damaged")
    places: list[tuple[Readable, int]] = []
    for key, number in zip(stripes[::2], stripes[1::2], strict=True):
        if not isinstance(key, str) or key not in parts or not isinstance(number, int):
            raise ValueError("a part of it is on another disk")
        physical, begin = parts[key]
        places.append((physical.part, begin + number * extent))
    stripe = _number(section, "stripe_size") * _SECTOR if len(places) > 1 else extent
    length = _number(section, "extent_count") * extent
    if length <= 0 or stripe <= 0:
        raise ValueError("its metadata are damaged")
    return _Segment(_number(section, "start_extent") * extent, length, stripe, places)


def _number(section: dict[str, Any], key: str) -> int:
    value = section.get(key)
    if not isinstance(value, int) or not 0 <= value < 2**48:
        raise ValueError(f"its metadata are damaged: {key}")
    return value


def _section(section: dict[str, Any], key: str) -> dict[str, Any]:
    value = section.get(key)
    return value if isinstance(value, dict) else {}


def _parsed(text: str) -> dict[str, Any]:
    """The sections and values of a text of metadata; `ValueError` where it is none."""
    tokens = _tokens(text)

    def value(token: str) -> Any:
        if token == "[":
            values = []
            while (token := next(tokens)) != "]":
                if token != ",":
                    values.append(value(token))
            return values
        if token.startswith('"'):
            return token[1:]
        return int(token) if re.fullmatch(r"-?[0-9]{1,20}", token) else token

    def section(depth: int) -> dict[str, Any]:
        if depth > _DEPTH:
            raise ValueError("sections too deep")
        found: dict[str, Any] = {}
        for token in tokens:
            if token == "}":
                return found
            follows = next(tokens, "")
            if follows == "{":
                found[token] = section(depth + 1)
            elif follows == "=":
                found[token] = value(next(tokens, ""))
            else:
                raise ValueError(f"{token[:40]!r} is followed by {follows[:40]!r}")
        return found

    try:
        return section(0)
    except StopIteration:
        raise ValueError("it ends too early") from None


def _tokens(text: str) -> Iterator[str]:
    """Words, signs, and strings with a quote before them."""
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"{text[at : at + 20]!r} is not understood")
        at = match.end()
        word, string, sign = match.groups()
        if string is not None:
            yield '"' + re.sub(r"\\(.)", r"\1", string)
        elif word or sign:
            yield word or sign
