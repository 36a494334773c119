# SPDX-License-Identifier: Apache-2.0
"""The table of proofs in README.md, out of what a run of the tests counted.

    KEEPSTONE_RESULTS=results make test crash explore
    python scripts/proofs.py results

Every file there is JSON, and its members say what it is: schedules of the explorer, states of a power loss, faults at
I/O operations, planted mistakes, cases of damage. Files of one kind are added up; two of one name are one run's latest.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from marked import ROOT, settle

__all__ = ["Counts", "gather", "main", "table"]

FATAL = "none: one fails the run"


@dataclass(slots=True)
class Counts:
    """Sums over all files. `planted`: mistakes by name, and whether each was found; `harmless`: those that must not."""

    schedules: int = 0
    schedules_lost: int = 0
    states: int = 0
    states_bad: int = 0
    faults: int = 0
    faults_bad: int = 0
    planted: dict[str, bool] = field(default_factory=dict)
    harmless: dict[str, bool] = field(default_factory=dict)
    damages: Counter[str] = field(default_factory=Counter)


def gather(files: Iterable[Path]) -> Counts:
    """Add the files up. LookupError names one that is none of the known kinds."""
    counts = Counts()
    for path in files:
        said: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if "schedules" in said:
            counts.schedules += said["schedules"]
            counts.schedules_lost += said["lost"]
        elif "verdict" in said:
            kind = counts.planted if said["expected"] == "red" else counts.harmless
            kind[said["name"]] = said["verdict"] == said["expected"]
        elif "profile" in said:
            counts.states += said["tally"]["cases"]
            counts.states_bad += said["tally"]["bad"]
        elif "violations" in said:
            counts.faults += said["cases"]
            counts.faults_bad += said["bad"]
        elif isinstance(said.get("cases"), dict):
            counts.damages.update(said["cases"])
        else:
            raise LookupError(f"{path} is no count of the tests; take it away")
    return counts


def table(counts: Counts) -> str:
    """The rows for which something was counted."""
    rows = ["| proof | counted | gone wrong |", "|---|---|---|"]

    def row(what: str, count: int, wrong: int | None) -> None:
        if count:
            rows.append(f"| {what} | {count:,} | {FATAL if wrong is None else f'{wrong:,}'} |")

    def missed(found: dict[str, bool]) -> int:
        return sum(not right for right in found.values())

    row("states after a power loss, each opened, restored, verified and used again", counts.states, counts.states_bad)
    row("faults at I/O operations: kill, torn write, full disk, I/O error", counts.faults, counts.faults_bad)
    row(
        "planted mistakes of durability that the power losses must find; missed",
        len(counts.planted),
        missed(counts.planted),
    )
    row(
        "changes that cannot lose anything, and must not be found; found", len(counts.harmless), missed(counts.harmless)
    )
    row("schedules of writers, forget, reclaim and revoked leases", counts.schedules, counts.schedules_lost)
    flips = sum(count for name, count in counts.damages.items() if "flip" in name)
    row("single bits flipped; not noticed, or wrong bytes restored", flips, None)
    others = counts.damages.total() - flips
    row("truncated, zeroed, removed, swapped, rolled-back objects; the same", others, None)
    return "\n".join(rows)


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="?", type=Path, default=os.environ.get("KEEPSTONE_RESULTS"))
    parser.add_argument("--page", type=Path, default=ROOT / "README.md", help="another page than README.md")
    given = parser.parse_args()
    files = sorted(Path(given.results).glob("*.json")) if given.results else []
    if not files:
        parser.error("no results; run the tests with KEEPSTONE_RESULTS=<folder> and name that folder")
    return settle(given.page, "proofs", table(gather(files)), check=False, again="python scripts/proofs.py")


if __name__ == "__main__":
    sys.exit(main())
