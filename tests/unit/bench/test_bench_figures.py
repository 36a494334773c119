# SPDX-License-Identifier: Apache-2.0
"""The benchmark's arithmetic, and the tables that it puts into the documents."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import run, table
from bench.data import SMALL
from bench.figures import BARS, MEASURED, OURS, Bar, Jobs, compared, ratio, spread, verdicts
from bench.material import EDIT_EVERY, altered
from bench.measure import Cost, Failed, allocated, measure
from bench.peers import Borg, Command, Keepstone, Restic, Tool
from bench.run import PROGRAMS, SCENES, Bench, Job, Scene
from bench.same import differences

pytestmark = pytest.mark.store

FINITE = st.floats(min_value=0.001, max_value=1e12)


def jobs_of(**seconds: list[float]) -> Jobs:
    return {"tree-first": {tool: {"cpu_s": spread(values)} for tool, values in seconds.items()}}


def results_of(jobs: Jobs) -> dict[str, Any]:
    machine = {
        "cpu": "Some CPU", "cores": 2, "memory_bytes": 24e9, "kernel": "6.1", "file_system": "ext4", "python": "3.11.7",
    }  # fmt: skip
    return {
        "measured": {job: {"machine": machine, "code": "abc1234"} for job in jobs},
        "versions": {"keepstone": "0.1", "restic": "0.18.0"},
        "data": {"tree": {"files": 157574, "bytes": 2_500_000_000, "allocated": 2_900_000_000}},
        "jobs": jobs,
        "bars": verdicts(jobs),
    }


@given(st.lists(FINITE, min_size=1, max_size=9))
def test_a_spread_keeps_the_order_of_measurement_and_brackets_the_median(values: list[float]) -> None:
    found = spread(values)
    assert found["values"] == values
    assert found["n"] == len(values)
    assert found["min"] == sorted(values)[0] <= found["median"] <= sorted(values)[-1] == found["max"]
    assert sum(v < found["median"] for v in values) <= len(values) / 2 >= sum(v > found["median"] for v in values)


def test_a_figure_without_values_has_no_spread() -> None:
    with pytest.raises(ValueError, match="no spread"):
        spread([])


def test_a_ratio_is_our_median_over_theirs_not_a_mean_and_not_a_median_of_ratios() -> None:
    assert ratio(spread([1.0, 2.0, 90.0]), spread([4.0, 8.0, 8.5])) == 0.25


def test_nothing_against_nothing_is_even_and_something_against_nothing_is_infinite() -> None:
    assert ratio(spread([0.0]), spread([0.0])) == 1.0
    assert ratio(spread([1.0]), spread([0.0])) == math.inf


def test_a_bar_is_compared_unrounded_and_holds_at_its_limit() -> None:
    most, least = Bar("j", "cpu_s", "restic", 0.45), Bar("j", "lookups", "", 500_000, "at least")
    assert most.held(0.45)
    assert not most.held(math.nextafter(0.45, 1))
    assert least.held(500_000)
    assert not least.held(499_999.9)


def test_verdicts_speak_of_what_was_measured_and_of_nothing_else() -> None:
    jobs = jobs_of(keepstone=[4.0, 5.0, 4.4], restic=[10.0, 9.0, 11.0], borg=[9.0])
    assert [(v["against"], round(v["value"], 3), v["limit"], v["held"]) for v in verdicts(jobs)] == [
        ("restic", 0.44, 0.45, True),
        ("borg", 0.489, 0.45, False),
    ]
    assert verdicts(jobs_of(restic=[1.0], borg=[1.0])) == []
    assert verdicts({"index": {OURS: {"lookups_per_cpu_s": spread([400_000.0])}}})[0]["held"] is False


def test_ratios_are_made_of_every_figure_that_both_have() -> None:
    assert compared(jobs_of(keepstone=[3.0], borg=[6.0])) == {"tree-first": {"borg": {"cpu_s": 0.5}}}
    assert compared(jobs_of(restic=[3.0], borg=[6.0])) == {}


def test_every_bar_is_of_a_job_that_is_run_and_every_job_has_words_for_the_tables() -> None:
    run = {job.name for scene in SCENES for job in scene.jobs} | set(PROGRAMS)
    assert {bar.job for bar in BARS} <= run
    assert set(MEASURED) <= run
    assert set(table.WORDS) == run


def test_choosing_a_job_brings_the_one_that_it_needs_and_no_other() -> None:
    image = next(scene for scene in SCENES if scene.name == "image")
    assert [job.name for job in image.chosen(["verify-image"])] == ["image-first", "verify-image"]
    assert image.chosen(["tree-first"]) == ()
    assert image.chosen([]) == image.chosen(["image"]) == image.jobs
    assert [job.name for job in image.asked(["verify-image"])] == ["verify-image"]


def test_every_tool_restores_a_tree_in_each_place_of_its_turn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done: list[tuple[str, str, Path]] = []

    def job(self: Bench, scene: Scene, job: Job, tool: Tool, turn: int, repeat: int) -> None:
        done.append((job.name, tool.name, replace(self._room(tool), repeat=repeat).target))

    monkeypatch.setattr(run, "bench_dir", lambda: tmp_path)
    monkeypatch.setattr(run, "measure", lambda command: None)
    monkeypatch.setattr(Bench, "_warm", lambda self, jobs: None)
    monkeypatch.setattr(Bench, "_job", job)
    team: list[Tool] = [Keepstone(), Restic("restic"), Borg("borg")]
    Bench(SMALL, team, ["tree-restore"]).round(0)

    restored = [(tool, target) for name, tool, target in done if name == "tree-restore"]
    assert len(restored) == 9
    assert len({target for _, target in restored}) == 9
    for place in range(3):
        assert {tool for tool, _ in restored[place::3]} == {"keepstone", "restic", "borg"}


def test_a_document_gets_its_tables_between_the_marks_and_keeps_the_rest() -> None:
    results = results_of(jobs_of(keepstone=[4.0, 5.0, 4.4], restic=[10.0, 9.0, 11.0]))
    text = "before\n<!-- bench:bars -->\nold\n<!-- /bench:bars -->\nafter <!-- bench:gone --> \n"
    once = table.filled(text, results)
    assert once.startswith("before\n<!-- bench:bars -->\n| job | figure | measured | bar |  |\n")
    assert "| tree, first backup | CPU s ÷ restic | 0.44 | ≤ 0.45 | held |\n<!-- /bench:bars -->\nafter" in once
    assert "old" not in once
    assert table.filled(once, results) == once
    with pytest.raises(KeyError, match="nosuch"):
        table.filled("<!-- bench:nosuch -->\n<!-- /bench:nosuch -->", results)


def test_every_table_can_be_made_of_partial_results() -> None:
    full = {
        tool: {"cpu_s": spread([2.0]), "wall_s": spread([1.0]), "rss_bytes": spread([9e7])}
        for tool in ("keepstone", "restic")
    }
    results = results_of(
        {"tree-first": full, "index": {OURS: {"cpu_s": spread([1.0]), "private_bytes": spread([1e8])}}}
    )
    for name, make in table.TABLES.items():
        assert len(make(results).splitlines()) >= (1 if name == "tools" else 3), name
    assert "| 2.00 / 1.00 | 90.0 | 1.0 / 1.0 |" in table.TABLES["summary"](results)


def test_jobs_of_the_same_code_and_machine_stand_together() -> None:
    jobs = {name: jobs_of(keepstone=[1.0])["tree-first"] for name in ("tree-first", "tree-restore", "index")}
    results = results_of(jobs)
    results["measured"]["index"] = results["measured"]["index"] | {"code": "def5678"}

    rows = table.TABLES["measured"](results).splitlines()[2:]

    assert [row.split(" | ")[:2] for row in rows] == [
        ["| tree, first backup; tree, restore", "abc1234"],
        ["| index of 100 million chunks", "def5678"],
    ]


def test_a_stale_document_is_found_and_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document, results = tmp_path / "README.md", tmp_path / "results.json"
    document.write_text("<!-- bench:data -->\n<!-- /bench:data -->\n")
    monkeypatch.setattr(table, "DOCUMENTS", (document,))

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["table", "--results", str(results), *arguments])
        return table.main()

    assert run("--check") == 1  # tables, and no results
    results.write_text(json.dumps(results_of(jobs_of(keepstone=[1.0], restic=[2.0]))))
    assert run("--check") == 1
    assert run() == 0
    assert "157,574" in document.read_text()
    assert run("--check") == 0


@given(st.binary(min_size=1, max_size=3 * EDIT_EVERY), st.integers(1, 9))
def test_an_edit_is_small_repeatable_and_really_one(data: bytes, seed: int) -> None:
    edited = altered(data, seed)
    assert edited == altered(data, seed) != data
    assert len(edited) - len(data) == 16 * (1 + len(data) // EDIT_EVERY)


def test_a_process_is_charged_with_what_it_starts() -> None:
    """Measured by a small program as the benchmark is one: below its own size nothing can be seen."""
    work = "import time; x = bytearray(60_000_000)\nwhile time.process_time() < 0.5: pass"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {work!r}], check=True)"
    idle = "import time; time.sleep(0.5); print('said')"
    program = (
        "import json, sys\nfrom dataclasses import asdict\n"
        "from bench.measure import measure\nfrom bench.peers import Command\n"
        "print(json.dumps([asdict(measure(Command((sys.executable, '-c', text)))) for text in sys.argv[1:]]))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, work, child, idle],
        cwd=Path(__file__).parents[3], stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    alone, nested, quiet = (Cost(**cost) for cost in json.loads(ended.stdout))
    assert alone.rss_bytes > 60_000_000 < nested.rss_bytes
    assert quiet.rss_bytes < 60_000_000
    assert alone.figures()["cpu_s"] >= 0.5 <= nested.figures()["cpu_s"]
    assert quiet.wall_s > 0.5 > quiet.figures()["cpu_s"]
    assert quiet.output == "said\n"


def test_a_failing_process_is_told_by_its_last_words() -> None:
    with pytest.raises(Failed, match="ended with 3: no such vault"):
        measure(Command((sys.executable, "-c", "import sys; print('no such vault', file=sys.stderr); sys.exit(3)")))


def test_stored_bytes_count_a_file_with_two_names_once_and_holes_not(tmp_path: Path) -> None:
    empty = allocated(tmp_path)
    (tmp_path / "a").write_bytes(b"x" * 8192)
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    with (tmp_path / "hole").open("wb") as hole:
        hole.truncate(1 << 30)
    assert allocated(tmp_path) - empty == 8192


def test_every_kind_of_difference_between_two_trees_is_seen(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for root in (one, other):
        (root / "d").mkdir(parents=True)
        for name in ("same", "content", "mode", "type", "first"):
            (root / "d" / name).write_bytes(b"abc")
        (root / "d/link").symlink_to("same")
        (root / "d/second").hardlink_to(root / "d/first")
    for path in one.rglob("*"):
        times = path.lstat()
        os.utime(other / path.relative_to(one), ns=(times.st_atime_ns, times.st_mtime_ns), follow_symlinks=False)
    assert list(differences(one, other)) == []
    then = (other / "d/content").stat().st_mtime_ns
    (other / "d/content").write_bytes(b"abd")
    os.utime(other / "d/content", ns=(then, then))
    (other / "d/mode").chmod(0o600)
    (other / "d/type").unlink()
    (other / "d/type").mkdir()
    (other / "d/link").unlink()
    (other / "d/link").symlink_to("content")
    (other / "d/second").unlink()
    (other / "d/extra").write_bytes(b"")
    assert set(differences(one, other)) == {
        "d/content: other content",
        "d/mode: other permissions",
        "d/type: of another type",
        "d/link: links elsewhere",
        "d/second: missing",
        "d/extra: not in the source",
        "hard links: other names share inodes",
    }


def test_the_service_has_tables_of_its_own() -> None:
    figures = {
        "reads_per_s": spread([1100.0, 1300.0, 1200.0]),
        "item_page_p95_ms": spread([20.5]),
        "item_page_p50_ms": spread([10.0]),
        "cpu_s": spread([300.0]),
    }
    results = results_of({"service": {OURS: figures}})
    assert "| 1,200 (1,100–1,300) |" in table.TABLES["scale"](results)
    assert "| 10.0 | 20.5 | – |" in table.TABLES["answers"](results)
    assert "300" not in table.TABLES["jobs"](results)
    assert "| item page p95 ms | 20.5 | ≤ 100 | held |" in table.TABLES["bars"](results)
