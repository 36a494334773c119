# SPDX-License-Identifier: Apache-2.0
"""The descriptor `keepstone.json`: what a program must know before it can read anything else.

Readable JSON. `format` is checked first, so that a newer or foreign store is named as such and never misread. `mac`
authenticates the rest under the metadata key as soon as the keys are open.
"""

from __future__ import annotations

import hmac

import msgspec

from keepstone.crypto import DomainKeys, Hashing
from keepstone.decoders import from_json
from keepstone.errors import CorruptObject, UnsupportedFormat

__all__ = ["FORMAT", "Descriptor", "check_descriptor", "decode_descriptor", "encode_descriptor"]

FORMAT = 1
_MAGIC = "keepstone store"


class Descriptor(msgspec.Struct, frozen=True, kw_only=True):
    """`files`: digests (hex) of the documents beside it. `disk_chunk`, `file_chunks`: how data is cut, see
    `chunking`."""

    magic: str = _MAGIC
    format: int = FORMAT
    store: str
    created: int
    hashing: str
    disk_chunk: int
    file_chunks: tuple[int, int, int]
    soft_delete_days: int
    files: dict[str, str]
    mac: str = ""

    @property
    def store_id(self) -> bytes:
        return bytes.fromhex(self.store)


class _Version(msgspec.Struct):
    magic: str
    format: int


def _mac(descriptor: Descriptor, keys: DomainKeys, hashing: Hashing) -> str:
    plain = msgspec.json.encode(msgspec.structs.replace(descriptor, mac=""), order="deterministic")
    return hashing.keyed(keys.metadata, b"descriptor/v1" + plain).hex()


def encode_descriptor(descriptor: Descriptor, keys: DomainKeys, hashing: Hashing) -> bytes:
    """The stored form, authenticated."""
    whole = msgspec.structs.replace(descriptor, mac=_mac(descriptor, keys, hashing))
    return msgspec.json.format(msgspec.json.encode(whole, order="deterministic"), indent=2) + b"\n"


def decode_descriptor(data: bytes, place: str) -> Descriptor:
    """Read a descriptor, not yet authenticated.

    `UnsupportedFormat` where it is newer or foreign, `CorruptObject` where it is damaged.
    """
    try:
        version = from_json(_Version).decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise CorruptObject(f"keepstone.json of {place} is damaged ({error}); restore it from a copy") from error
    if version.magic != _MAGIC:
        raise UnsupportedFormat(
            f"{place} is not a Keepstone store (keepstone.json says {version.magic!r}); check the path"
        )
    if version.format != FORMAT:
        raise UnsupportedFormat(
            f"{place} has format {version.format}, this version reads format {FORMAT}; "
            "use a matching version of Keepstone"
        )
    try:
        descriptor = from_json(Descriptor).decode(data)
        valid = len(descriptor.store_id) == 16
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise CorruptObject(f"keepstone.json of {place} is damaged ({error}); restore it from a copy") from error
    if not valid:
        raise CorruptObject(f"keepstone.json of {place} has a store id of the wrong length; restore it from a copy")
    return descriptor


def check_descriptor(data: bytes, descriptor: Descriptor, keys: DomainKeys, hashing: Hashing, place: str) -> None:
    """Authenticate the descriptor, every byte of it; `CorruptObject` where it was changed."""
    same = hmac.compare_digest(descriptor.mac.encode(), _mac(descriptor, keys, hashing).encode())
    if not same or descriptor.hashing != hashing.name or encode_descriptor(descriptor, keys, hashing) != data:
        raise CorruptObject(f"keepstone.json of {place} was damaged or changed; restore it from a copy")
