# SPDX-License-Identifier: Apache-2.0
"""No schedule of writers, forget, reclaim, compaction and lease revocation loses data; each protocol without a
safeguard does."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from keepstone.store import reclaim, writer
from keepstone.store.commits import Commits
from keepstone.store.leases import Leases, Tombs

from .explore import explore, find
from .variants import VARIANTS

pytestmark = pytest.mark.store

_SCHEDULES = int(os.environ.get("KEEPSTONE_SCHEDULES", "10000"))
_SHARES = 8  # so that the runner's workers share the schedules


@pytest.mark.parametrize("share", range(_SHARES))
def test_no_schedule_loses_data(share: int) -> None:
    count = -(-_SCHEDULES // _SHARES)
    total = explore(count, first=share * count, processes=1)
    results = os.environ.get("KEEPSTONE_RESULTS")
    if results:
        report = {"schedules": total.schedules, "distinct": total.distinct, "lost": len(total.bad)}
        (Path(results) / f"explore-{share}.json").write_text(json.dumps(report), encoding="ascii")
    print(
        f"schedules {total.schedules}, distinct {total.distinct}, "
        f"packs swept {total.swept}, leases revoked {total.revoked}"
    )

    assert total.bad[:3] == []
    assert total.distinct > 0.8 * count
    assert total.swept > 0
    assert total.revoked > 0


@pytest.mark.parametrize("seed", [3_420_519])
def test_a_schedule_that_once_failed(seed: int) -> None:
    """One in 460,000: a reclaim ended a move between the refusal of another's put and its look at the cell."""
    assert explore(1, first=seed, processes=1).bad == []


def product() -> list[dict[str, object]]:
    """Everything in the places where a variant replaces something."""
    return [dict(vars(place)) for place in (Commits, Leases, Tombs, reclaim, writer)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_missing_safeguard_is_found(variant: str) -> None:
    before = product()
    found = find(variant, most=5000)

    assert product() == before, f"{variant}: what comes after runs without the safeguard as well"
    assert found is not None, f"{variant}: no schedule lost data, so the explorer would not notice this mistake"
    print(f"{variant}: seed {found[0]}: {found[1][0]}")
