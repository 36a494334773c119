# SPDX-License-Identifier: Apache-2.0
"""CRC-32C, as iSCSI and VHDX have it. Source: RFC 3720, appendix B.4. For tables, not for data: a byte at a time."""

from __future__ import annotations

__all__ = ["crc32c"]


def _entry(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value


_TABLE = tuple(_entry(value) for value in range(256))


def crc32c(data: bytes) -> int:
    """The checksum of `data`."""
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF
