# SPDX-License-Identifier: Apache-2.0
"""Blocks of a disk as the child keeps them: always what is on the disk, few questions for what lies together, and what
cannot be had costs nobody else anything."""

from __future__ import annotations

import random

import pytest

from keepstone.workloads.guestfiles import blocks
from keepstone.workloads.guestfiles.blocks import Blocks

pytestmark = pytest.mark.vm

BLOCK = 64 << 10
STRETCH = 8 * BLOCK


class Disk:
    """A disk in memory; what is asked of it, and what of it cannot be had."""

    def __init__(self, size: int, *, damaged: range = range(0)) -> None:
        self.content = random.Random(size).randbytes(size)
        self.damaged = damaged
        self.asked: list[tuple[int, int]] = []

    def ask(self, offset: int, length: int) -> bytes:
        assert 0 <= offset < offset + length <= len(self.content)
        self.asked.append((offset, length))
        if offset < self.damaged.stop and self.damaged.start < offset + length:
            raise OSError("the disk cannot be read there")
        return self.content[offset : offset + length]


@pytest.mark.parametrize("kept", [1024, 8])
def test_any_range_in_any_order(monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    monkeypatch.setattr(blocks, "_KEPT", kept)
    disk = Disk(60 * BLOCK + 1234)
    found = Blocks(len(disk.content), disk.ask)
    chance = random.Random(1)
    for _ in range(2000):
        offset = chance.randrange(len(disk.content) + 5000)
        length = chance.choice([1, 1024, BLOCK, 3 * BLOCK, 5 * BLOCK])
        assert found.read(offset, length) == disk.content[offset : offset + length]
    assert found.read(-1, 10) == b""


def test_what_is_read_from_end_to_end_is_asked_for_in_stretches() -> None:
    disk = Disk(40 * STRETCH + 100)
    found = Blocks(len(disk.content), disk.ask)
    for offset in range(0, len(disk.content), 1024):
        assert found.read(offset, 1024) == disk.content[offset : offset + 1024]
    assert len(disk.asked) <= 43
    assert sum(length for _, length in disk.asked) <= len(disk.content) + BLOCK


def test_a_table_whose_blocks_are_wanted_in_another_order_is_too() -> None:
    disk = Disk(40 * STRETCH)
    found = Blocks(len(disk.content), disk.ask)
    order = list(range(0, len(disk.content), BLOCK))
    for at in range(0, len(order), 12):  # as directories do: a part of the table each
        part = order[at : at + 12]
        random.Random(at).shuffle(part)
        for offset in part:
            assert found.read(offset, 1024) == disk.content[offset : offset + 1024]
    assert len(disk.asked) < len(order) // 3


def test_what_lies_apart_is_asked_for_alone() -> None:
    disk = Disk(100 * STRETCH)
    found = Blocks(len(disk.content), disk.ask)
    for offset in range(0, len(disk.content), 2 * STRETCH):
        found.read(offset + 5000, 1024)
    assert disk.asked == [(offset, BLOCK) for offset in range(0, len(disk.content), 2 * STRETCH)]


def test_what_is_kept_is_bounded_by_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_KEPT", 16)
    disk = Disk(40 * STRETCH)
    found = Blocks(len(disk.content), disk.ask)
    for offset in range(0, len(disk.content), BLOCK):
        found.read(offset, 1)
        found.read(0, 1)  # the one that is wanted again and again stays
    assert sum(1 for offset, _ in disk.asked if offset == 0) <= 2
    before = len(disk.asked)
    found.read(10 * STRETCH, 1)
    assert len(disk.asked) == before + 1


@pytest.mark.parametrize("at", [0, 3, 7])
def test_a_block_that_cannot_be_had_takes_none_with_it(at: int) -> None:
    begin = 5 * STRETCH + at * BLOCK
    disk = Disk(10 * STRETCH, damaged=range(begin + 100, begin + 200))
    found = Blocks(len(disk.content), disk.ask)
    for _ in range(2):
        for offset in range(0, len(disk.content), BLOCK):
            if offset == begin:
                with pytest.raises(OSError, match="cannot be read"):
                    found.read(offset, 1024)
            else:
                assert found.read(offset, 1024) == disk.content[offset : offset + 1024]
    assert sum(1 for offset, length in disk.asked if length > BLOCK and offset == 5 * STRETCH) <= 2
