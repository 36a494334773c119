# SPDX-License-Identifier: Apache-2.0
"""A frame: consecutive new chunks, compressed together by one call; the unit of sealing.

Making a frame (compress, digest) needs no key and no pack, so workers do it beside the writer; sealing needs the
frame's place and is done while it is copied into the pack (`pack.py`).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import zstandard

from keepstone.crypto import Hashing
from keepstone.errors import CorruptObject, UsageError

__all__ = [
    "CODEC_RAW",
    "CODEC_ZSTD",
    "DEFAULT_LEVEL",
    "FRAME_LIMIT",
    "MAX_FRAME",
    "NODE_FRAME_LIMIT",
    "Frame",
    "compressed",
    "expand",
    "made_frame",
    "make_frame",
]

FRAME_LIMIT = 3 << 19
"""Bytes of chunks after which a frame is closed. What is opened stays in a core's own cache of 2 MiB beside what it was
made of, until its chunks are compared with their ids: of 2 MiB that is 3 % slower, for 0.7 % fewer bytes."""
NODE_FRAME_LIMIT = 1 << 20
"""The same for nodes: whoever walks a manifest wants few of those that lie beside one."""
MAX_FRAME = 16 << 20
"""No frame is longer than this before compression; a longer one is damage or an attack."""
CODEC_RAW = 0
CODEC_ZSTD = 1
DEFAULT_LEVEL = 0
"""Not one of zstd's levels: the strategy of level 1 (fast) with a table of 128 Ki entries, which stays in a core's own
cache, and a shortest match of 6. In frames of this length it is as small as level 3's with smaller tables, and faster
both ways: fewer and longer matches."""
_RAW = b"raw/v1"  # no payload that zstd made begins like this
_PART = 0.9
"""Only less than this part of a frame is decompressed by itself: in pieces zstd is a tenth slower than at once."""
_SAVING = 0.97  # below 3 % the chunk is stored as it is: reading it back is then free
_PAGE, _APART = 4 << 10, 32 << 10  # a sample has the first of these bytes out of each of those
_SAMPLED_FROM = 8 * _APART
_WORTH_A_TRY = 0.99  # one page of text in a frame of noise makes a sample smaller than this

_local = threading.local()  # zstd contexts are not to be shared between threads, nor made per call


@dataclass(frozen=True, slots=True)
class Frame:
    """`payload` is what will be sealed; `ids` and `lengths` belong to the chunks in it, `digest` to the payload: two
    payloads never have the same."""

    payload: bytes | memoryview
    codec: int
    raw_length: int
    digest: bytes
    ids: list[bytes]
    lengths: list[int]


def compressed(level: int, data: bytes | memoryview, *, sample: bool = False) -> tuple[bytes | memoryview, int]:
    """(payload, codec) of the chunks that make up `data`; what is stored as it is is `data` itself.

    `sample`: look at an eighth of it first, and no further where that does not get smaller, as with data beside which
    nothing did. Not seen then: less than 32 KiB that would, and what is there twice at another distance than pages are.
    """
    compressors: dict[int, zstandard.ZstdCompressor] = _local.__dict__.setdefault("compressors", {})
    compressor = compressors.get(level)
    if compressor is None:
        compressor = compressors[level] = _compressor(level)
    if len(data) > MAX_FRAME:
        raise UsageError(f"{len(data)} bytes are too many for one frame; cut them into chunks of at most {MAX_FRAME}")
    if sample and len(data) >= _SAMPLED_FROM and _resists(compressor, memoryview(data)):
        return data, CODEC_RAW
    payload = compressor.compress(data)
    return (payload, CODEC_ZSTD) if len(payload) < len(data) * _SAVING else (data, CODEC_RAW)


def _resists(compressor: zstandard.ZstdCompressor, data: memoryview) -> bool:
    sample = b"".join([data[at : at + _PAGE] for at in range(0, len(data), _APART)])
    return len(compressor.compress(sample)) > len(sample) * _WORTH_A_TRY


def make_frame(
    hashing: Hashing,
    level: int,
    data: bytes | memoryview,
    ids: list[bytes],
    lengths: list[int],
    *,
    sample: bool = False,
) -> Frame:
    """Compress the chunks that make up `data`, which must stay as it is as long as the frame is used. `sample`: as in
    `compressed`."""
    return made_frame(hashing, *compressed(level, data, sample=sample), len(data), ids, lengths)


def made_frame(
    hashing: Hashing, payload: bytes | memoryview, codec: int, raw_length: int, ids: list[bytes], lengths: list[int]
) -> Frame:
    """A frame out of what was compressed already. Its ids must be those of its chunks."""
    # what is stored as it is has been hashed: its ids stand for it
    digest = hashing.digest(payload if codec == CODEC_ZSTD else b"".join((_RAW, *ids)))
    return Frame(payload, codec, raw_length, digest, ids, lengths)


def _compressor(level: int) -> zstandard.ZstdCompressor:
    if level != DEFAULT_LEVEL:
        return zstandard.ZstdCompressor(level=level, write_checksum=False)
    parameters = zstandard.ZstdCompressionParameters(
        window_log=21,
        hash_log=17,
        chain_log=13,  # of no use to this strategy, and there is no leaving it out
        search_log=1,
        min_match=6,
        target_length=0,
        strategy=zstandard.STRATEGY_FAST,
        write_checksum=False,
    )
    return zstandard.ZstdCompressor(compression_params=parameters)


def expand(
    payload: bytes | bytearray | memoryview,
    codec: int,
    raw_length: int,
    wanted: int | None = None,
    *,
    into: memoryview | None = None,
    strict: bool = False,
) -> bytes | bytearray | memoryview:
    """The chunks of an opened frame, or at least their first `wanted` bytes.

    `into`: memory of at least as many bytes, where they are put; those of a frame that is stored uncompressed stay in
    `payload`. `CorruptObject` where they are not `raw_length` bytes, as far as was looked. `strict`, which takes no
    `into`: also where something else is behind them, which no decoder is sure to pass over.
    """
    length = raw_length if wanted is None or codec == CODEC_RAW or wanted >= raw_length * _PART else wanted
    if codec == CODEC_RAW:
        data: bytes | bytearray | memoryview = payload
    elif codec == CODEC_ZSTD and raw_length <= MAX_FRAME:
        decompressor = _local.__dict__.get("decompressor")
        if decompressor is None:
            decompressor = _local.decompressor = zstandard.ZstdDecompressor()
        try:
            if zstandard.frame_content_size(payload) != raw_length:
                raise CorruptObject("a frame says another length than its pack")
            if into is not None and length and not strict:  # at once where all is wanted
                data = into[: decompressor.stream_reader(payload).readinto(into[:length])]
            elif length < raw_length:
                data = decompressor.stream_reader(payload).read(length)
            else:
                data = decompressor.decompress(payload, max_output_size=raw_length, allow_extra_data=not strict)
        except zstandard.ZstdError as error:
            raise CorruptObject(f"a frame does not decompress ({error})") from error
    else:
        raise CorruptObject(f"a frame has an unknown codec {codec} or length {raw_length}")
    if len(data) != length:
        raise CorruptObject("a frame has another length than its pack says")
    return data
