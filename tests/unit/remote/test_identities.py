# SPDX-License-Identifier: Apache-2.0
"""Ids are found by their numbers, in whichever block they are."""

from __future__ import annotations

import pytest

from keepstone.remote.identities import Identities

_COUNT = 3 * (1 << 15) + 5  # three blocks, and some of a fourth


def _id(number: int) -> bytes:
    return number.to_bytes(32, "big")


@pytest.mark.parametrize("together", [1, 7, 1 << 15, 1 << 17])
def test_every_one_is_found_by_its_number(together: int) -> None:
    ids = Identities()
    assert len(ids) == 0
    for first in range(0, _COUNT, together):
        assert len(ids) == first
        ids.extend([_id(number) for number in range(first, min(first + together, _COUNT))])

    assert [ids.find(number) for number in range(_COUNT)] == [_id(number) for number in range(_COUNT)]


def test_what_was_not_sent_is_not_found() -> None:
    ids = Identities()

    assert ids.find(0) == b""
    ids.extend([_id(1)])
    assert ids.find(1) == b""
    assert ids.find(1 << 40) == b""
