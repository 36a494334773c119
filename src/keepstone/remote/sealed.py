# SPDX-License-Identifier: Apache-2.0
"""Points that their service cannot read: the keys stay on the machine, and what leaves it is sealed. This page is the
authority on the format.

    sealed       salt 32 · AES-256-GCM(key, nonce 0, text, associated data)                   as long as `_padded` says
    text         codec u8 · length u32 · length of the payload u32 · payload · zeros          little-endian, as all here
    associated   bind("keepstone/sealed/v1", item, "files" or "images", part)
    salt         keyed(K, bind("sealed-salt/v1", associated, id, codec and lengths, length of the text u32, digest))
    key          keyed(K, bind("sealed-key/v1", associated, id, salt))

    of           part        K             id                              payload
    a chunk      "chunk"     encryption    keyed(K_id, chunk)              the chunk
    a node       its kind    metadata      none                            body · ids · lengths · names · counts
    the detail   "detail"    metadata      none                            detail · names of the roots

The payload is compressed as the store's frames are (`store.frame`), or raw; `digest` is that of such a frame. A node's
*name* is the salt that it is sealed with. Its columns: ids of its chunks, 32 bytes each, and their lengths, u32 each;
the names of its children; then u32: how many chunks, how many children. A node of more than `SLICE` chunks has its ids
and lengths in nodes `<kind>/columns` instead, of so many each: they come after its children, and are counted apart.

Keys: `crypto.keyring`, one for each item, for a store id that is the item's (`store_id`). The service keeps the keys
object, which the passphrase alone opens. Whatever it is given is a chunk or a body to it, whose id it makes by itself.

Invariants
* No key seals two texts under the nonce 0. A key is a function of its salt, the salt a function of everything in the
  text: the lengths, the padding by its length, the payload by its digest. That is of the *compressed* bytes: another
  version of zstd makes another payload of the same chunk, and so another salt and key. No chance is in it: a machine
  that was cloned or set back repeats itself, and nothing else. The same content under the same compressor is the same
  blob, within one item: that is how it deduplicates there.
* Nobody can test whether he knows a chunk: ids and salts are keyed. The salt tells whether two blobs are equal, as they
  do themselves.
* What was opened is compared with its id (a chunk) or its name (a node), for GCM does not commit to a key. A node names
  its children and the detail its roots: nothing can be put in the place of something else, nor left out.
* Lengths: disks in steps of 4 KiB; all else by Padmé (Nikitin et al., PETS 2019), which adds 12 % at most. Files are
  cut at each `CHUNK`: cuts by content would tell what a file is.
"""

from __future__ import annotations

import hmac
import struct
import threading
from array import array
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keepstone.crypto import Keyring
from keepstone.crypto.binding import bind
from keepstone.errors import CorruptObject
from keepstone.objects import round_up
from keepstone.remote.veil import Parcel, Plain
from keepstone.store import cut_fixed
from keepstone.store.frame import CODEC_RAW, Frame, expand, made_frame, make_frame

__all__ = ["CHUNK", "COLUMNS", "SLICE", "Body", "Sealed", "padme", "slices_of", "store_id"]

CHUNK = 1 << 20
"""Bytes of a file that are one chunk."""
SLICE = 1 << 15
"""Chunks whose ids and lengths stand in the node itself."""
COLUMNS = "/columns"
"""How kinds of nodes end that hold what another one has no room for."""
_ID = 32
_NONCE = bytes(12)
_TAG = 16
_HEAD = struct.Struct("<BII")
_COUNTS = struct.Struct("<II")
_OVERHEAD = _ID + _HEAD.size + _TAG
_BODY_LEVEL = 3
_CHUNK, _DETAIL = "chunk", "detail"
_local = threading.local()


def store_id(item: str) -> bytes:
    """What the keys of an item belong to."""
    return b"sealed item " + item.encode()


def padme(length: int) -> int:
    """The length that something of this length is given: more by 12 % at most, one of few."""
    if length < 2:
        return length
    exponent = length.bit_length() - 1
    mask = (1 << exponent - exponent.bit_length()) - 1
    return (length + mask) & ~mask


