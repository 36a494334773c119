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
from keepstone.env import FileSystem

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

SOURCES = sorted(path for folder in ("src", "tests", "bench", "scripts") for path in (ROOT / folder).rglob("*.py"))
PACKAGES = sorted(module.name for module in pkgutil.walk_packages(keepstone.__path__, "keepstone.") if module.ispkg)

SPDX = "# SPDX-License-Identifier: Apache-2.0"

# Formats that run or build whatever the bytes tell them to.
UNSAFE_FORMATS = {"pickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve", "yaml"}

HELP_CPU_SECONDS = 0.150

# The rooms above floor 4; in all others everything goes through an `Env`, but for this, and why.
SURFACES = {"cli", "server", "agent", "arm", "agentapi", "portal"}
BESIDE_ENV = {
    "env.py": "the door itself",
    "store/rescue.py": "stands alone in every store",
    "store/store.py": "files of its own package",
    "control/attaching.py": "files of its own package",
    "catalogue/migrate.py": "files of its own package",
    "disks/parse.py": "a process of its own",
    "workloads/directories/scout.py": "a process of its own",
    "workloads/guestfiles/child.py": "a process of its own",
    "workloads/machines/watchdog.py": "a process of its own",
    "workloads/running/keeper.py": "a process of its own, and how it is spoken to",
    "disks/jail.py": "pipes of another process",
    "disks/qemu.py": "what another process says",
    "workloads/guestfiles/worker.py": "memory that another process has as well",
    "workloads/kvm/serving.py": "the socket of another process",
    "workloads/libvirt/channel.py": "pipes of another process",
    "workloads/libvirt/virsh.py": "memory that another process has as well",
    "workloads/libvirt/writable.py": "the socket of another process",
    "workloads/machines/janitor.py": "pipes of another process",
    "workloads/running/program.py": "what another process can do",
    "remote/tls.py": "how long a socket is waited for",
    "vault/stores.py": "removes a store whose key is gone, and however far that comes, it means nothing",
    "mount/device.py": "the conversation with the kernel",
    "mount/session.py": "the conversation with the kernel",
}
PATH_CALLS = {
    "chmod", "exists", "glob", "hardlink_to", "is_dir", "is_file", "is_symlink", "iterdir", "lstat", "mkdir",
    "read_bytes", "read_text", "readlink", "rename", "rglob", "rmdir", "samefile", "stat", "symlink_to", "touch",
    "unlink", "write_bytes", "write_text",
}  # fmt: skip
NO_PATHS = {"entry", "sa"}  # of a listing, which the `Env` gave; SQL
MODULE_CALLS = {
    "os": {*(name for name in vars(FileSystem) if not name.startswith("_")), "access", "makedirs", "remove", "replace",
           "truncate", "urandom", "walk"},
    "os.path": {"exists", "getmtime", "getsize", "isdir", "isfile", "islink", "ismount", "lexists", "samefile"},
    "time": {"monotonic", "monotonic_ns", "perf_counter", "sleep", "time", "time_ns"},
    "datetime": {"now", "today", "utcnow"},
    "uuid": {"uuid1", "uuid4"},
    "random": set[str](),
    "secrets": set[str](),
    "tempfile": set[str](),
    "shutil": {"copy", "copyfile", "copytree", "move", "rmtree"},
}  # fmt: skip


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


def reaches_the_world(tree: ast.Module) -> list[str]:
    """The calls by which a module touches files, clocks and chance without an `Env`."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
            found.append("open")
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        on, call = ast.unparse(node.func.value), node.func.attr
        if on in MODULE_CALLS:
            found += [f"{on}.{call}"] * (call in (MODULE_CALLS[on] or {call}))
        elif call in PATH_CALLS and on.rpartition(".")[2] not in {"fs", "_fs", "FileSystem"} | NO_PATHS:
            found.append(f"{on}.{call}")
    return found


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


def test_floors_reach_files_clocks_and_chance_by_an_env() -> None:
    source = ROOT / "src" / "keepstone"
    modules = [name for path in source.rglob("*.py") if (name := path.relative_to(source)).parts[0] not in SURFACES]
    found = {str(name): reaches_the_world(ast.parse((source / name).read_text())) for name in modules}

    assert {name: calls for name, calls in found.items() if calls and name not in BESIDE_ENV} == {}
    assert [name for name in BESIDE_ENV if not found.get(name)] == []  # what needs no exception any more


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
