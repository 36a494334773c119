# SPDX-License-Identifier: Apache-2.0
"""How the Azure CLI gets here: once, by one of those that want it, and not in silence where it cannot be had."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.service

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The script, with a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("azure_cli")


def stamp(script: Any, home: Path) -> None:
    """Looks like an installed one."""
    (home / "bin").mkdir(parents=True, exist_ok=True)
    if not (home / "bin" / "python").exists():
        (home / "bin" / "python").symlink_to(sys.executable)
    (home / ".installed").write_text("\n".join(script.REQUIREMENTS) + "\n")


def test_what_is_installed_is_left_alone(
    script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = script.environment()
    assert script.main(["--where"]) == 1
    stamp(script, home)
    monkeypatch.setattr(script, "install", lambda _home: pytest.fail("it was installed again"))

    assert script.main(["--where"]) == 0
    assert script.main([]) == 0

    assert capsys.readouterr().out == f"{home}\n" * 2


@pytest.mark.parametrize("change", ["another version", "no interpreter"])
def test_what_is_not_what_is_wanted_is_installed(script: Any, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    home = script.environment()
    stamp(script, home)
    if change == "another version":
        (home / ".installed").write_text("azure-cli==2.0.0\n")
    else:
        (home / "bin" / "python").unlink()
    installed: list[Path] = []
    monkeypatch.setattr(script, "install", installed.append)

    assert script.main([]) == 0

    assert installed == [home]


def test_of_two_one_installs(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    installed: list[Path] = []
    waiting = threading.Event()
    found = script.is_installed

    def look(home: Path) -> bool:
        answer: bool = found(home)
        if threading.current_thread() is second:
            waiting.set()
        return answer

    def install(home: Path) -> None:
        installed.append(home)
        if len(installed) == 1:
            second.start()
            assert waiting.wait(30)  # the second one wants to install, too
            stamp(script, home)

    monkeypatch.setattr(script, "is_installed", look)
    monkeypatch.setattr(script, "install", install)
    second = threading.Thread(target=script.main, args=([],))

    assert script.main([]) == 0
    second.join(30)

    assert len(installed) == 1


def test_what_an_interrupted_run_left_is_taken_away(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    home = script.environment()
    stamp(script, home)
    (home / ".installed").unlink()
    seen: list[bool] = []

    def fill(home: Path) -> None:
        seen.append(home.exists())
        if home.exists():
            raise subprocess.CalledProcessError(1, "pip")
        stamp(script, home)

    monkeypatch.setattr(script, "_fill", fill)

    assert script.main([]) == 0

    assert seen == [True, False]
    assert script.is_installed(home)


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)])
def test_where_it_cannot_be_had_that_is_said(tmp_path: Path, ci: str, code: int) -> None:
    (tmp_path / "cache").write_text("no folder")

    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "azure_cli.py")],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "CI": ci},
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == code
    assert "The Azure CLI could not be installed" in done.stderr
    assert "make azure-cli" in done.stderr
