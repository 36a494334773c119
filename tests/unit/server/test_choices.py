# SPDX-License-Identifier: Apache-2.0
"""What was chosen at the first start is remembered, and later starts do not undo it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from keepstone.control.installation import Installation
from keepstone.env import Env
from keepstone.errors import FormatError, GuardRefused, StoreMissing, UsageError
from keepstone.server.choices import Choices, installed
from keepstone.server.starting import Start

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


def test_allowed_paths_take_the_place_of_others(tmp_path: Path) -> None:
    chosen = Choices(allowed=("/srv", "/home"))

    assert chosen.with_given(tmp_path, None, ()) == chosen
    assert chosen.with_given(tmp_path, None, (), ("/var",)) == Choices(allowed=("/var",))


def test_the_folder_of_snapshots_is_remembered_and_taken_back(tmp_path: Path) -> None:
    chosen = Choices(snapshots="/srv/snapshots")

    assert chosen.with_given(tmp_path, None, ()) == chosen
    assert chosen.with_given(tmp_path, None, (), snapshots="/var") == Choices(snapshots="/var")
    assert chosen.with_given(tmp_path, None, (), snapshots="") == Choices()


def test_the_folder_of_snapshots_reaches_the_workers(installation: Installation) -> None:
    Choices(snapshots="/srv/snapshots").save(Env(), installation.root)
    try:
        plane = installed(Env(), installation.root).plane()
        plane.database.close()
    finally:
        (installation.root / "service.json").unlink()

    assert plane.snapshots == Path("/srv/snapshots")


def test_what_is_allowed_reaches_the_workers(installation: Installation) -> None:
    Choices(allowed=(str(installation.root.parent / "srv"),)).save(Env(), installation.root)
    try:
        plane = installed(Env(), installation.root).plane()
        plane.database.close()
    finally:
        (installation.root / "service.json").unlink()
    plane.reach.check(installation.root.parent / "srv" / "web")
    with pytest.raises(GuardRefused, match="--allow"):
        plane.reach.check(installation.root.parent)


def test_a_start_remembers_what_is_allowed(tmp_path: Path) -> None:
    root = tmp_path / "service"
    for given, known in ((["/srv"], ("/srv",)), ([], ("/srv",)), (["/var", "/home"], ("/var", "/home"))):
        with Start.prepare(root, "127.0.0.1", 0, allowed=given) as start:
            start.begin()
            chosen = Choices.of(root)
            assert chosen is not None
            assert chosen.allowed == known
            plane = start.installation.plane()
            plane.database.close()
            with pytest.raises(GuardRefused):
                plane.reach.check(tmp_path)


@pytest.mark.parametrize("content", ["", "{", '{"database": 7}', '{"databse": null}', "[]"])
def test_a_file_that_says_something_else_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "service.json").write_text(content)

    with pytest.raises(FormatError, match=str(tmp_path / "service.json")):
        Choices.of(tmp_path)
