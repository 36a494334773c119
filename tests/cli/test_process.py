# SPDX-License-Identifier: Apache-2.0
"""The settings of a process that moves much data, or holds many connections."""

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


MEMORY = """
import re
from pathlib import Path
from keepstone.cli.process import tune
tune(connections={connections})
freed = [bytes(64 << 10) for _ in range(3000)]
keep = bytes(64 << 10)  # at the heap's end, so that nothing below it can go back
mapped = [bytearray(256 << 10) for _ in range(100)]
del freed[1:], mapped
print(re.search("VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def test_buffers_of_connections_go_back_when_they_are_free() -> None:
    """Each is a mapping of its own; a process that moves data keeps them all in its heap."""

    def resident(*, connections: bool) -> int:
        program = MEMORY.format(connections=connections)
        return int(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)

    assert resident(connections=True) < resident(connections=False) - 15_000
