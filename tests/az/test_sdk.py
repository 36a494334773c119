# SPDX-License-Identifier: Apache-2.0
"""Programs over the Azure SDK for Python, as they come with the Azure CLI."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from keepstone.control.containers import local_name

from .elsewhere import elsewhere
from .machines import make_machine
from .running import Az, isolated
from .serving import LOCATION, Server

pytestmark = pytest.mark.service

ROOT = Path(__file__).parents[2]


def run(azure: Path, server: Server, program: str, **more: Any) -> None:
    """A program of tests/az/sdk, which has to find what it looks for."""
    someone = server.principal("Owner")
    given = {
        "url": server.url,
        "tenant": server.tenant,
        "subscription": server.subscription,
        "location": LOCATION,
        "client": someone.client,
        "secret": someone.secret,
        "token": server.token(someone),
        "more": more,
    }
    done = subprocess.run(
        [str(azure / "python"), "-m", f"tests.az.sdk.{program}"],
        input=json.dumps(given),
        env=isolated(server.ca),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def test_vaults_and_policies(az: Az, azure: Path, server: Server) -> None:
    az(f"group create -n sdk -l {LOCATION}")

    run(azure, server, "vaults", group="sdk")


def test_protection(az: Az, azure: Path, server: Server, tmp_path: Path) -> None:
    az(f"group create -n sdk-items -l {LOCATION}")
    az(f"backup vault create -g sdk-items -n items -l {LOCATION}")
    machine = make_machine(az, server, "sdk-items", "app", tmp_path)

    run(azure, server, "protection", group="sdk-items", vault="items", machine=machine, container=local_name())


@pytest.mark.agents
def test_agents(az: Az, azure: Path, server: Server, tmp_path: Path) -> None:
    az(f"group create -n sdk-agents -l {LOCATION}")
    az(f"backup vault create -g sdk-agents -n items -l {LOCATION}")
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("content")
    with elsewhere(server, "sdk-agents", "items", "db1", tmp_path) as machine:
        machine.start()
        about = {
            "container": machine.container,
            "item": machine.item(source).rpartition("/")[2],
            "source": str(source),
            "target": str(machine.restored / "again"),
        }
        run(azure, server, "agents", group="sdk-agents", vault="items", **about)
