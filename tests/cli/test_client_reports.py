# SPDX-License-Identifier: Apache-2.0
"""`keepstone overview` and `keepstone report`."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from keepstone.catalogue import items, points
from tests.cli.answering import Answering
from tests.cli.running import Cli

pytestmark = pytest.mark.service


@pytest.fixture
def folder(service: Answering, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """One with a point, in a vault of the test's own."""
    monkeypatch.setenv("KEEPSTONE_DATA", str(service.root))
    monkeypatch.setenv("KEEPSTONE_GROUP", tmp_path.name)
    monkeypatch.setenv("KEEPSTONE_VAULT", "v1")
    cli.run("group", "create", "-n", tmp_path.name)
    cli.run("vault", "create", "-n", "v1")
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a").write_text("kept")
    cli.run("protection", "enable", "--path", folder)
    cli.run("protection", "backup-now", "-i", folder)
    return folder


def read(cli: Cli, *arguments: object) -> Any:
    return json.loads(cli.run(*arguments, "-o", "json").out)


def test_vaults_at_a_look(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(cli, "overview")["properties"]["items"]["Healthy"] == 1
    shown = cli.run("overview").out
    assert "with a point of the last run:  1 of 1" in shown
    assert "proved in 30 days:             0 of 0" in shown

    monkeypatch.delenv("KEEPSTONE_VAULT")
    monkeypatch.delenv("KEEPSTONE_GROUP")
    every = read(cli, "overview")["properties"]
    assert every["vaults"] >= 1
    assert every["items"]["Healthy"] >= 1


def test_growth_and_what_comes_of_it(cli: Cli, folder: Path, service: Answering) -> None:
    ended = cli.run("report", "growth", "--days", "7")
    assert len(ended.out.splitlines()) == 8
    assert "fewer than three days" in ended.err
    assert len(read(cli, "report", "growth", "--days", "30")) == 30
    cli.run("report", "growth", "--days", "0", code=2)

    now = service.plane.env.utc()
    with service.plane.database.change() as connection:
        item = sa.select(items.c.id).where(items.c.friendly == str(folder)).scalar_subquery()
        (row,) = connection.execute(sa.select(points).where(points.c.item == item)).mappings()
        for ago in (1, 2, 3):
            made = dict(row) | {"name": f"{ago}", "made": now - timedelta(days=ago), "stored": 1 << 40}
            connection.execute(points.insert().values(made))
    assert "a day: the disk is full about 20" in cli.run("report", "growth").err


def test_rpo_and_drills(cli: Cli, folder: Path) -> None:
    (line,) = read(cli, "report", "rpo")
    assert line["properties"]["friendlyName"] == str(folder)
    assert line["properties"]["compliance"]["expected"] == 0
    assert str(folder) in cli.run("report", "rpo").out
    assert "no machines or disks are protected" in cli.run("report", "drills").err
