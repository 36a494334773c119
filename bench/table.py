# SPDX-License-Identifier: Apache-2.0
"""The tables of the documents, out of `bench/results.json` and nothing else.

Between `<!-- bench:NAME -->` and `<!-- /bench:NAME -->` in README.md and docs/PERFORMANCE.md stands the table of that
name. `python -m bench.table` writes them, `--check` ends with 1 where a document says something else than the results,
`--show NAME` prints one. Names: tools, measured, data, summary, jobs, bars, parts, answers, scale, scattered, formats,
guests.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.figures import OURS, RESTORED, Spread

__all__ = ["RESULTS", "TABLES", "filled", "main"]

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).with_name("results.json")
DOCUMENTS = (ROOT / "README.md", ROOT / "docs/PERFORMANCE.md")
MARKED = re.compile(r"(<!-- bench:([a-z]+) -->\n).*?(<!-- /bench:\2 -->)", re.DOTALL)
MB = 1e6
WORDS = {
    "image-first": "disk image, first backup",
    "image-second": "disk image, second generation",
    "image-restore": "disk image, restore",
    "verify-image": "disk image, verify every byte",
    "tree-first": "tree, first backup",
    "tree-unchanged": "tree, unchanged",
    "tree-restore": "tree, restore",
    "verify-tree": "tree, verify every byte",
    "incompressible-first": "incompressible file, first backup",
    "source-first": "source tree with duplicates, first backup",
    "million-first": "a million files, first backup",
    "million-unchanged": "a million files, unchanged",
    "index": "index of 100 million chunks",
    "mark": "mark of a reclaim, 20 million chunks, 100 points",
    "service": "service, 10,000 items, 1 million points and jobs",
    "agents": "agents, 10,000 of them idle, 500 uploads at once",
    "machines": "virtual machines",
}
ASKED = {
    "vault_list": "`az backup vault list`: 20 vaults",
    "vault_get": "a vault",
    "policy_list": "the policies of a vault",
    "policy_create": "`az backup policy create`",
    "item_page": "a page of 200 of 10,000 items, by several filters",
    "item_get": "an item",
    "point_page": "the 100 points of an item",
    "job_page": "a page of 200 of a million jobs, by the slowest of eight filters",
    "job_get": "a job",
    "operation_get": "an operation",
    "portal_view": "a page of the portal, the slowest of 15 views",
    "portal_item": "the page of an item",
}
SCALE = {
    "reads_per_s": "reads a second, as many as 16 connections get",
    "read_cpu_ms": "CPU of the server for a read, ms",
    "asker_cpu_ms": "CPU of whoever asks, ms",
    "read_p50_ms": "an answer then, median, ms",
    "read_p95_ms": "95th percentile, ms",
    "read_p99_ms": "99th percentile, ms",
    "paced_reads_per_s": "answered of 1,000 reads a second",
    "paced_p50_ms": "an answer then, median, ms",
    "paced_p95_ms": "95th percentile, ms",
    "paced_p99_ms": "99th percentile, ms",
    "judge_cpu_us": "CPU to judge a point, µs",
    "sweep_first_s": "retention that finds a new date for every one of a million points, s",
    "sweep_first_cpu_s": "CPU of it, s",
    "sweep_all_s": "the same, where every date stays as it is, s",
    "sweep_all_cpu_s": "CPU of it, s",
    "sweep_s": "retention of an hour in which nothing has changed, s",
    "sweep_cpu_s": "CPU of it, s",
    "asked_s": "1,000 schedules due at once: all asked for after, s",
    "started_s": "all taken by one of two workers after, s",
    "ended_s": "all backed up after, s",
}
GUESTS = {
    "files_list_s": "NTFS, 100,000 files in 100 folders: all of them listed, s",
    "files_list_cpu_s": "CPU of it, s",
    "files_extract_mb_s": "a file of 512 MiB in it, restored, MB/s",
    "files_extract_cpu_s": "CPU of it, s",
    "booting_debian_served_s": "a Debian of 2 GiB on a disk in the store, until its agent answers, s",
    "booting_debian_local_s": "on a local disk, s",
    "booting_debian_ratio": "the one by the other",
    "booting_debian_read_share": "read of the disk until then, as a part of it",
    "booting_tiny_served_s": "the tiny guest on a disk in the store, until its agent answers, s",
    "booting_tiny_local_s": "on a local disk, s",
    "booting_tiny_ratio": "the one by the other",
    "booting_tiny_read_share": "read of the disk until then, as a part of it",
}
SETS = {
    "image": "ext4 image, first generation",
    "image2": "ext4 image, second generation",
    "tree": "tree of real files",
    "source": "source trees with duplicates",
    "incompressible": "random bytes",
    "million": "a million tiny files",
}


def _number(value: float) -> str:
    """Three significant digits, more for large numbers."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


