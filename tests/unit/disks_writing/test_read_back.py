# SPDX-License-Identifier: Apache-2.0
"""What is written in a format that Keepstone reads, it reads back: the same bytes, and zeros that need no reading."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepstone.disks.opening import open_disk
from keepstone.disks.writing import FORMATS
from keepstone.env import Env
from keepstone.objects import aligned
from tests.unit.disks_writing.images import MIB, scattered, written_by

pytestmark = pytest.mark.vm

READ = {"vhd": "vhd", "vhd-dynamic": "vhd", "vhdx": "vhdx", "vmdk": "vmdk", "vmdk-sparse": "vmdk"}
DISKS = {"odd": scattered(40 * MIB + 12_345, 5, count=6), "zero": bytes(5 * MIB), "data": b"\1" * (3 * MIB)}


@pytest.mark.parametrize("disk", DISKS)
@pytest.mark.parametrize("name", READ)
def test_read_back(tmp_path: Path, name: str, disk: str) -> None:
    content, path = DISKS[disk], tmp_path / "image"
    written_by(Env(threads=2), path, content, name)
    unit = FORMATS[name].unit
    padded = content + bytes(-len(content) % unit)
    source = open_disk(Env(), path, READ[name])
    try:
        assert source.size == len(padded)
        found, data = bytearray(source.size), 0
        for extent in source.extents():
            if not extent.zero:
                data += extent.length
                buffer = aligned(extent.length)
                assert source.pread_into(buffer, extent.offset) == extent.length
                found[extent.offset : extent.end] = buffer
        assert bytes(found) == padded
        assert data <= {"odd": 16 * MIB, "zero": 0, "data": len(padded)}[disk]
    finally:
        source.close()
