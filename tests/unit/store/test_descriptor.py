# SPDX-License-Identifier: Apache-2.0
"""The descriptor: what it is, whose it is, and that no byte of it was changed."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepstone.errors import CorruptObject, UnsupportedFormat
from keepstone.objects import MemoryStorage
from keepstone.store import Store
from keepstone.store.descriptor import FORMAT, check_descriptor, decode_descriptor, encode_descriptor
from tests.unit.store.known import Machine, new_store

pytestmark = pytest.mark.store


@pytest.fixture
def data(store: Store, memory: MemoryStorage) -> bytes:
    return memory.objects["keepstone.json"]


def check(store: Store, data: bytes) -> None:
    descriptor = decode_descriptor(data, "the store")
    check_descriptor(data, descriptor, store.context.keys, store.context.hashing, "the store")


def changed(data: bytes, **changes: Any) -> bytes:
    return json.dumps(json.loads(data) | changes).encode()


def test_round_trip(store: Store, data: bytes) -> None:
    check(store, data)

    assert decode_descriptor(data, "x") == decode_descriptor(
        encode_descriptor(store.descriptor, store.context.keys, store.context.hashing), "x"
    )
    assert decode_descriptor(data, "x").store_id == store.context.store_id


def test_a_person_can_read_it(data: bytes) -> None:
    text = json.loads(data)

    assert text["magic"] == "keepstone store"
    assert text["format"] == FORMAT == 1
    assert set(text["files"]) == {"FORMAT.md", "rescue.py"}
    assert data.endswith(b"}\n")
    assert data.count(b"\n") > 10


@pytest.mark.parametrize("number", [FORMAT + 1, 0, -1, 2**62])
def test_another_format(data: bytes, number: int) -> None:
    with pytest.raises(UnsupportedFormat, match=rf"has format {number}.*matching version"):
        decode_descriptor(changed(data, format=number), "/mnt/store")


def test_a_newer_format_of_which_nothing_else_is_known() -> None:
    with pytest.raises(UnsupportedFormat, match="has format 9"):
        decode_descriptor(b'{"magic": "keepstone store", "format": 9, "mac": 5, "new": [1, {"x": null}]}', "/mnt/store")


def test_another_profile_than_that_of_the_keys(store: Store) -> None:
    """What only somebody with the keys can make: the keys object is what counts."""
    other = msgspec.structs.replace(store.descriptor, hashing="hmac-sha256")
    with pytest.raises(CorruptObject, match=r"keepstone\.json"):
        check(store, encode_descriptor(other, store.context.keys, store.context.hashing))


@pytest.mark.parametrize("magic", ["restic", "", "Keepstone Store"])
def test_a_foreign_file(data: bytes, magic: str) -> None:
    with pytest.raises(UnsupportedFormat, match="is not a Keepstone store"):
        decode_descriptor(changed(data, magic=magic), "/mnt/store")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 100,
        b"{}",
        b"null",
        b"[]",
        b'{"magic": "keepstone store"}',
        b'{"magic": "keepstone store", "format": 1}',
        b'{"magic": "keepstone store", "format": "1"}',
        b'{"magic": "keepstone store", "format": 1.5}',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"magic": "keepstone store", "format": 1, "x": ' + b"[" * 100_000,
    ],
)
def test_rubbish(content: bytes) -> None:
    with pytest.raises(CorruptObject, match=r"keepstone\.json of /mnt/store"):
        decode_descriptor(content, "/mnt/store")


@pytest.mark.parametrize(
    "change",
    [
        {"store": "00"},
        {"store": "zz" * 16},
        {"store": "00" * 17},
        {"created": "yesterday"},
        {"created": None},
        {"file_chunks": [1, 2]},
        {"files": ["x"]},
        {"hashing": 5},
        {"soft_delete_days": 1.5},
    ],
    ids=str,
)
def test_fields_that_are_none(data: bytes, change: dict[str, Any]) -> None:
    with pytest.raises(CorruptObject):
        decode_descriptor(changed(data, **change), "/mnt/store")


@pytest.mark.parametrize(
    "change",
    [
        {"soft_delete_days": 0},
        {"disk_chunk": 1},
        {"files": {}},
        {"created": 1},
        {"hashing": "hmac-sha256"},
        {"mac": ""},
        {"mac": "0" * 64},
        {"mac": "ä"},
        {"more": 1},
    ],
    ids=str,
)
def test_fields_that_somebody_changed(store: Store, data: bytes, change: dict[str, Any]) -> None:
    with pytest.raises(CorruptObject):
        check(store, changed(data, **change))


def test_of_another_store(store: Store, data: bytes) -> None:
    other = new_store(Machine(9))
    with pytest.raises(CorruptObject):
        check(other, data)


def test_every_flipped_bit(store: Store, data: bytes) -> None:
    for at in range(len(data)):
        for bit in range(8):
            broken = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            with pytest.raises((CorruptObject, UnsupportedFormat)):
                check(store, broken)


@pytest.mark.parametrize("change", ["blank", "no newline", "compact", "order", "escape", "twice"])
def test_the_same_text_in_other_bytes(store: Store, data: bytes, change: str) -> None:
    text = json.loads(data)
    broken = {
        "blank": data + b" ",
        "no newline": data[:-1],
        "compact": json.dumps(text, separators=(",", ":")).encode(),
        "order": json.dumps(dict(reversed(text.items())), indent=2).encode() + b"\n",
        "escape": data.replace(b"keepstone store", b"\\u006beepstone store"),
        "twice": data.replace(b'"format": 1', b'"format": 1,\n  "format": 1'),
    }[change]
    assert broken != data

    with pytest.raises(CorruptObject):
        check(store, broken)


@given(st.binary(max_size=300))
def test_any_bytes(content: bytes) -> None:
    with contextlib.suppress(CorruptObject, UnsupportedFormat):
        decode_descriptor(content, "x")
