# SPDX-License-Identifier: Apache-2.0
"""Which code a figure is of."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import keepstone
from bench import run

COMMAND = ["git", "-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, which is the bench's own."""
    for folder in ("src", "docs", "bench"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").write_text("committed")
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*COMMAND, *arguments], cwd=tmp_path, check=True)
    monkeypatch.setattr(run, "__file__", str(tmp_path / "bench" / "run.py"))
    return tmp_path


def head(clone: Path) -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=clone, check=True, capture_output=True, text=True)
    return done.stdout[:7]


def test_a_figure_is_of_a_commit(clone: Path) -> None:
    assert run.code() == head(clone)


def test_a_page_that_was_changed_is_not_the_product(clone: Path) -> None:
    (clone / "docs" / "file").write_text("changed")

    assert run.code() == head(clone)


@pytest.mark.parametrize("name", ["file", "new"])
def test_a_plus_says_that_the_product_is_another_one(clone: Path, name: str) -> None:
    (clone / "src" / name).write_text("changed")

    assert run.code() == head(clone) + "+"


def test_without_a_repository_it_is_the_version(clone: Path) -> None:
    shutil.rmtree(clone / ".git")

    assert run.code() == keepstone.__version__


def test_without_git_it_is_the_version(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    assert run.code() == keepstone.__version__