PARTS = ("index", "mark", "agents")  # jobs with figures of their own
SERVICE = "service"  # and tables of its own
MACHINES = "machines"  # the same
PROGRAMS = (*PARTS, SERVICE, MACHINES)
FIGURES: dict[str, tuple[str, Callable[[float], str]]] = {
    "cpu_s": ("CPU s", _number),
    "wall_s": ("wall s", _number),
    "rss_bytes": ("peak memory, MB", lambda count: _number(count / MB)),
    "stored_bytes": ("stored, MB", lambda count: _number(count / MB)),
    "added_bytes": ("added, MB", lambda count: _number(count / MB)),
}

Results = dict[str, Any]


def filled(text: str, results: Results) -> str:
    """The document with every marked table made anew. KeyError names a table that there is not."""
    return MARKED.sub(lambda found: f"{found[1]}{TABLES[found[2]](results)}\n{found[3]}", text)


def main() -> int:
    """Write the documents, or check them."""
    parser = argparse.ArgumentParser(prog="python -m bench.table", description="Render the measured tables.")
    parser.add_argument("--check", action="store_true", help="change nothing; end with 1 where a document differs")
    parser.add_argument("--show", choices=TABLES, help="print this table")
    parser.add_argument("--results", type=Path, default=RESULTS, help="other results than bench/results.json")
    given = parser.parse_args()
    if not given.results.exists():
        marked = [d.name for d in DOCUMENTS if d.exists() and MARKED.search(d.read_text())]
        print(f"no {given.results.name}: run `make bench`; waiting for it: {', '.join(marked) or 'no document'}")
        return 1 if marked or given.show else 0
    results: Results = json.loads(given.results.read_text())
    if given.show:
        print(TABLES[given.show](results))
        return 0
    stale = 0
    for document in DOCUMENTS:
        text = document.read_text() if document.exists() else ""
        if (new := filled(text, results)) != text:
            stale += 1
            if given.check:
                print(f"{document.name} does not say what results.json says: run `python -m bench.table`")
            else:
                document.write_text(new)
    return 1 if stale and given.check else 0


def _tools(results: Results) -> str:
    versions = results["versions"]
    tools = ", ".join(f"{tool} {version}" for tool, version in versions.items())
    jobs = [tools for job, tools in results["jobs"].items() if job not in PROGRAMS]
    rounds = sorted({figures["cpu_s"]["n"] for tools in jobs for figures in tools.values()})
    return f"{tools}. Medians of n = {' or '.join(map(str, rounds))}, interleaved; CPU = user + system, MB = 10⁶ bytes."


def _measured(results: Results) -> str:
    """Each group of jobs that were measured on the same machine with the same code."""
    groups: dict[tuple[str, str], list[str]] = {}
    for job, _ in _jobs(results):
        said = results["measured"][job]
        groups.setdefault((said["code"], _of_machine(said["machine"])), []).append(WORDS[job])
    return _markdown(["jobs", "commit", "machine"], [["; ".join(jobs), *group] for group, jobs in groups.items()])


