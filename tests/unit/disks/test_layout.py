# SPDX-License-Identifier: Apache-2.0
"""Runs: neighbours are one, all of the disk is covered, and what cannot be true is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from keepstone.disks.layout import DATA, DEFLATED, LARGEST, PARENT, ZERO, Layout, Link, Runs, check, check_apart
from keepstone.errors import SourceFailed

pytestmark = pytest.mark.vm


def rows(layout: Layout) -> list[tuple[int, int, int, int]]:
    columns = (layout.starts, layout.kinds, layout.places, layout.files)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def made(size: int, *blocks: tuple[int, int], unit: int = 10) -> Layout:
    runs = Runs(size)
    runs.blocks(np.array([kind for kind, _ in blocks], np.uint8), np.array([at for _, at in blocks], np.int64), unit)
    return runs.layout(unit=unit, parent=Link((), ()))


def test_neighbours_are_one_run() -> None:
    layout = made(
        75, (DATA, 100), (DATA, 110), (DATA, 130), (ZERO, 5), (ZERO, 9), (PARENT, 0), (DEFLATED, 7), (DEFLATED, 17)
    )

    assert rows(check(layout, [1000])) == [
        (0, DATA, 100, 0), (20, DATA, 130, 0), (30, ZERO, 0, 0), (50, PARENT, 0, 0),
        (60, DEFLATED, 7, 0), (70, DEFLATED, 17, 0),
    ]  # fmt: skip
    assert layout.ends().tolist() == [20, 30, 50, 60, 70, 75]


def test_neighbours_that_were_added_one_by_one() -> None:
    runs = Runs(5000 * 10 + 5)
    for number in range(5000):
        runs.run(DATA, 10, 7 + 10 * number)

    assert rows(runs.layout()) == [(0, DATA, 7, 0), (50_000, ZERO, 0, 0)]


def test_what_is_behind_the_end_does_not_count() -> None:
    assert rows(made(15, (ZERO, 0), (DATA, 4), (DATA, 50))) == [(0, ZERO, 0, 0), (10, DATA, 4, 0)]
    assert rows(made(0, (ZERO, 0))) == []
    check(made(0), [])


def test_parts_in_several_files() -> None:
    runs = Runs(40)
    runs.layout_of(made(20, (DATA, 0), (DATA, 10)), 0)
    runs.layout_of(made(20, (DATA, 20), (DATA, 30)), 1)

    assert rows(check(runs.layout(), [20, 40])) == [(0, DATA, 0, 0), (20, DATA, 20, 1)]


def test_sizes_that_no_disk_has() -> None:
    for size in (-1, LARGEST + 1, 1 << 63):
        with pytest.raises(SourceFailed, match=f"its disk has {size} bytes"):
            Runs(size)


GOOD = made(40, (DATA, 0), (ZERO, 0), (DEFLATED, 50), (PARENT, 0))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"size": 30}, "not in order"),
        ({"size": -1}, "do not fit"),
        ({"size": 0}, "do not fit"),
        ({"size": LARGEST + 1}, "do not fit"),
        ({"starts": np.array([0, 10, 20], np.int64)}, "do not fit together"),
        ({"starts": np.array([1, 10, 20, 30], np.int64)}, "not in order"),
        ({"starts": np.array([0, 20, 10, 30], np.int64)}, "not in order"),
        ({"starts": np.array([0, 10, 10, 30], np.int64)}, "not in order"),
        ({"kinds": np.array([2, 0, 4, 1], np.uint8)}, "what there is not"),
        ({"files": np.array([0, 0, 1, 0], np.uint16)}, "what there is not"),
        ({"places": np.array([-1, 0, 50, 0], np.int64)}, "places a block at -1,"),
        ({"places": np.array([91, 0, 50, 0], np.int64)}, "places a block at 91, and the file has 100 bytes"),
        ({"places": np.array([(1 << 63) - 1, 0, 50, 0], np.int64)}, "places a block"),
        ({"places": np.array([0, 0, 100, 0], np.int64)}, "places a block at 100"),
        ({"unit": 9}, "compressed grains"),
        ({"parent": None}, "has no parent"),
    ],
)
def test_what_cannot_be_true(change: dict[str, object], reason: str) -> None:
    check(GOOD, [100])
    with pytest.raises(SourceFailed, match=reason):
        check(replace(GOOD, **change), [100])  # type: ignore[arg-type]


def test_bytes_that_are_given_out_twice() -> None:
    assert check_apart(GOOD) is GOOD
    for places in ([45, 0, 50, 0], [41, 0, 45, 0], [0, 0, 0, 0]):
        with pytest.raises(SourceFailed, match=f"the bytes at {places[2]} to two blocks"):
            check_apart(replace(GOOD, places=np.array(places, np.int64)))


@pytest.mark.parametrize("length", [1, 2, 3, 4, 7])
def test_what_cannot_be_true_wherever_it_is(monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    monkeypatch.setattr("keepstone.disks.layout._SLICE", length)
    layout = made(70, *((DATA, 20 * number) for number in range(7)))
    check(layout, [130])
    for number in range(7):
        starts = layout.starts.copy()
        starts[number] += 10 if number else 1
        with pytest.raises(SourceFailed, match="not in order"):
            check(replace(layout, starts=starts), [130])
        places = layout.places.copy()
        places[number] = 121
        with pytest.raises(SourceFailed, match="places a block at 121"):
            check(replace(layout, places=places), [130])


def test_pieces_of_all_lengths() -> None:
    runs = Runs(75)
    runs.run(DATA, 10, 100)
    kinds, places, lengths = [DATA, DATA, ZERO, PARENT, DATA, DATA], [110, 130, 1, 2, 200, 900], [5, 20, 5, 30, 10, 7]
    runs.pieces(np.array(kinds, np.uint8), np.array(places), np.array(lengths))

    assert rows(check(runs.layout(parent=Link((), ())), [205])) == [
        (0, DATA, 100, 0), (15, DATA, 130, 0), (35, ZERO, 0, 0), (40, PARENT, 0, 0), (70, DATA, 200, 0),
    ]  # fmt: skip
    runs = Runs(15)
    runs.pieces(np.array([ZERO], np.uint8), np.array([0]), np.array([10]))
    assert rows(runs.layout()) == [(0, ZERO, 0, 0)]
