# SPDX-License-Identifier: Apache-2.0
"""An installation of each test's own: a copy of one that has begun, because keys are dear."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepstone.control.installation import Installation
from keepstone.control.plane import Plane
from keepstone.env import Env

__all__ = ["Heard"]


class Heard(logging.Handler):
    """Lines of the log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines += (getattr(record, "line", None) or record.getMessage()).split("\n")

    def having(self, text: str) -> list[str]:
        return [line for line in self.lines if text in line]


@pytest.fixture
def heard(logging_as_before: None) -> Heard:
    """All that is logged during the test."""
    handler = Heard()
    logging.getLogger().addHandler(handler)
    return handler


@pytest.fixture(autouse=True)
def umask_as_before() -> Iterator[None]:
    """A start takes rights from all that its process makes, and here that is the process of other tests too."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that a first start has made."""
    root = tmp_path_factory.mktemp("template") / "service"
    before = os.umask(0o077)
    try:
        installation = Installation(Env(), root)
        installation.begin("onprem1")
        installation.certificate(["localhost", "127.0.0.1"])
    finally:
        os.umask(before)
    return root


@pytest.fixture
def installation(template: Path, tmp_path: Path) -> Installation:
    """A copy of it."""
    root = tmp_path / "service"
    shutil.copytree(template, root)
    return Installation(Env(), root)


@pytest.fixture
def plane(installation: Installation) -> Iterator[Plane]:
    """Its control plane."""
    opened = installation.plane()
    yield opened
    opened.database.close()


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """What the test does to logging is undone."""
    root = logging.getLogger()
    names = ("", "keepstone", "uvicorn")
    handlers, levels = root.handlers[:], [logging.getLogger(name).level for name in names]
    hook, told = threading.excepthook, logging.raiseExceptions
    yield
    logging.captureWarnings(False)
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    for name, level in zip(names, levels, strict=True):
        logging.getLogger(name).setLevel(level)
    threading.excepthook, logging.raiseExceptions = hook, told
