# SPDX-License-Identifier: Apache-2.0
"""Bytes in words, for what the service says to people."""

from __future__ import annotations

__all__ = ["octets"]

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


def octets(count: float) -> str:
    """Such as `1 byte`, `3 bytes` or `1.5 GiB`."""
    size = float(count)
    for unit in _UNITS:
        if abs(size) < 1024 or unit == _UNITS[-1]:
            break
        size /= 1024
    if unit != "bytes":
        return f"{size:.1f} {unit}"
    return f"{size:.0f} byte" if f"{size:.0f}" == "1" else f"{size:.0f} bytes"
