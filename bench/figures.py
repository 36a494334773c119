# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of the benchmark: spreads, ratios of medians, and the bars that they must hold.

A ratio is Keepstone's median over the peer's median: below 1, Keepstone needs less. A bar is a ratio's or a figure's
limit; it is held or not held, and nothing is rounded before it is compared.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

__all__ = [
    "BARS",
    "GUESTS",
    "OURS",
    "RESTORED",
    "SPARSE",
    "Bar",
    "Jobs",
    "Spread",
    "Verdict",
    "compared",
    "ratio",
    "spread",
    "verdicts",
]

OURS = "keepstone"
MB = 1_000_000

Figure = str
Tool = str
JobName = str


class Spread(TypedDict):
    """All values of one figure in order of measurement, with their median, least and greatest."""

    n: int
    median: float
    min: float
    max: float
    values: list[float]


Jobs = Mapping[JobName, Mapping[Tool, Mapping[Figure, Spread]]]


@dataclass(frozen=True, slots=True)
class Bar:
    """A limit: on the ratio to a peer, or with `against` empty on Keepstone's own figure."""

    job: JobName
    figure: Figure
    against: Tool
    limit: float
    sense: Literal["at most", "at least"] = "at most"

    def held(self, value: float) -> bool:
        """Whether the value keeps the limit; the limit itself does."""
        return value <= self.limit if self.sense == "at most" else value >= self.limit


class Verdict(TypedDict):
    """One bar beside what was measured; `against` is empty for a limit on Keepstone's own figure."""

    job: JobName
    figure: Figure
    against: Tool
    value: float
    sense: str
    limit: float
    held: bool


def _against(job: JobName, peer: Tool, **limits: float) -> list[Bar]:
    return [Bar(job, figure, peer, limit) for figure, limit in limits.items()]


MEASURED = (
    "image-first", "image-second", "image-restore", "verify-image",
    "tree-first", "tree-unchanged", "tree-restore", "verify-tree", "incompressible-first", "source-first",
)  # fmt: skip

SPARSE = ("vhd_dynamic", "vhdx", "vmdk_sparse", "qcow2")  # formats of images that are read
RESTORED = ("raw", "vhd", "vhd_dynamic", "vhdx", "vmdk", "vmdk_sparse", "qcow2")
GUESTS = ("tiny", "debian")

