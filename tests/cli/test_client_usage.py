# SPDX-License-Identifier: Apache-2.0
"""`keepstone vault usage`: which item costs what."""

from __future__ import annotations

import json
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from keepstone.catalogue import footprints, jobs
from keepstone.control import vaults
from keepstone.control.footprint import COUNT
from keepstone.errors import StorageError
from keepstone.store import Store
from tests.cli.answering import Answering
from tests.cli.running import Cli, Ended, noise

pytestmark = pytest.mark.service
_numbers = count(1)


@pytest.fixture
def group(service: Answering, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> str:
    """That of the vault that the commands of this test mean."""
    monkeypatch.setenv("KEEPSTONE_DATA", str(service.root))
    name = f"group{next(_numbers)}"
    monkeypatch.setenv("KEEPSTONE_GROUP", name)
    cli.run("group", "create", "-n", name)
    cli.run("vault", "create", "-n", "v1")
    return name


@pytest.fixture
def folders(cli: Cli, group: str, tmp_path: Path) -> list[Path]:
    """Two that have a file in common, as items with a point each."""
    made = [tmp_path / "large", tmp_path / "small"]
    for number, folder in enumerate(made):
        folder.mkdir()
        (folder / "common").write_bytes(noise(300_000))
        (folder / "own").write_bytes(noise(200_000 - number * 100_000, seed=number + 5))
        cli.run("protection", "enable", "--path", folder)
        cli.run("protection", "backup-now", "-i", folder)
    return made


def found(ended: Ended) -> Any:
    return json.loads(ended.out.splitlines()[-1])


def grow_old(service: Answering) -> None:
    early = service.plane.env.utc() - timedelta(hours=1)
    with service.plane.database.change() as connection:
        connection.execute(footprints.update().values(due=early))
        connection.execute(jobs.update().where(jobs.c.operation == COUNT).values(ended=early))


def test_items_policies_and_the_vault(cli: Cli, service: Answering, folders: list[Path]) -> None:
    before = service.asked.count("keepstone.usage")
    listed = cli.run("vault", "usage").out.splitlines()
    assert listed[0].split() == ["item", "policy", "points", "logical", "needed", "alone", "shared"]
    assert [line.split()[0] for line in listed[1:]] == [str(folder) for folder in folders]

    items = found(cli.run("vault", "usage", "--json"))
    assert items[0]["properties"]["uniqueBytes"] > 200_000 > items[1]["properties"]["uniqueBytes"]
    (policy,) = found(cli.run("vault", "usage", "--by", "policy", "-o", "json"))
    assert policy["properties"]["protectedItemsCount"] == 2
    assert "FilesPolicy" in cli.run("vault", "usage", "--by", "policy").out
    whole = found(cli.run("vault", "usage", "--by", "vault", "--json"))
    assert whole["vault"]["sharedBytes"] == items[0]["properties"]["sharedBytes"] > 300_000
    shown = cli.run("vault", "usage", "--by", "vault").out
    assert "needed by nothing:" in shown
    assert service.asked.count("keepstone.usage") == before + 7  # the first one waited


def test_nobody_has_to_wait(cli: Cli, service: Answering, folders: list[Path]) -> None:
    with service.resting():
        assert "is being counted, by job" in cli.run("vault", "usage", "--no-wait").err
    before = cli.run("vault", "usage").out
    cli.run("protection", "backup-now", "-i", folders[0])
    grow_old(service)
    with service.resting():
        assert cli.run("vault", "usage", "--no-wait").out == before
    assert cli.run("vault", "usage").out != before


def test_a_count_that_fails(cli: Cli, service: Answering, folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise StorageError("the disk is gone; put it back")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "usage", fail)
        assert "the disk is gone" in cli.run("vault", "usage", "--json", code=1).json["error"]["message"]
    grow_old(service)
    before = cli.run("vault", "usage").out
    grow_old(service)
    monkeypatch.setattr(Store, "usage", fail)
    ended = cli.run("vault", "usage", code=4)
    assert ended.out == before
    assert "was not counted anew" in ended.err


def test_damage_is_told(cli: Cli, service: Answering, group: str, folders: list[Path]) -> None:
    with service.plane.look() as connection:
        vault = vaults.find(connection, service.plane.place.subscription, group, "v1")
    store = service.plane.stores.place(vault.id)
    lost = max((path for path in (store / "packs").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    lost.unlink()

    ended = cli.run("vault", "usage", code=4)

    assert lost.name in ended.err
    assert str(folders[1]) in ended.out
