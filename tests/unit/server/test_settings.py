# SPDX-License-Identifier: Apache-2.0
"""Where the service's folder is: what is said, then the environment, then the platform's place."""

from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest

from keepstone.settings import Settings

pytestmark = pytest.mark.service


def test_the_folder_of_the_service() -> None:
    of = {
        "platform": Settings.load({}),
        "home": Settings.load({"KEEPSTONE_HOME": "/h"}),
        "own": Settings.load({"KEEPSTONE_HOME": "/h", "KEEPSTONE_DATA": "/d"}),
        "relative": Settings.load({"KEEPSTONE_DATA": "d"}),
    }

    assert {name: settings.service for name, settings in of.items()} == {
        "platform": Path(platformdirs.user_data_dir("keepstone", appauthor=False)) / "service",
        "home": Path("/h/service"),
        "own": Path("/d"),
        "relative": Path.cwd() / "d",
    }
    assert of["own"].keys == Path("/h/keys")
