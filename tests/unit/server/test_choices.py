# SPDX-License-Identifier: Apache-2.0
"""What was chosen at the first start is remembered, and later starts do not undo it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from keepstone.control.installation import Installation
from keepstone.env import Env
from keepstone.errors import FormatError, StoreMissing, UsageError
from keepstone.server.choices import Choices, installed

pytestmark = pytest.mark.service
URL = "postgresql+psycopg://u:secret@host/db"


def test_choices_are_remembered_where_nobody_else_reads(tmp_path: Path) -> None:
    chosen = Choices(database=URL, names=("a", "b"))

    for _ in range(2):
        chosen.save(Env(), tmp_path)

    assert Choices.of(tmp_path) == chosen
    assert [path.name for path in tmp_path.iterdir()] == ["service.json"]
    assert stat.S_IMODE((tmp_path / "service.json").stat().st_mode) == 0o600


def test_an_installation_that_chose_nothing(installation: Installation) -> None:
    assert Choices.of(installation.root) == Choices()
    assert installed(Env(), installation.root).plane().place.location == "onprem1"


def test_where_nothing_was_started(tmp_path: Path) -> None:
    assert Choices.of(tmp_path) is None
    with pytest.raises(StoreMissing, match="keepstone up"):
        installed(Env(), tmp_path)


def test_names_are_added_and_the_database_stays(tmp_path: Path) -> None:
    chosen = Choices(database=URL, names=("a", "b"))

    assert chosen.with_given(tmp_path, None, ("c", "a")) == Choices(database=URL, names=("a", "b", "c"))
    assert chosen.with_given(tmp_path, URL, ()) == chosen
    for mine, given in ((chosen, f"{URL}2"), (Choices(), URL)):
        with pytest.raises(UsageError, match=r"service\.json") as refused:
            mine.with_given(tmp_path, given, ())
        assert "secret" not in str(refused.value)


@pytest.mark.parametrize("content", ["", "{", '{"database": 7}', '{"databse": null}', "[]"])
def test_a_file_that_says_something_else_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "service.json").write_text(content)

    with pytest.raises(FormatError, match=str(tmp_path / "service.json")):
        Choices.of(tmp_path)
