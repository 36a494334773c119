# SPDX-License-Identifier: Apache-2.0
"""A service for each module of tests. Each test has machines and folders of its own in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

from tests.agents.living import Hand, Living, Machine

__all__: list[str] = []

_numbers = count(1)


@pytest.fixture(scope="module")
def living(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Living]:
    """A service that runs."""
    made = Living(tmp_path_factory.mktemp("agents"))
    try:
        made.up()
        yield made
    finally:
        made.down()


@pytest.fixture
def machine(living: Living) -> Iterator[Machine]:
    """A machine that is registered; its agent does not run."""
    made = living.machine(f"web{next(_numbers)}")
    yield made
    if made.process is not None:
        made.stop()


@pytest.fixture
def agent(machine: Machine) -> Iterator[Machine]:
    """A machine whose agent runs."""
    with machine.running():
        yield machine


@pytest.fixture
def hand(machine: Machine) -> Iterator[Callable[..., Hand]]:
    """Makes agents by hand."""
    with ExitStack() as stack:

        def make(*given: object, **named: object) -> Hand:
            made = machine.hand(*given, **named)  # type: ignore[arg-type]
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small tree."""
    root = tmp_path / "source"
    (root / "folder").mkdir(parents=True)
    for number in range(20):
        (root / "folder" / f"file{number}").write_bytes(b"%d" % number * 1000)
    (root / "large").write_bytes(bytes(range(256)) * 5000)
    (root / "link").symlink_to("folder/file3")
    (root / "private").write_text("x")
    (root / "private").chmod(0o600)
    return root