class Body(NamedTuple):
    """A node's own part. `ids`, `names`: 32 bytes each. `chunks`, `children`: how many it has; with more than `SLICE`
    chunks, `ids` and `lengths` are elsewhere, and `names` has those of the nodes where they are at its end."""

    text: bytes
    ids: bytes
    lengths: array[int]
    names: bytes
    chunks: int
    children: int


class Sealed:
    """`Veil` of an item. `kind`: of its workload. `wire`: how the service names what it gets. Safe for several
    threads."""

    def __init__(self, keyring: Keyring, item: str, kind: str, wire: Plain) -> None:
        self._hashing = keyring.hashing
        self._keys = keyring.keys
        self._wire = wire
        self._about = item.encode(), kind.encode()
        self._chunks = self._associated(_CHUNK)
        self._is_disk = kind == "images"

    @staticmethod
    def cut(data: memoryview, last: bool) -> list[int]:
        return cut_fixed(len(data) if last else len(data) // CHUNK * CHUNK, CHUNK)

    def identify(self, chunk: bytes | memoryview) -> bytes:
        return self._hashing.keyed(self._keys.id, chunk)

    def derive(self, text: bytes) -> bytes:
        return self._hashing.keyed(self._keys.metadata, text)

    def frame(
        self, level: int, data: bytes | memoryview, ids: list[bytes], lengths: list[int], *, sample: bool = False
    ) -> Parcel:
        """As `Veil.frame`. Every parcel from here is one that no codec makes smaller, so `sample` says nothing of the
        chunks; each of them does of the next."""
        view, at = memoryview(data), 0
        frames: list[Frame] = []
        for identity, length in zip(ids, lengths, strict=True):
            raw = bool(frames) and frames[-1].codec == CODEC_RAW
            chunk = view[at : at + length]
            frames.append(make_frame(self._hashing, level, chunk, [identity], [length], sample=raw))
            at += length
        sizes = [self._size(made) for made in frames]
        sealed = memoryview(bytearray(sum(sizes)))
        names = []
        at = 0
        for identity, made, size in zip(ids, frames, sizes, strict=True):
            blob = sealed[at : at + size]
            self._seal(self._keys.encryption, self._chunks, identity, made, blob)
            names.append(self._wire.identify(blob))
            at += size
        # its digest is nobody's: the service makes a frame of its own of it
        return Parcel(bytes(sealed), CODEC_RAW, len(view), b"", ids, lengths, names, sizes)

    def open_chunk(self, identity: bytes, sealed: memoryview) -> memoryview:
        """A chunk out of what the service keeps. `CorruptObject` where it is not the one with this id."""
        data = self._open(self._keys.encryption, self._chunks, identity, sealed)[0]
        if not hmac.compare_digest(self.identify(data), identity):
            raise _forged("a chunk")
        return data

    def seal_node(self, kind: str, body: Body) -> bytes:
        """A node's body as the service keeps it; its first 32 bytes are its name."""
        counts = _COUNTS.pack(body.chunks, body.children)
        lengths = struct.pack(f"<{len(body.lengths)}I", *body.lengths)
        return self._seal_text(kind, b"".join((body.text, body.ids, lengths, body.names, counts)))

    def open_node(self, kind: str, sealed: bytes, name: bytes) -> Body:
        """The inverse. `CorruptObject` where it is not the node with this name."""
        if sealed[:_ID] != name:
            raise _forged("a node of the manifest")
        text = self._open_text(kind, sealed, "a node of the manifest")
        if len(text) < _COUNTS.size:
            raise _forged("a node of the manifest")
        chunks, children = _COUNTS.unpack_from(text, len(text) - _COUNTS.size)
        slices = slices_of(chunks)
        inside = 0 if slices else chunks
        ends = len(text) - _COUNTS.size
        names = ends - _ID * (children + slices)
        lengths = names - 4 * inside
        ids = lengths - _ID * inside
        if ids < 0:
            raise _forged("a node of the manifest")
        return Body(
            bytes(text[:ids]),
            bytes(text[ids:lengths]),
            array("I", struct.unpack(f"<{inside}I", text[lengths:names])),
            bytes(text[names:ends]),
            chunks,
            children,
        )

    def close(self, detail: bytes, roots: bytes) -> bytes:
        return self._seal_text(_DETAIL, b"".join((detail, roots, len(roots).to_bytes(4, "little"))))

    def open(self, detail: bytes) -> tuple[bytes, bytes]:
        text = self._open_text(_DETAIL, detail, "a recovery point")
        size = int.from_bytes(text[-4:], "little")
        end = len(text) - 4 - size
        if end < 0 or size % _ID:
            raise _forged("a recovery point")
        return bytes(text[:end]), bytes(text[end:-4])

    # ------------------------------------------------------------------ the cipher

    def _seal_text(self, part: str, text: bytes) -> bytes:
        identity = self.identify(text)  # stands for it where it stays as it is
        made = make_frame(self._hashing, _BODY_LEVEL, text, [identity], [len(text)])
        sealed = bytearray(self._size(made))
        self._seal(self._keys.metadata, self._associated(part), b"", made, memoryview(sealed))
        return bytes(sealed)

    def _open_text(self, part: str, sealed: bytes, what: str) -> memoryview:
        associated = self._associated(part)
        text, codec, payload = self._open(self._keys.metadata, associated, b"", memoryview(sealed), what)
        made = made_frame(self._hashing, bytes(payload), codec, len(text), [self.identify(text)], [len(text)])
        room = len(sealed) - _ID - _TAG
        if not hmac.compare_digest(self._salt(self._keys.metadata, associated, b"", made, room), sealed[:_ID]):
            raise _forged(what)
        return text

    def _seal(self, key: bytes, associated: bytes, identity: bytes, made: Frame, into: memoryview) -> None:
        room = len(into) - _ID - _TAG
        salt = into[:_ID] = self._salt(key, associated, identity, made, room)
        text = _scratch(room)
        end = _HEAD.size + len(made.payload)
        _HEAD.pack_into(text, 0, made.codec, made.raw_length, len(made.payload))
        text[_HEAD.size : end] = made.payload
        text[end:] = bytes(room - end)
        AESGCM(self._key(key, associated, identity, salt)).encrypt_into(_NONCE, text, associated, into[_ID:])

    def _open(
        self, key: bytes, associated: bytes, identity: bytes, sealed: memoryview, what: str = "a chunk"
    ) -> tuple[memoryview, int, memoryview]:
        """(what was sealed, its codec, its payload), not compared with anything yet."""
        if len(sealed) < _OVERHEAD:
            raise _forged(what)
        cipher = AESGCM(self._key(key, associated, identity, bytes(sealed[:_ID])))
        try:
            text = memoryview(cipher.decrypt(_NONCE, sealed[_ID:], associated))
        except InvalidTag:
            raise _forged(what) from None
        codec, raw_length, size = _HEAD.unpack_from(text)
        payload = text[_HEAD.size : _HEAD.size + size]
        if len(payload) != size:
            raise _forged(what)
        return memoryview(expand(payload, codec, raw_length)), codec, payload

    def _salt(self, key: bytes, associated: bytes, identity: bytes, made: Frame, room: int) -> bytes:
        head = _HEAD.pack(made.codec, made.raw_length, len(made.payload))
        parts = b"sealed-salt/v1", associated, identity, head, room.to_bytes(4, "little"), made.digest
        return self._hashing.keyed(key, bind(*parts))

    def _key(self, key: bytes, associated: bytes, identity: bytes, salt: bytes) -> bytes:
        return self._hashing.keyed(key, bind(b"sealed-key/v1", associated, identity, salt))

    def _associated(self, part: str) -> bytes:
        return bind(b"keepstone/sealed/v1", *self._about, part.encode())

    def _size(self, made: Frame) -> int:
        return self._padded(_OVERHEAD + len(made.payload))

    def _padded(self, length: int) -> int:
        return round_up(length) if self._is_disk else padme(length)


def slices_of(chunks: int) -> int:
    """How many nodes hold the columns of a node with so many chunks; 0: it holds them itself."""
    return -(-chunks // SLICE) if chunks > SLICE else 0


def _scratch(size: int) -> memoryview:
    """So many bytes of this thread's own, until its next call."""
    room: memoryview | None = getattr(_local, "room", None)
    if room is None or len(room) < size:
        room = _local.room = memoryview(bytearray(max(size, 2 * CHUNK)))
    return room[:size]


def _forged(what: str) -> CorruptObject:
    return CorruptObject(
        f"{what} is not what this machine has sealed there (damage, forgery, swap); restore another point, and run "
        "`keepstone store verify` where the store is"
    )