def _of_machine(machine: dict[str, Any]) -> str:
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 1e9:.0f} GB memory, Linux "
        f"{machine['kernel']}, {machine['file_system']}, Python {machine['python']}"
    )


def _data(results: Results) -> str:
    facts = {name: results["data"][name] for name in SETS if name in results["data"]}
    rows = [
        [SETS[name], f"{said['files']:,}", _number(said["bytes"] / MB), _number(said["allocated"] / MB)]
        for name, said in facts.items()
    ]
    return _markdown(["data", "files", "MB as read", "MB allocated"], rows)


def _summary(results: Results) -> str:
    """One line a job: CPU, wall and memory of Keepstone, and the peers' CPU and wall as multiples of them."""
    peers = [tool for tool in results["versions"] if tool != OURS]
    rows = []
    for job, tools in _jobs(results):
        if OURS in tools and len(tools) > 1:
            ours = tools[OURS]
            cells = [f"{_median(ours, 'cpu_s')} / {_median(ours, 'wall_s')}", _median(ours, "rss_bytes")]
            cells += [_times(tools.get(peer), ours) for peer in peers]
            rows.append([WORDS[job], *cells])
    return _markdown(["job", "Keepstone CPU / wall, s", "peak MB", *(f"{p}: × CPU / × wall" for p in peers)], rows)


def _all_jobs(results: Results) -> str:
    """Every figure of every tool: median, and least to greatest where they differ."""
    rows = []
    for job, tools in _jobs(results):
        for tool in results["versions"]:
            if tool in tools and job not in PROGRAMS:
                figures = tools[tool]
                cells = [_spread(figures.get(name), shown) for name, (_, shown) in FIGURES.items()]
                rows.append([WORDS[job], tool, *cells, str(figures["cpu_s"]["n"])])
    return _markdown(["job", "tool", *(head for head, _ in FIGURES.values()), "n"], rows)


def _parts(results: Results) -> str:
    """What the programs that measure one part said of it, figure by figure."""
    rows = [
        [WORDS[job], name.replace("_", " "), _spread(value, _number)]
        for job, tools in _jobs(results)
        if job in PARTS
        for name, value in tools[OURS].items()
    ]
    return _markdown(["part", "figure", "median (least–greatest)"], rows)


def _answers(results: Results) -> str:
    """What somebody waits who asks alone."""
    figures = _own(results, SERVICE)
    rows = [
        [words, *(_spread(figures.get(f"{what}_{figure}"), _number) for figure in ("p50_ms", "p95_ms", "cpu_ms"))]
        for what, words in ASKED.items()
    ]
    return _markdown(["asked", "median, ms", "95th percentile, ms", "CPU of the server, ms"], rows)


def _scale(results: Results) -> str:
    """What the service does in a time."""
    return _worded(SCALE, _own(results, SERVICE))


def _guests(results: Results) -> str:
    """Files out of disks, and guests on disks in the store."""
    return _worded(GUESTS, _own(results, MACHINES))


def _scattered(results: Results) -> str:
    """What the next backup costs after writes at random places."""
    figures = _own(results, MACHINES)
    rows = []
    for tool in results["versions"]:
        cells = [_spread(figures.get(f"scattered_{tool}_{name}"), _number) for name in ("cpu_s", "wall_s")]
        cells.append(_spread(figures.get(f"scattered_{tool}_stored_bytes"), FIGURES["stored_bytes"][1]))
        rows.append([tool, *cells, _spread(figures.get(f"scattered_{tool}_stored_ratio"), _number)])
    qemu = _spread(figures.get("scattered_qemu_cpu_s"), _number)
    quiet = [_spread(figures.get(f"scattered_quiet_{name}"), _number) for name in ("cpu_s", "wall_s")]
    rows.append([f"QEMU, while {OURS} read", qemu, "–", "–", "–"])
    rows.append([f"{OURS}, when nothing had changed", *quiet, "–", "–"])
    return _markdown(["", "CPU s", "wall s", "stored, MB", "× what changed"], rows)


