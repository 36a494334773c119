# SPDX-License-Identifier: Apache-2.0
"""What a function writes, as pieces for somebody else."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from keepstone.control import pipe
from keepstone.control.pipe import poured

pytestmark = pytest.mark.service


def test_everything_comes_in_order() -> None:
    def write(stream: Any) -> None:
        for number in range(100_000):
            stream.write(b"%d," % number)

    assert b"".join(poured(write)) == b"".join(b"%d," % number for number in range(100_000))


def test_nothing_is_nothing() -> None:
    assert list(poured(lambda stream: None)) == []


def test_what_it_raises_comes_last() -> None:
    def write(stream: Any) -> None:
        stream.write(b"some")
        raise ValueError("no more")

    pieces = poured(write)
    assert next(pieces) == b"some"
    with pytest.raises(ValueError, match="no more"):
        next(pieces)


def test_who_stops_ends_it_and_it_does_not_run_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "WAITING", 1 << 20)
    written, ended = [], threading.Event()

    def write(stream: Any) -> None:
        try:
            while True:
                written.append(stream.write(bytes(100_000)))
        except BrokenPipeError:
            ended.set()

    pieces = poured(write)
    assert len(next(pieces)) >= 100_000
    pieces.close()  # type: ignore[attr-defined]  # a generator

    assert ended.is_set()
    assert sum(written) < 4 << 20
