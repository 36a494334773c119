# SPDX-License-Identifier: Apache-2.0
"""The documents say what the program does: commands, modules, errors, exit codes, links; and the tables of counts."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from keepstone import errors
from keepstone.cli.store import store
from keepstone.control.sessions import registry
from keepstone.errors import KeepstoneError

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
OPERATIONS = (ROOT / "docs" / "OPERATIONS.md").read_text(encoding="utf-8")
GENERATED = {
    "cli_reference.py": "docs/OPERATIONS.md",
    "compatibility.py": "docs/AZURE-COMPATIBILITY.md",
    "modules.py": "docs/ARCHITECTURE.md",
}


def _script(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module(name)


def _run(script: str, *arguments: str | Path) -> int:
    command = [sys.executable, str(SCRIPTS / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=False).returncode


@pytest.mark.parametrize(("script", "page"), GENERATED.items())
def test_what_is_generated_is_up_to_date(script: str, page: str) -> None:
    assert _run(script, "--check", "--page", ROOT / page) == 0, f"run `python scripts/{script}`"


@pytest.mark.parametrize(("script", "page"), GENERATED.items())
def test_what_is_out_of_date_is_noticed_and_written_anew(script: str, page: str, tmp_path: Path) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    copy = tmp_path / "page.md"
    rows = text.splitlines(keepends=True)
    end = next(number for number, row in enumerate(rows) if row.startswith("<!-- /"))
    copy.write_text("".join([*rows[: end - 1], *rows[end:]]), encoding="utf-8")

    assert _run(script, "--check", "--page", copy) == 1
    assert _run(script, "--page", copy) == 0
    assert copy.read_text(encoding="utf-8") == text


def _classes() -> list[type[KeepstoneError]]:
    named = [getattr(errors, name) for name in errors.__all__]
    return [one for one in named if isinstance(one, type)]


@pytest.mark.parametrize("error", _classes(), ids=lambda error: error.__name__)
def test_operators_are_told_what_to_do_after(error: type[KeepstoneError]) -> None:
    assert f"\n| `{error.code}` | {error.exit_code} |" in OPERATIONS


def test_no_error_is_documented_that_there_is_not() -> None:
    section = OPERATIONS.partition("## After each error")[2].partition("\n## ")[0]
    documented = set(re.findall(r"^\| `(\w+)` \| \d+ \|", section, re.MULTILINE))

    assert documented == {error.code for error in _classes()} | {"Interrupted", "InternalError"}


def test_every_exit_code_has_its_meaning() -> None:
    section = OPERATIONS.partition("## Exit codes")[2].partition("\n## ")[0]
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)}

    assert documented == {0, 4, 130} | {error.exit_code for error in _classes()}


def test_how_many_upload_at_a_time() -> None:
    decision = (ROOT / "docs" / "adr" / "0012-transfers-have-their-own-connections.md").read_text(encoding="utf-8")

    assert f"{registry.MOST} of them upload at a time" in OPERATIONS
    assert f"{registry.MOST} uploads are open at a time" in decision
    assert f"for up to {registry.PATIENCE:.0f} seconds" in decision


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_a_page_shows_exist(page: Path) -> None:
    shown = set(re.findall(r"keepstone store ([a-z][a-z-]+)", page.read_text(encoding="utf-8")))

    assert shown <= set(store.list_commands(None))  # type: ignore[arg-type]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        linked = (page.parent / path) if path else page

        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in _anchors(linked), f"{page.name} links to {target}"


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the usual places make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_paths_of_the_source_that_a_page_names_exist() -> None:
    """In ARCHITECTURE.md and the decisions, `store/x.py` means the package's, and `tests/…` the project's."""
    package = ROOT / "src" / "keepstone"
    missing = []
    for page in [
        ROOT / "docs" / "ARCHITECTURE.md",
        ROOT / "docs" / "PERFORMANCE.md",
        *(ROOT / "docs/adr").glob("*.md"),
    ]:
        for path in re.findall(
            r"`((?:[\w.]+/)+[\w.]*)`", page.read_text(encoding="utf-8").partition("## The modules")[0]
        ):
            if not any((base / path).exists() for base in (ROOT, package, package / "workloads")):
                missing.append(f"{page.name}: {path}")

    assert missing == []


COUNTS: dict[str, Any] = {
    "explore-0": {"schedules": 1000, "distinct": 999, "lost": 0},
    "explore-1": {"schedules": 234, "distinct": 234, "lost": 1},
    "backup-posix": {"profile": "posix", "tally": {"cases": 5000, "bad": 0, "violations": {}, "notes": {}}},
    "backup-ext4": {"profile": "ext4", "tally": {"cases": 1500, "bad": 2, "violations": {}, "notes": {}}},
    "backup-eio": {"cases": 70, "bad": 0, "violations": {}, "notes": {}},
    "no-fsync": {"name": "no fsync", "verdict": "red", "expected": "red", "reason": "", "sweeps": []},
    "no-barrier": {"name": "no barrier", "verdict": "clean", "expected": "red", "reason": "", "sweeps": []},
    "in-place": {"name": "in place", "verdict": "clean", "expected": "clean", "reason": "", "sweeps": []},
    "reliability-gw0": {"cases": {"bit flip in every byte": 4000, "truncation": 30}, "sum": 4030},
    "reliability-gw1": {"cases": {"bit flip in a pack": 50, "swap": 3}, "sum": 53},
}


def test_the_table_of_proofs_adds_up_what_was_counted(tmp_path: Path) -> None:
    for name, content in COUNTS.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- proofs -->\nold\n<!-- /proofs -->\nafter\n")

    assert _run("proofs.py", tmp_path, "--page", page) == 0

    text = page.read_text()
    assert [re.findall(r"\| ([\d,]+) \| (.*) \|", row)[0] for row in text.splitlines() if re.search(r"\d", row)] == [
        ("6,500", "2"),
        ("70", "0"),
        ("2", "1"),
        ("1", "0"),
        ("1,234", "1"),
        ("4,050", "none: one fails the run"),
        ("33", "none: one fails the run"),
    ]
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text


@pytest.mark.parametrize("content", [None, {"something": "else"}])
def test_proofs_are_not_made_of_nothing(content: object, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- proofs -->\nold\n<!-- /proofs -->\n")
    if content is not None:
        (tmp_path / "x.json").write_text(json.dumps(content))

    assert _run("proofs.py", tmp_path, "--page", page) != 0
    assert "old" in page.read_text()


def test_a_floor_is_the_sum_of_its_primitives(monkeypatch: pytest.MonkeyPatch) -> None:
    floors = _script("floors", monkeypatch).floors
    rates = dict.fromkeys(("hash", "cut", "compress", "compress random", "seal", "open", "expand"), 1e9)
    rates |= {"look": 1000.0, "read": 500.0, "make": 100.0, "compress": 0.5e9, "code": 2e9, "hash again": 4e9}

    def job(**figures: float) -> dict[str, Any]:
        return {"keepstone": {name: {"median": value} for name, value in figures.items()}}

    results = {
        "data": {
            "image": {"allocated": 2e9},
            "image2": {"allocated": 2e9},
            "tree": {"files": 1000, "bytes": 1e9},
            "incompressible": {"bytes": 3e9},
        },
        "jobs": {
            "image-first": job(stored_bytes=1e9),
            "image-second": job(stored_bytes=1.1e9, added_bytes=0.1e9),
            "verify-image": job(),
            "tree-first": job(stored_bytes=0.5e9),
            "tree-unchanged": job(),
            "tree-restore": job(),
            "incompressible-first": job(),
        },
    }

    assert floors(rates, results) == pytest.approx(
        {
            "image-first": 2 + 1 + 4 + 1,
            "image-second": 1 + 0.2 + 0.4 + 0.1,
            "verify-image": 1 + 2 + 0.5,
            "tree-first": 1 + 2 + 1 + 2 + 0.5,
            "tree-unchanged": 1,
            "tree-restore": 10 + 0.5 + 1 + 0.25,
            "incompressible-first": 3 * 4,
        }
    )
