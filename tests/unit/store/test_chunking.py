# SPDX-License-Identifier: Apache-2.0
"""Where data is cut."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepstone.store.chunking import DISK_CHUNK, FILE_CHUNKS, SMALL_FILE, cut_file, cut_fixed

pytestmark = pytest.mark.store

SIZES = (64, 256, 1024)
NOISE = random.Random(1).randbytes(200_000)
TEXT = b"".join(b"line %d of a text that repeats itself\n" % (number % 97) for number in range(4000))


@pytest.mark.parametrize(
    ("length", "chunk", "expected"),
    [(0, 4, []), (1, 4, [1]), (4, 4, [4]), (5, 4, [4, 1]), (12, 4, [4, 4, 4])],
)
def test_fixed(length: int, chunk: int, expected: list[int]) -> None:
    assert cut_fixed(length, chunk) == expected


def windowed(data: bytes, sizes: tuple[int, int, int], window: Callable[[int], int]) -> list[int]:
    """Cuts as a workload makes them, that sees the file through windows: `window(at)` bytes from `at`."""
    at, lengths = 0, []
    while at < len(data):
        end = min(len(data), at + max(sizes[2] + 1, window(at)))
        cuts = cut_file(memoryview(data)[at:end], end == len(data), sizes)
        assert cuts
        lengths += cuts
        at += sum(cuts)
    return lengths


def bounded(lengths: list[int], size: int, sizes: tuple[int, int, int]) -> None:
    assert sum(lengths) == size
    assert all(sizes[0] <= length <= sizes[2] for length in lengths[:-1])
    assert all(0 < length <= sizes[2] for length in lengths[-1:])


@given(
    st.integers(0, len(NOISE)),
    st.lists(st.integers(1, 9000), min_size=1, max_size=9),
    st.sampled_from([NOISE, TEXT, bytes(60_000)]),
)
def test_cuts_do_not_depend_on_the_windows(size: int, windows: list[int], source: bytes) -> None:
    data = source[:size]
    whole = cut_file(memoryview(data), True, SIZES)

    bounded(whole, len(data), SIZES)
    assert windowed(data, SIZES, lambda at: windows[at % len(windows)]) == whole
    assert windowed(data, SIZES, lambda at: SIZES[2] + 1) == whole


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 8 << 20))
def test_the_sizes_of_the_format(extra: int) -> None:
    data = random.Random(extra).randbytes(FILE_CHUNKS[2] + extra)
    whole = cut_file(memoryview(data), True)

    bounded(whole, len(data), FILE_CHUNKS)
    assert windowed(data, FILE_CHUNKS, lambda at: 8 << 20) == whole


def test_zeros_are_cut_at_the_maximum() -> None:
    assert cut_file(memoryview(bytes(5000)), True, SIZES) == [1024, 1024, 1024, 1024, 904]


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65])
def test_small(size: int) -> None:
    assert cut_file(memoryview(NOISE[:size]), True, SIZES) == ([size] if size else [])


def test_without_the_end_the_last_cut_is_left_out() -> None:
    data = memoryview(NOISE[:20_000])

    assert cut_file(data, False, SIZES) == cut_file(data, True, SIZES)[:-1]


def test_an_insertion_moves_few_cuts() -> None:
    def chunks(data: bytes) -> list[bytes]:
        at, made = 0, []
        for length in cut_file(memoryview(data), True, SIZES):
            made.append(data[at : at + length])
            at += length
        return made

    before, after = chunks(NOISE), chunks(NOISE[:50_000] + b"inserted" + NOISE[50_000:])

    assert len(set(after) - set(before)) <= 4
    assert len(before) > 300


def test_threads_that_cut_by_other_sizes() -> None:
    """The cutter of a thread is kept: another thread, or other sizes, must not meet it."""
    data = memoryview(NOISE)
    expected = {sizes: cut_file(data, True, sizes) for sizes in (SIZES, (128, 512, 2048))}
    wrong: list[object] = []

    def work(turn: int) -> None:
        for step in range(6):
            sizes = (SIZES, (128, 512, 2048))[(turn + step) % 2]
            if cut_file(data, True, sizes) != expected[sizes]:
                wrong.append(sizes)

    threads = [threading.Thread(target=work, args=(turn,)) for turn in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_the_cuts_of_the_format_do_not_change() -> None:
    """What one version stored, the next one finds again: these lengths are part of the format."""
    data = memoryview(random.Random(2).randbytes(9 << 20))

    assert cut_file(data, True) == GOLDEN
    assert (DISK_CHUNK, SMALL_FILE, FILE_CHUNKS) == (256 << 10, 256 << 10, (256 << 10, 1 << 20, 4 << 20))


GOLDEN = [1908825, 1157941, 1294692, 757748, 1572957, 1230340, 1278534, 236147]
