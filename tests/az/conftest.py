# SPDX-License-Identifier: Apache-2.0
"""The Azure CLI and the Azure SDK as anybody gets them, against a server that runs as it does for anybody.

A worker of the test run has one server and one login as an Owner; each test takes resource groups of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from .running import Az
from .serving import Server, serving

__all__: list[str] = []

_SCRIPT = Path(__file__).parents[2] / "scripts" / "azure_cli.py"


@pytest.fixture(scope="session")
def azure() -> Path:
    """The folder with the programs of the Azure CLI's environment."""
    found = subprocess.run([sys.executable, str(_SCRIPT), "--where"], capture_output=True, text=True, check=False)
    if found.returncode:
        missing = "the Azure CLI is not installed; get it with `make azure-cli`"
        if os.environ.get("CI"):
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    return Path(found.stdout.strip()) / "bin"


@pytest.fixture(scope="session")
def server(azure: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server."""
    with serving(tmp_path_factory.mktemp("server") / "data") as running:
        yield running


@pytest.fixture(scope="session")
def az(azure: Path, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Az:
    """The Azure CLI, logged in as an Owner of everything, the way that `keepstone az-setup` says."""
    said = server.keepstone("az-setup")
    owner = Az(azure / "az", tmp_path_factory.mktemp("az") / "owner", Path(said["ca"]))
    owner(f"cloud register -n Keepstone --endpoint-resource-manager {said['endpoint']}")
    owner("cloud set -n Keepstone")
    owner("config set core.instance_discovery=false")
    owner.log_in(said["client_id"], said["client_secret"], said["tenant"])
    return owner


@pytest.fixture(scope="session")
def az_as(az: Az, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Az]:
    """Logs in as somebody new who has a role at a scope."""
    homes = tmp_path_factory.mktemp("others")
    numbers = count()

    def log_in(*roles: str, scope: str = "/") -> Az:
        credentials = server.principal(*roles, scope=scope)
        other = az.another(homes / str(next(numbers)))
        other.log_in(credentials.client, credentials.secret, server.tenant)
        return other

    return log_in
