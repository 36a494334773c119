# SPDX-License-Identifier: Apache-2.0
"""What the packages bring besides the program: units, settings, scripts."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from keepstone.agent import system
from keepstone.agent.configuration import Configuration
from keepstone.cli import main

pytestmark = pytest.mark.agents
FOLDER = Path(__file__).parents[2] / "packaging"
UNITS = ["keepstone.service", "keepstone-agent.service"]
SCRIPTS = sorted((FOLDER / "scripts").glob("*.sh"))


def unit(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def setting(text: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)


@pytest.mark.parametrize("name", UNITS)
def test_systemd_understands_the_unit(name: str, tmp_path: Path, tool: Callable[[str], str]) -> None:
    """Whatever it does not understand is a warning; of that the program is not installed here nothing is said."""
    copy = tmp_path / name
    copy.write_text(unit(name).replace("/usr/bin/keepstone", "/bin/true"))

    ran = subprocess.run(
        [tool("systemd-analyze"), "verify", "--man=no", copy], capture_output=True, text=True, check=False
    )

    said = [line for line in ran.stderr.splitlines() if name in line]
    assert (ran.returncode, said) == (0, [])


def test_a_mistake_in_a_unit_is_found(tmp_path: Path, tool: Callable[[str], str]) -> None:
    copy = tmp_path / "keepstone.service"
    copy.write_text(unit("keepstone.service").replace("ProtectClock=yes", "ProtectClocks=yes"))

    ran = subprocess.run(
        [tool("systemd-analyze"), "verify", "--man=no", copy], capture_output=True, text=True, check=False
    )

    assert "ProtectClocks" in ran.stderr


@pytest.mark.parametrize(("name", "most"), [("keepstone.service", 20), ("keepstone-agent.service", 45)])
def test_units_expose_no_more_than_they_did(name: str, most: int, tool: Callable[[str], str]) -> None:
    """Tenths of systemd's measure, from 0 to 100; a service without any protection has 96."""
    command = [tool("systemd-analyze"), "security", "--offline=true", f"--threshold={most}", str(FOLDER / name)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unrecognized option" in ran.stderr:
        pytest.skip("this systemd cannot judge a unit that is not installed")

    assert ran.returncode == 0, ran.stdout


def test_the_units_call_commands_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    for name, options in (("keepstone.service", {"--data"}), ("keepstone-agent.service", set())):
        (line,) = setting(unit(name), "ExecStart")
        words = [word for word in line.removeprefix("/usr/bin/keepstone ").split() if not word.startswith(("$", "/"))]

        assert main([*(word for word in words if not word.startswith("-")), "--help"]) == 0
        assert {word for word in words if word.startswith("-")} == options
        shown = capsys.readouterr().out
        assert all(option in shown for option in options)


def test_the_agents_folders_are_those_of_its_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    own, text = system.folders({}), unit("keepstone-agent.service")

    assert setting(text, "StateDirectory") == [own.state.name] == [str(own.state.relative_to("/var/lib"))]
    assert setting(text, "CacheDirectory") == [str(own.cache.relative_to("/var/cache"))]
    assert setting(text, "ConditionDirectoryNotEmpty") == [str(own.state)]
    assert f"dst: {own.configuration}" in unit("nfpm.yaml")
    assert str(own.restored) in unit("agent.toml")


def test_the_agents_settings_are_valid_as_they_come_and_with_all_examples() -> None:
    text = unit("agent.toml")
    examples = re.sub(r"^#(?=[a-z_]+ = |\[)", "", text, flags=re.MULTILINE)

    assert Configuration.parse(text) == Configuration()
    found = Configuration.parse(examples)
    assert (found.threads, found.limits.cpu, len(found.limits.times), len(found.before)) == (2, 50, 1, 1)
    assert found.backup.deny == ("/root/.ssh",)
    assert found.restore.allow == ("/srv",)
    assert found.sealed.items == ("/srv/*",)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_one_of_the_plain_shell(path: Path) -> None:
    assert subprocess.run(["/bin/sh", "-n", path], check=False).returncode == 0
    assert path.read_text().startswith("#!/bin/sh\n")


def test_all_scripts_are_packaged() -> None:
    assert re.findall(r"packaging/scripts/(\S+)", unit("nfpm.yaml")) == [
        "postinstall.sh",
        "preremove.sh",
        "postremove.sh",
    ]
    assert {path.name for path in SCRIPTS} == {"postinstall.sh", "preremove.sh", "postremove.sh"}
