# SPDX-License-Identifier: Apache-2.0
"""Sorted hints, against a dict."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from array import array
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepstone.env import Env
from keepstone.store import segment
from keepstone.store.segment import Segment, merge_segments, prefixes, read_segment, write_segment
from tests.tampered import Tampered, failing_at

pytestmark = pytest.mark.store

PACKS = [bytes([number]) * 32 for number in range(6)]

# Few values of the first eight bytes, so that equal prefixes are common; the rest of the ids differs.
prefix_values = st.one_of(st.integers(0, 6), st.integers(2**64 - 5, 2**64 - 1), st.integers(0, 2**64 - 1))
identities = st.builds(
    lambda head, tail: head.to_bytes(8, "big") + bytes(20) + tail.to_bytes(4, "big"), prefix_values, st.integers(0, 50)
)
rows = st.lists(st.tuples(identities, st.integers(0, len(PACKS) - 1), st.integers(0, 2**32 - 1)), max_size=60)
Rows = list[tuple[bytes, int, int]]


def built(made: Rows, packs: list[bytes] = PACKS) -> Segment:
    places = array("Q", [pack << 32 | position for _, pack, position in made])
    return Segment.build(packs, b"".join(identity for identity, _, _ in made), places)


def model(made: Rows, dead: frozenset[bytes] = frozenset()) -> dict[int, list[tuple[bytes, int]]]:
    """prefix → sorted (pack id, position)."""
    found = defaultdict(list)
    for identity, pack, position in made:
        if PACKS[pack] not in dead:
            found[int.from_bytes(identity[:8], "big")].append((PACKS[pack], position))
    return {prefix: sorted(hits) for prefix, hits in found.items()}


def answers(segment: Segment, wanted: list[bytes]) -> dict[int, list[tuple[bytes, int]]]:
    """What it finds, one by one and together with many others."""
    found = defaultdict(list)
    hits = segment.find(prefixes(b"".join(wanted)))
    many = segment.find(prefixes(b"".join(wanted)) * 64)
    assert sorted(many) == sorted((which + turn * len(wanted), place) for which, place in hits for turn in range(64))
    for which, place in hits:
        prefix = int.from_bytes(wanted[which][:8], "big")
        found[prefix].append((segment.packs[place >> 32], place & 0xFFFFFFFF))
    return {prefix: sorted(hits) for prefix, hits in found.items()}


def asked(made: Rows, others: list[bytes]) -> list[bytes]:
    """Each prefix once: hits are counted."""
    return list({identity[:8]: identity for identity in [*others, *(identity for identity, _, _ in made)]}.values())


@pytest.mark.parametrize("short", [0, 1 << 16])
@given(made=rows, others=st.lists(identities, max_size=10))
def test_find(short: int, made: Rows, others: list[bytes]) -> None:
    """Sorted with numpy and without it."""
    with patch.object(segment, "_SHORT", short):
        assert answers(built(made), asked(made, others)) == model(made)


def test_find_among_many() -> None:
    """Ids as a hash makes them, which are where their value says, and some that are not there."""
    chance = random.Random(1)
    made = [(chance.randbytes(32), 0, position) for position in range(20_000)]
    others = [chance.randbytes(32) for _ in range(50)]
    whole = built(made)

    for at in range(0, len(made), 1000):
        wanted = [identity for identity, _, _ in made[at : at + 50]]
        assert answers(whole, [*wanted, *others]) == model(made[at : at + 50])


def test_few_values_need_no_large_library() -> None:
    program = """
import sys
from keepstone.store.segment import Segment, prefixes
ids = bytes(range(256))
segment = Segment.build([bytes(32)], ids, memoryview(bytes(64)).cast("Q"))
assert len(segment.find(prefixes(ids))) == 8
assert "numpy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_find_where_equal_prefixes_fill_pages() -> None:
    """More rows than a page has fences for, with runs of one prefix across its border."""
    made = [
        (value.to_bytes(8, "big") + bytes(24), 0, position)
        for position, value in enumerate([1] * 700 + [2] * 511 + [3] + [4] * 1500)
    ]
    segment = built(made)

    assert answers(segment, [made[at][0] for at in (0, 700, 1211, 1212)]) == model(made)
    assert segment.find(prefixes(bytes(32) + (5).to_bytes(8, "big") + bytes(24))) == []


def test_find_asks_in_any_order_and_twice() -> None:
    made = [(bytes([value]) * 32, 0, value) for value in range(100)]
    wanted = [bytes([value]) * 32 for value in (99, 3, 3, 200, 0)]

    assert sorted(built(made).find(prefixes(b"".join(wanted)))) == [(0, 99), (1, 3), (2, 3), (4, 0)]


