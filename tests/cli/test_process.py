# SPDX-License-Identifier: Apache-2.0
"""The settings of a process that moves much data."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.store

PROGRAM = """
import gc, resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from keepstone.cli.process import tune
tune()
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], gc.isenabled(), gc.get_threshold()[0] > 100_000)
"""


@pytest.mark.parametrize(
    ("soft", "hard", "then"), [(1024, 20_000, 16_384), (1024, 2000, 2000), (18_000, 20_000, 18_000), (100, 100, 100)]
)
def test_as_many_files_as_are_needed_and_allowed(soft: int, hard: int, then: int) -> None:
    program = PROGRAM.format(soft=soft, hard=hard)

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.split() == [str(then), "True", "True"]
