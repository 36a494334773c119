# SPDX-License-Identifier: Apache-2.0
"""A Python that has nothing but what `rescue.py` says it needs."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Bare", "make_bare"]


@dataclass(frozen=True)
class Bare:
    """`python` runs isolated (`-I`): no variable of the environment, no folder but its own, counts."""

    python: Path

    def run(self, *arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
        """Run it in an empty environment."""
        command = [str(self.python), "-I", *map(str, arguments)]
        done = subprocess.run(command, input=stdin, capture_output=True, env={}, cwd="/", check=False)
        return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())

    def can_import(self, module: str) -> bool:
        """Whether there is such a module."""
        return self.run("-c", f"import {module}").returncode == 0

    def rescue(self, store: Path, *arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
        """Run the `rescue.py` that lies in the store."""
        return self.run(store / "rescue.py", store, *arguments, stdin=stdin)


def make_bare(folder: Path, *distributions: str) -> Bare:
    """A virtual environment with these distributions and what they need, linked from the one that runs the tests."""
    venv.create(folder, with_pip=False, symlinks=True)
    site = next((folder / "lib").glob("python*/site-packages"))
    for name in _needed(distributions):
        for part in {file.parts[0] for file in importlib.metadata.files(name) or ()} - {"..", "__pycache__"}:
            os.symlink(str(importlib.metadata.distribution(name).locate_file(part)), site / part)
    return Bare(folder / "bin" / Path(sys.executable).name)


def _needed(names: tuple[str, ...]) -> set[str]:
    """These distributions and those that they require, as far as they are installed."""
    needed: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name in needed:
            continue
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            if name in names:
                raise
            continue  # required on another platform only
        needed.add(name)
        pending += [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in requirements if "extra ==" not in line]
    return needed
