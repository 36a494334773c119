# SPDX-License-Identifier: Apache-2.0
"""What a machine remembers of a store."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepstone.env import Env
from keepstone.store.memory import Seen, recall, remember
from tests.tampered import Tampered, fails

pytestmark = pytest.mark.store


def test_remember_and_recall(tmp_path: Path) -> None:
    cache = tmp_path / "a" / "b"
    assert recall(Env(), cache) is None
    remember(Env(), cache, Seen(5, "five"))
    assert recall(Env(), cache) == Seen(5, "five")
    remember(Env(), cache, Seen(7, "seven"))
    assert recall(Env(), cache) == Seen(7, "seven")
    assert [path.name for path in cache.iterdir()] == ["head.json"]


def test_never_an_older_one(tmp_path: Path) -> None:
    remember(Env(), tmp_path, Seen(5, "five"))
    for older in (Seen(4, "four"), Seen(5, "another five")):
        remember(Env(), tmp_path, older)

        assert recall(Env(), tmp_path) == Seen(5, "five")


def test_without_a_cache() -> None:
    remember(Env(), None, Seen(1, "one"))

    assert recall(Env(), None) is None


@pytest.mark.parametrize("content", [b"", b"{}", b"null", b"\xff", b"[" * 100_000, b'{"sequence": "x", "digest": 1}'])
def test_damage_is_forgetting(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "head.json").write_bytes(content)

    assert recall(Env(), tmp_path) is None
    remember(Env(), tmp_path, Seen(1, "one"))
    assert recall(Env(), tmp_path) == Seen(1, "one")


@pytest.mark.parametrize("call", ["open", "write", "rename"])
def test_a_cache_that_cannot_be_written(tmp_path: Path, call: str) -> None:
    """It is no failure, and it leaves nothing behind."""
    env = Env(fs=Tampered(**{call: fails(28)}))
    for _ in range(3):
        remember(env, tmp_path, Seen(1, "one"))

    assert recall(Env(), tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_cache(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no folder")
    remember(Env(), tmp_path / "cache", Seen(1, "one"))

    assert recall(Env(), tmp_path / "cache") is None
