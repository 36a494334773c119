# SPDX-License-Identifier: Apache-2.0
"""Promises of the project about itself: its public names, its headers, its start-up time, its dependencies."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import keepstone

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

SOURCES = sorted(path for folder in ("src", "tests", "bench", "scripts") for path in (ROOT / folder).rglob("*.py"))
PACKAGES = sorted(module.name for module in pkgutil.walk_packages(keepstone.__path__, "keepstone.") if module.ispkg)

SPDX = "# SPDX-License-Identifier: Apache-2.0"

# Formats that run or build whatever the bytes tell them to.
UNSAFE_FORMATS = {"pickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve", "yaml"}

HELP_CPU_SECONDS = 0.150


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def public_names(module: ModuleType) -> list[str]:
    """What a reader of the package sees: nothing private, no submodule, not the `annotations` of `__future__`."""
    names = (name for name in dir(module) if not name.startswith("_") and name != "annotations")
    return sorted(name for name in names if not isinstance(getattr(module, name), ModuleType))


def imported_roots(tree: ast.Module) -> set[str]:
    """Top-level names of everything a module imports, wherever in it."""
    roots: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            roots.add(node.module.partition(".")[0])
    return roots


def distribution_names(requirements: list[str]) -> list[str]:
    return sorted(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0] for requirement in requirements)


def documented_names(heading: str) -> list[str]:
    """First column of the table under a heading of docs/DEPENDENCIES.md."""
    page = (ROOT / "docs" / "DEPENDENCIES.md").read_text()
    section = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("|")]
    return sorted(rows[2:])


@pytest.mark.parametrize("name", ["keepstone", *PACKAGES])
def test_package_shows_exactly_its_public_names(name: str) -> None:
    package = importlib.import_module(name)
    declared = [exported for exported in package.__all__ if not exported.startswith("_")]

    assert sorted(declared) == public_names(package)


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_module_says_its_licence_and_its_meaning(path: Path) -> None:
    text = path.read_text()
    lines = text.splitlines()
    if lines[0].startswith("#!"):
        del lines[0]

    assert lines[0] == SPDX
    assert ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_module_reads_no_format_that_can_run_code(path: Path) -> None:
    assert not imported_roots(ast.parse(path.read_text())) & UNSAFE_FORMATS


def help_cpu_seconds() -> float:
    """CPU seconds, user and system, of one `keepstone --help` and of whatever it starts."""
    command = [sys.executable, "-c", "import sys; from keepstone.cli import main; sys.exit(main())", "--help"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


def test_help_answers_at_once() -> None:
    # The least of five is the command's own cost: what is above it is other load on the machine.
    assert min(help_cpu_seconds() for _ in range(5)) < HELP_CPU_SECONDS


def test_every_runtime_dependency_has_its_reason() -> None:
    assert documented_names("Runtime") == distribution_names(PYPROJECT["project"]["dependencies"])


def test_every_development_dependency_has_its_reason() -> None:
    assert documented_names("Development") == distribution_names(PYPROJECT["project"]["optional-dependencies"]["dev"])
