# SPDX-License-Identifier: Apache-2.0
"""The form of what is sealed: its lengths, its keys, and what they depend on."""

from __future__ import annotations

import random
from array import array

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from keepstone.crypto import Hashing, hashing
from keepstone.env import Env
from keepstone.errors import CorruptObject
from keepstone.remote import sealed as module
from keepstone.remote.sealed import CHUNK, Body, Sealed, padme
from keepstone.remote.veil import Plain
from keepstone.store.frame import Frame, made_frame, make_frame

from .sealing import keys_of

pytestmark = pytest.mark.agents

KEYRING, _ = keys_of(Env(), "item")
WIRE = Plain(hashing("blake3"), bytes(32))
FILES, DISKS = (Sealed(KEYRING, "item", kind, WIRE) for kind in ("files", "images"))
OVERHEAD = 57


def seal(veil: Sealed, *chunks: bytes, level: int = 3) -> list[bytes]:
    """The blobs of these chunks."""
    ids = [veil.identify(chunk) for chunk in chunks]
    made = veil.frame(level, b"".join(chunks), ids, [len(chunk) for chunk in chunks])
    assert made.raw_length == sum(map(len, chunks))
    blobs = []
    at = 0
    for name, length in zip(made.wire_ids, made.wire_lengths, strict=True):
        blobs.append(bytes(made.payload[at : at + length]))
        assert WIRE.identify(blobs[-1]) == name
        at += length
    assert at == len(made.payload)
    return blobs


@given(st.integers(0, 1 << 40))
def test_padding_adds_twelve_percent_at_most(length: int) -> None:
    padded = padme(length)
    assert length <= padded <= length * 1.12
    assert padme(padded) == padded


@given(st.integers(2, 1 << 40))
def test_few_lengths_are_seen(length: int) -> None:
    """Of what length something is, no more can be told than log2(log2(n)) + 1 bits below the highest one."""
    padded = padme(length)
    exponent = padded.bit_length() - 1
    assert padded % (1 << exponent - exponent.bit_length()) == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300_000), st.integers(0, 5), st.sampled_from(["zeros", "noise", "text"]))
def test_a_length_is_that_of_its_bucket(length: int, seed: int, what: str) -> None:
    chunk = {
        "zeros": bytes(length),
        "noise": random.Random(seed).randbytes(length),
        "text": (b"%d and " % seed * length)[:length],
    }[what]
    for veil, bucket in ((FILES, padme), (DISKS, lambda size: -(-size // 4096) * 4096)):
        (blob,) = seal(veil, chunk)
        assert bucket(len(blob)) == len(blob)
        assert len(blob) <= bucket(length + OVERHEAD)
        if what == "noise":
            assert len(blob) == bucket(length + OVERHEAD)
        assert bytes(veil.open_chunk(veil.identify(chunk), memoryview(blob))) == chunk


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=8))
def test_what_lies_beside_it_has_no_say(lengths: list[int]) -> None:
    chunks = [random.Random(length).randbytes(length) for length in lengths]
    assert seal(FILES, *chunks) == [seal(FILES, chunk)[0] for chunk in chunks]


def test_the_same_chunk_is_the_same_blob_in_its_item_alone() -> None:
    chunk = b"the same " * 1000
    again = Sealed(KEYRING, "item", "files", WIRE)
    assert seal(FILES, chunk) == seal(again, chunk)
    others = [
        DISKS,
        Sealed(KEYRING, "another", "files", WIRE),
        Sealed(keys_of(Env(), "item")[0], "item", "files", WIRE),
    ]
    for other in others:
        (blob,) = seal(other, chunk)
        assert blob[:32] != seal(FILES, chunk)[0][:32]
        with pytest.raises(CorruptObject):
            FILES.open_chunk(FILES.identify(chunk), memoryview(blob))


def test_no_key_seals_two_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is different in a text, the key is: what the compressor made of it, and how it was padded, too."""
    used: dict[bytes, set[bytes]] = {}

    real, real_frame = AESGCM, make_frame

    class Noted:
        def __init__(self, key: bytes) -> None:
            self.key, self.cipher = key, real(key)

        def encrypt_into(self, nonce: bytes, text: memoryview, associated: bytes, into: memoryview) -> None:
            used.setdefault(self.key + nonce, set()).add(bytes(text) + associated)
            self.cipher.encrypt_into(nonce, text, associated, into)

    monkeypatch.setattr(module, "AESGCM", Noted)
    text = b"".join(b"%d, " % (number % 977) for number in range(30_000))
    noise = random.Random(1).randbytes(70_000)
    for level in (1, 3, 9, 19):
        for veil in (FILES, DISKS):
            seal(veil, text, text[:-1], noise, level=level)
    monkeypatch.setattr(Sealed, "_padded", lambda self, length: length + 1000)
    seal(FILES, text, noise)

    def other_compressor(
        hashing: Hashing, level: int, data: bytes, ids: list[bytes], lengths: list[int], *, sample: bool = False
    ) -> Frame:
        made = real_frame(hashing, level, data, ids, lengths, sample=sample)
        altered = bytes(made.payload[:-1]) + b"?"  # as long, and not the same
        return made_frame(hashing, altered, made.codec, made.raw_length, ids, lengths)

    monkeypatch.setattr(module, "make_frame", other_compressor)
    seal(FILES, text)
    FILES.close(text, b"")
    monkeypatch.setattr(module, "make_frame", real_frame)
    for kind in ("files/page", "files/other"):
        for names in (b"", bytes(32)):
            FILES.seal_node(kind, Body(text, b"", array("I"), names, 0, len(names) // 32))
    FILES.close(text, b"")
    assert all(len(texts) == 1 for texts in used.values())
    assert len(used) > 15


@given(st.binary(max_size=3000), st.integers(0, 40), st.integers(0, 5), st.randoms(use_true_random=False))
def test_a_node_comes_back(text: bytes, chunks: int, children: int, chance: random.Random) -> None:
    lengths = array("I", [chance.randrange(1 << 20) for _ in range(chunks)])
    body = Body(text, chance.randbytes(32 * chunks), lengths, chance.randbytes(32 * children), chunks, children)
    sealed = FILES.seal_node("files/page", body)
    assert padme(len(sealed)) == len(sealed)
    assert FILES.open_node("files/page", sealed, sealed[:32]) == body
    with pytest.raises(CorruptObject):
        FILES.open_node("files/page", sealed, bytes(32))


@given(st.integers(0, 9 * CHUNK), st.booleans())
def test_files_are_cut_where_nothing_is_told(length: int, last: bool) -> None:
    lengths = FILES.cut(memoryview(bytes(length)), last)
    assert set(lengths[:-1]) <= {CHUNK}
    assert sum(lengths) == (length if last else length // CHUNK * CHUNK)