def _formats(results: Results) -> str:
    """How fast each format is read and restored."""
    figures = _own(results, MACHINES)
    rows = [
        [
            name.replace("_", "-"),
            _spread(figures.get(f"reading_{name}_gb_s"), _number),
            _spread(figures.get(f"reading_{name}_share"), _number),
            _spread(figures.get(f"restoring_{name}_mb_s"), _number),
            _spread(figures.get(f"restoring_{name}_ratio"), _number),
        ]
        for name in RESTORED
    ]
    rest = {
        "huge_write": "the write out of huge pages",
        "shared": "the same while the packs are read",
        "checked": "zstd with seals and ids",
    }
    for what, words in (("write", "a sequential write with fsync"), ("zstd", "zstd"), ("deflate", "deflate")):
        rows.append([f"floor: {words}", "–", "–", _spread(figures.get(f"restoring_{what}_mb_s"), _number), "–"])
    for what, words in rest.items():
        if found := figures.get(f"restoring_{what}_mb_s"):
            rows.append([f"beside it: {words}", "–", "–", _spread(found, _number), "–"])
    head = ["format", "read, GB/s", "read, of what the file occupies", "restored, MB/s", "of the floor"]
    return _markdown(head, rows)


def _own(results: Results, job: str) -> dict[str, Spread]:
    """The figures of a job that has tables of its own."""
    found: dict[str, Spread] = results["jobs"].get(job, {}).get(OURS, {})
    return found


def _worded(words: dict[str, str], figures: dict[str, Spread]) -> str:
    """Each figure by what it means."""
    rows = [[about, _spread(figures.get(name), _number)] for name, about in words.items()]
    return _markdown(["", "median (least–greatest)"], rows)


def _bars(results: Results) -> str:
    """Every limit beside what was measured."""
    rows = []
    for bar in results["bars"]:
        unit = MB if bar["figure"].endswith("_bytes") and not bar["against"] else 1
        name = FIGURES.get(bar["figure"], (bar["figure"].replace("_bytes", ", MB").replace("_", " "), str))[0]
        name = name.partition(",")[0] if bar["against"] else name
        whom = f"{name} ÷ {bar['against']}" if bar["against"] else name
        sign = "≤" if bar["sense"] == "at most" else "≥"
        held = "held" if bar["held"] else "**not held**"
        limit = f"{sign} {_limit(bar['limit'] / unit)}"
        rows.append([WORDS[bar["job"]], whom, _number(bar["value"] / unit), limit, held])
    return _markdown(["job", "figure", "measured", "bar", ""], rows)


TABLES: dict[str, Callable[[Results], str]] = {
    "tools": _tools,
    "measured": _measured,
    "data": _data,
    "summary": _summary,
    "jobs": _all_jobs,
    "parts": _parts,
    "answers": _answers,
    "scale": _scale,
    "scattered": _scattered,
    "formats": _formats,
    "guests": _guests,
    "bars": _bars,
}


def _jobs(results: Results) -> Iterable[tuple[str, dict[str, dict[str, Spread]]]]:
    return ((job, results["jobs"][job]) for job in WORDS if job in results["jobs"])


def _median(figures: dict[str, Spread], name: str) -> str:
    return FIGURES[name][1](figures[name]["median"])


def _times(theirs: dict[str, Spread] | None, ours: dict[str, Spread]) -> str:
    if theirs is None:
        return "–"
    return " / ".join(f"{theirs[name]['median'] / ours[name]['median']:.1f}" for name in ("cpu_s", "wall_s"))


def _spread(value: Spread | None, shown: Callable[[float], str]) -> str:
    if value is None:
        return "–"
    median, least, greatest = shown(value["median"]), shown(value["min"]), shown(value["max"])
    return median if least == greatest else f"{median} ({least}–{greatest})"


def _limit(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:g}"


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [list(head), ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
