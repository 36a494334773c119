# SPDX-License-Identifier: Apache-2.0
"""The command line, run in this process on real stores beneath a home of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from keepstone.crypto import Argon2Cost, PassphraseProvider
from tests.cli.running import Cli

if TYPE_CHECKING:
    from tests.cli.answering import Answering


@pytest.fixture(autouse=True)
def cheap_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    """A passphrase that is tried costs nothing."""
    defaults = PassphraseProvider.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "cost", Argon2Cost(iterations=1, memory_kib=64, lanes=1))
    monkeypatch.setitem(defaults, "weak", True)


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Cli:
    """A command line with an empty home; the working directory is the test's own."""
    monkeypatch.setenv("KEEPSTONE_HOME", str(tmp_path / "home"))
    for variable in ("KEEPSTONE_PASSPHRASE", "KEEPSTONE_NEW_PASSPHRASE", "KEEPSTONE_STORE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    return Cli(tmp_path, capsysbinary)


@pytest.fixture
def made(cli: Cli) -> Cli:
    """The same, with a store in `store`."""
    cli.init()
    return cli


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answering]:
    """A service that answers, one for the module; each test has a vault of its own in it."""
    from tests.cli.answering import Answering

    made = Answering(tmp_path_factory.mktemp("answering") / "service")
    made.start()
    yield made
    made.close()


@pytest.fixture
def far(service: Answering, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Commands from another machine: they know its address and its authority."""
    monkeypatch.setenv("KEEPSTONE_ENDPOINT", service.url)
    monkeypatch.setenv("KEEPSTONE_CA", str(service.installation.ca))
    return cli


@pytest.fixture
def near(service: Answering, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Commands on its own machine, as somebody who may read its files."""
    monkeypatch.setenv("KEEPSTONE_DATA", str(service.root))
    return cli
