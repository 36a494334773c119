# SPDX-License-Identifier: Apache-2.0
"""Codes of blocks against the formula of their module, computed in another way."""

from __future__ import annotations

import random

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from keepstone.crypto import BlockMac

pytestmark = pytest.mark.store

KEY = bytes(range(32))


def gmac(key: bytes, nonce: bytes, block: bytes) -> bytes:
    """The tag of NIST SP 800-38D, sections 6.3 to 6.5, for associated data alone."""

    def encrypt(block: bytes) -> int:
        cipher = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
        return int.from_bytes(cipher.update(block), "big")

    def times(one: int, other: int) -> int:
        product = 0
        for bit in range(127, -1, -1):
            if one >> bit & 1:
                product ^= other
            other = other >> 1 ^ (0xE1 << 120 if other & 1 else 0)
        return product

    point, tag = encrypt(bytes(16)), 0
    padded = block + bytes(-len(block) % 16) + (8 * len(block) << 64).to_bytes(16, "big")
    for at in range(0, len(padded), 16):
        tag = times(tag ^ int.from_bytes(padded[at : at + 16], "big"), point)
    return (tag ^ encrypt(nonce + b"\0\0\0\1")).to_bytes(16, "big")


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 512, 4099])
@pytest.mark.parametrize("number", [0, 0x010203, BlockMac.LAST])
def test_the_formula(number: int, length: int) -> None:
    block = random.Random(length).randbytes(length)

    for buffer in (block, bytearray(block), memoryview(block)):
        assert BlockMac(KEY).of(number, buffer) == gmac(KEY, number.to_bytes(12, "little"), block)


def test_every_bit_counts_and_so_do_length_number_and_key() -> None:
    mac, block = BlockMac(KEY), bytes(64)
    others = [(1 << bit).to_bytes(64, "big") for bit in range(512)]
    found = {mac.of(7, other) for other in [block, block[:-1], block + b"\0", *others]}

    assert len(found) == 515
    assert not found & {mac.of(8, block), BlockMac(bytes(32)).of(7, block)}


def test_a_code_fits_its_block_alone() -> None:
    mac = BlockMac(KEY)
    code = mac.of(7, b"block")

    assert mac.fits(code, 7, b"block")
    assert not mac.fits(code, 8, b"block")
    assert not mac.fits(code, 7, b"blocK")
    assert not mac.fits(code[:15], 7, b"block")
    assert not mac.fits(b"", 7, b"block")