BARS: tuple[Bar, ...] = (
    *_against("image-first", "restic", cpu_s=0.33, wall_s=0.45, stored_bytes=1.02),
    *_against("image-first", "borg", cpu_s=0.75, wall_s=0.6, stored_bytes=1.02),
    *_against("image-second", "restic", cpu_s=0.15, added_bytes=0.7),
    *_against("image-second", "borg", cpu_s=0.25, added_bytes=0.4),
    *_against("tree-first", "restic", cpu_s=0.45, wall_s=0.6),
    *_against("tree-first", "borg", cpu_s=0.45),
    *_against("tree-unchanged", "restic", cpu_s=0.25, wall_s=0.25),
    *_against("tree-unchanged", "borg", cpu_s=0.2, wall_s=0.2),
    *_against("tree-restore", "restic", cpu_s=0.45, wall_s=0.6),
    *_against("tree-restore", "borg", cpu_s=0.4),
    *_against("image-restore", "restic", cpu_s=0.45, wall_s=0.6),
    *_against("image-restore", "borg", cpu_s=0.4),
    *_against("verify-image", "restic", cpu_s=0.5, wall_s=0.5),
    *_against("verify-image", "borg", cpu_s=0.3, wall_s=0.3),
    *_against("verify-tree", "restic", cpu_s=0.5, wall_s=0.5),
    *_against("verify-tree", "borg", cpu_s=0.3, wall_s=0.3),
    *_against("incompressible-first", "restic", cpu_s=0.2),
    *_against("incompressible-first", "borg", cpu_s=0.3),
    *(Bar(job, "rss_bytes", "", 200 * MB) for job in MEASURED),
    Bar("million-first", "rss_bytes", "", 250 * MB),
    Bar("million-unchanged", "rss_bytes", "", 250 * MB),
    Bar("index", "private_bytes", "", 200 * MB),
    Bar("index", "lookups_per_cpu_s", "", 500_000, "at least"),
    Bar("mark", "mark_cpu_s", "", 2.0),
    Bar("mark", "rss_bytes", "", 300 * MB),
    *(Bar("service", f"{what}_page_p95_ms", "", 100) for what in ("item", "job", "point")),
    *(Bar("service", f"{what}_p95_ms", "", 50) for what in ("vault_list", "policy_create")),
    *(Bar("service", f"portal_{what}_p95_ms", "", 150) for what in ("view", "item")),
    Bar("service", "reads_per_s", "", 1000, "at least"),
    Bar("service", "sweep_first_s", "", 60),
    Bar("service", "sweep_all_s", "", 60),
    Bar("service", "sweep_s", "", 1),
    Bar("service", "started_s", "", 60),
    Bar("agents", "idle_failures", "", 0),
    Bar("agents", "idle_beat_p99_s", "", 2.5),
    Bar("agents", "idle_server_bytes", "", 1000 * MB),
    Bar("agents", "uploads_failed", "", 0),
    Bar("agents", "uploads_server_bytes", "", 1000 * MB),
    Bar("agents", "agent_idle_bytes", "", 40 * MB),
    Bar("agents", "million_bytes", "", 150 * MB),
    Bar("agents", "first_cpu_ratio", "", 1.6),
    Bar("agents", "first_wall_ratio_restic", "", 1.0),
    Bar("agents", "unchanged_cpu_ratio", "", 1.3),
    Bar("agents", "unchanged_wall_ratio", "", 1.3),
    Bar("agents", "restore_wall_ratio", "", 1.3),
    Bar("machines", "scattered_keepstone_stored_ratio", "", 2.0),
    *(Bar("machines", f"reading_{name}_gb_s", "", 0.8, "at least") for name in SPARSE),
    *(Bar("machines", f"reading_{name}_share", "", 1.0) for name in SPARSE),
    *(Bar("machines", f"restoring_{name}_ratio", "", 0.8, "at least") for name in RESTORED),
    Bar("machines", "files_list_s", "", 5.0),
    Bar("machines", "files_extract_mb_s", "", 150.0, "at least"),
    *(Bar("machines", f"booting_{guest}_ratio", "", 1.3) for guest in GUESTS),
    *(Bar("machines", f"booting_{guest}_read_share", "", 0.05) for guest in GUESTS),
)


def spread(values: Sequence[float]) -> Spread:
    """Summarise the values of one figure. ValueError where there are none."""
    if not values:
        raise ValueError("a figure without values has no spread")
    return Spread(
        n=len(values), median=statistics.median(values), min=min(values), max=max(values), values=list(values)
    )


def ratio(ours: Spread, theirs: Spread) -> float:
    """Our median over theirs; where theirs is 0, 1 if ours is too and infinite if not."""
    if theirs["median"]:
        return ours["median"] / theirs["median"]
    return float("inf") if ours["median"] else 1.0


def compared(jobs: Jobs) -> dict[JobName, dict[Tool, dict[Figure, float]]]:
    """Every ratio that the measured jobs allow, by job, peer and figure; none to a peer that needs nothing."""
    return {
        job: {
            peer: {
                figure: ratio(tools[OURS][figure], theirs[figure])
                for figure in theirs
                if figure in tools[OURS] and theirs[figure]["median"]
            }
            for peer, theirs in tools.items()
            if peer != OURS
        }
        for job, tools in jobs.items()
        if OURS in tools
    }


def verdicts(jobs: Jobs, bars: Sequence[Bar] = BARS) -> list[Verdict]:
    """Each bar whose figures were measured, with the value and whether it is held; the others are left out."""
    found: list[Verdict] = []
    for bar in bars:
        tools = jobs.get(bar.job, {})
        ours = tools.get(OURS, {}).get(bar.figure)
        theirs = tools.get(bar.against, {}).get(bar.figure)
        if ours is None or (bar.against and theirs is None):
            continue
        value = ratio(ours, theirs) if theirs is not None else ours["median"]
        found.append(
            Verdict(
                job=bar.job,
                figure=bar.figure,
                against=bar.against,
                value=value,
                sense=bar.sense,
                limit=bar.limit,
                held=bar.held(value),
            )
        )
    return found
