# SPDX-License-Identifier: Apache-2.0
"""Backups and restores through an agent, beside the same by the store alone and, for a first backup, by restic."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path

from bench.agents.site import Site
from bench.data import Scale, ensure
from bench.measure import Cost, Failed, measure
from bench.peers import Room, Tool, tools

__all__ = ["measure_all"]

_FIRSTS, _RESTORES, _AGAIN = 3, 7, 5  # rounds


def measure_all(folder: Path, scale: Scale, *, million: bool) -> dict[str, float]:
    """Ratios and what they are of."""
    image, tree = ensure("image", scale)[0], ensure("tree", scale)[0]
    ours, restic = tools(("keepstone", "restic"))
    found = _medians([_first_round(folder / f"first{number}", ours, restic, image) for number in range(_FIRSTS)])
    with Site(folder / "site") as site:
        site.protect(image, disk=True)
        site.protect(tree, disk=False)
        store = folder / "store-of-image"
        _first(ours, store, image, True)
        site.back_up(image)
        found |= {"agent_idle_bytes": site.idle_bytes()} | _restores(site, ours, store, image)
        store = folder / "store-of-tree"
        _first(ours, store, tree, False)
        site.back_up(tree)
        site.back_up(tree)  # this one fetches what the first has made
        found |= _medians([_again(site, ours, store, tree) for _ in range(_AGAIN)])
        shutil.rmtree(folder / "store-of-tree")
        if million:
            many = ensure("million", scale)[0]
            site.protect(many, disk=False)
            first, second = site.back_up(many), site.back_up(many)
            found |= {"million_bytes": max(first.agent_bytes, second.agent_bytes), "million_wall_s": first.wall_s}
    return found


def _first_round(folder: Path, ours: Tool, restic: Tool, image: Path) -> dict[str, float]:
    """A first backup into a vault, a store and a repository that nobody has used."""
    local, peer = _first(ours, folder / "store", image, True), _first(restic, folder / "restic", image, True)
    with Site(folder / "site") as site:
        site.protect(image, disk=True)
        cost = site.back_up(image)
    shutil.rmtree(folder)
    return {
        "first_cpu_s": cost.cpu_s,
        "first_cpu_ratio": cost.cpu_s / _cpu(local),
        "first_wall_ratio_restic": cost.wall_s / peer.wall_s,
        "first_wall_s": cost.wall_s,
    }


def _first(tool: Tool, store: Path, source: Path, image: bool) -> Cost:
    room = Room(store)
    for place in (room.home, room.target):
        place.mkdir(parents=True)
    measure(tool.init(room))
    return measure(tool.backup(room, source, image, 1))


def _again(site: Site, ours: Tool, store: Path, tree: Path) -> dict[str, float]:
    """Of both, one after the other: as short as a restore."""
    local = measure(ours.backup(Room(store), tree, False, 2))
    cost = site.back_up(tree)
    return _against("unchanged", cost.wall_s, cost.cpu_s, local)


def _restores(site: Site, ours: Tool, store: Path, image: Path) -> dict[str, float]:
    """Of both, in turn: a restore is short, and a machine's speed changes between two of them."""
    rounds: list[dict[str, float]] = []
    for _ in range(_RESTORES):
        restored = site.restore(image, disk=True)
        site.restored.unlink()
        local = _restore(ours, store, image, True)
        ours.restored(Room(store), image).unlink()
        rounds.append(_against("restore", restored.wall_s, restored.cpu_s, local))
    ratios = [one["restore_wall_ratio"] for one in rounds]
    return _medians(rounds) | {"restore_wall_ratio_least": min(ratios), "restore_wall_ratio_greatest": max(ratios)}


def _restore(tool: Tool, store: Path, source: Path, image: bool) -> Cost:
    cost = measure(tool.restore(Room(store), source, image, 1))
    if not tool.restored(Room(store), source).exists():
        raise Failed("nothing was restored")
    return cost


def _against(what: str, wall: float, cpu: float, local: Cost) -> dict[str, float]:
    return {
        f"{what}_wall_ratio": wall / local.wall_s,
        f"{what}_cpu_ratio": cpu / _cpu(local),
        f"{what}_wall_s": wall,
        f"{what}_cpu_s": cpu,
    }


def _medians(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def _cpu(cost: Cost) -> float:
    return cost.user_s + cost.sys_s