@given(rows, st.integers(1, 4))
def test_written_and_mapped(tmp_path_factory: pytest.TempPathFactory, made: Rows, parts: int) -> None:
    path = str(tmp_path_factory.mktemp("segment") / "x")
    segment = built(made)
    cut = [len(segment) * part // parts for part in range(parts + 1)]
    pieces = [(segment.prefix[a:b], segment.place[a:b]) for a, b in pairwise(cut)]

    write_segment(Env(), path, segment.packs, len(segment), pieces)
    mapped = read_segment(Env(), path)

    assert mapped is not None
    assert mapped.packs == PACKS
    assert answers(mapped, asked(made, [])) == model(made)
    assert not os.path.exists(path + ".new")


@pytest.mark.parametrize("short", [1 << 16, 0], ids=["in one", "in slices"])
@given(several=st.lists(rows, min_size=1, max_size=4), dead=st.frozensets(st.sampled_from(PACKS)))
def test_merge(short: int, several: list[Rows], dead: frozenset[bytes]) -> None:
    """The parts are sorted, come in order, and hold what the segments held without the dead packs."""
    tables = [PACKS[turn:] + PACKS[:turn] for turn in range(len(several))]  # each segment numbers the packs otherwise
    segments = [
        built([(identity, table.index(PACKS[pack]), position) for identity, pack, position in made], table)
        for made, table in zip(several, tables, strict=True)
    ]
    with patch.object(segment, "_SHORT", short):
        packs, count, parts = merge_segments(segments, set(dead))
    columns = list(parts)
    prefix = np.concatenate([part for part, _ in columns])
    place = np.concatenate([part for _, part in columns])

    assert count == len(prefix) == len(place)
    assert (prefix[:-1] <= prefix[1:]).all()
    assert not dead.intersection(packs)
    whole = [row for made in several for row in made]
    assert answers(Segment(packs, prefix.data, place.data), asked(whole, [])) == model(whole, dead)


# Damaged files: a segment is a hint, so what is read may be wrong, but nothing may break


def written(tmp_path: Path, made: Rows) -> Path:
    path = tmp_path / "x.segment"
    segment = built(made)
    write_segment(Env(), str(path), segment.packs, len(segment), [(segment.prefix, segment.place)])
    return path


@pytest.mark.parametrize("cut", [0, 1, 23, 24, 100, 4096, -1])
def test_a_truncated_file(tmp_path: Path, cut: int) -> None:
    path = written(tmp_path, [(bytes([value]) * 32, 0, value) for value in range(100)])
    content = path.read_bytes()
    path.write_bytes(content[:cut])

    assert read_segment(Env(), str(path)) is None


def test_no_file(tmp_path: Path) -> None:
    assert read_segment(Env(), str(tmp_path / "none")) is None
    assert read_segment(Env(), str(tmp_path)) is None


@given(st.integers(0, 5000), st.binary(min_size=1, max_size=8), st.data())
def test_damaged_bytes(tmp_path_factory: pytest.TempPathFactory, at: int, change: bytes, data: st.DataObject) -> None:
    """Whatever a damaged file says: it is refused, or it answers something, also when it is merged."""
    folder = tmp_path_factory.mktemp("segment")
    made = [(bytes([value]) * 32, value % 6, value) for value in range(100)]
    path = written(folder, made)
    content = bytearray(path.read_bytes())
    at = data.draw(st.sampled_from([at % 24, 24 + at % 192, 4096 + at % 800, 8192 + at % 800]))
    content[at : at + len(change)] = change
    path.write_bytes(content)
    segment = read_segment(Env(), str(path))
    if segment is None:
        return

    segment.find(prefixes(b"".join(identity for identity, _, _ in made)))
    packs, count, parts = merge_segments([segment, built(made)], {PACKS[2]})
    write_segment(Env(), str(folder / "merged"), packs, count, parts)
    merged = read_segment(Env(), str(folder / "merged"))
    assert merged is not None
    assert len(merged) == count
    for _, place in merged.find(prefixes(b"".join(identity for identity, _, _ in made))):
        assert place >> 32 < len(packs)


# Writing


@pytest.mark.parametrize("call", ["open", "pwrite", "ftruncate", "fsync", "rename"])
def test_a_failure_leaves_no_segment(tmp_path: Path, call: str) -> None:
    path = tmp_path / "x"
    segment = built([(bytes(32), 0, 0)])

    with pytest.raises(OSError, match="No space"):
        write_segment(Env(fs=failing_at(call, 1, 28)), str(path), PACKS, 1, [(segment.prefix, segment.place)])

    assert not path.exists()


def test_a_disk_that_takes_a_part_of_a_write(tmp_path: Path) -> None:
    """`pwrite` may write less than it was given; what is then missing must not become rows of zeros."""

    def pwrite(fd: int, data: Any, offset: int) -> int:
        return os.pwrite(fd, memoryview(data)[:1000], offset)

    made = [(bytes([value]) * 32, 0, value) for value in range(200)]
    segment = built(made)
    path = tmp_path / "x"
    try:
        write_segment(Env(fs=Tampered(pwrite=pwrite)), str(path), PACKS, 200, [(segment.prefix, segment.place)])
    except OSError:
        return

    mapped = read_segment(Env(), str(path))
    assert mapped is not None
    assert answers(mapped, asked(made, [])) == model(made)
