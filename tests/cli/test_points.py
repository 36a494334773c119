# SPDX-License-Identifier: Apache-2.0
"""The life of recovery points: made, listed, deleted, taken back, purged, their space given back."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest

from keepstone.env import Env
from tests.cli.running import Cli, noise

pytestmark = pytest.mark.store

DAY = 86_400 * 10**9


def test_backup_says_what_became_of_the_source(made: Cli) -> None:
    disk = made.disk(3 << 20)

    first = made.backup(disk, "--tag", "monday", "--tag", "full", "--level", "fast")
    second = made.backup(disk, "--level", "balanced", "--check-writes")

    expected = {
        "item": str(disk),
        "source": str(disk),
        "kind": "images",
        "logical_bytes": 3 << 20,
        "read_bytes": 3 << 20,
        "new_bytes": 3 << 20,
        "files": 1,
        "warnings": 0,
        "parent": "",
        "tags": ["monday", "full"],
        "locked_until": None,
        "deleted_until": None,
    }
    assert {name: first[name] for name in expected} == expected
    assert first["id"].partition("-")[2].startswith(first["short"])
    assert datetime.fromisoformat(first["started"]) <= datetime.fromisoformat(first["finished"])
    assert (second["new_bytes"], second["stored_bytes"], second["parent"]) == (0, 0, first["id"])
    assert [{**point, "seconds": 0} for point in made.points()] == [{**first, "seconds": 0}, {**second, "seconds": 0}]


def test_several_sources_make_a_point_each(made: Cli) -> None:
    disk = made.disk()
    Path("other.RAW").write_bytes(noise(5000))

    points = made("backup", "--json", disk, "other.RAW", disk).json["points"]

    assert [point["item"] for point in points] == [str(disk), str(made.path / "other.RAW")]
    assert [point["kind"] for point in points] == ["images", "images"]


def test_item_has_the_name_that_it_is_given(made: Cli) -> None:
    disk = made.disk()
    first = made.backup(disk, "--item", "web server")
    disk.rename("moved")
    second = made.backup("moved", "--image", "--item", "web server")

    assert (second["parent"], second["new_bytes"], second["item"]) == (first["id"], 0, "web server")
    assert made.backup("moved", "--image")["parent"] == ""
    assert len(made("list", "--item", "web server", "--json").json["points"]) == 2
    assert made("backup", "moved", made.store, "--item", "x", "--json", code=2).error == "BadRequest"


def test_name_that_is_not_utf8_is_shown_escaped(made: Cli) -> None:
    disk = made.disk().rename(os.fsdecode(bytes(made.path) + b"/\xff.img"))

    point = made.backup(disk)

    assert point["item"] == point["source"] == f"{made.path}/\\xff.img"
    assert r"\xff.img" in made("list").out
    made("restore", "latest", "--target", "new")
    assert Path("new").read_bytes() == disk.read_bytes()
    (made.path / os.fsdecode(b"d\xfe")).mkdir()
    assert made("restore", "latest", "--target", os.fsdecode(b"d\xfe"), "--json").json["target"] == r"d\xfe/\xff.img"


def test_list_and_show_for_people(made: Cli) -> None:
    assert made("list").out == "no recovery points\n"
    disk = made.disk()
    point = made.backup(disk, "--tag", "first")

    lines = made("list").out.splitlines()
    shown = made("show", point["short"]).out

    assert lines[0].split() == ["point", "finished", "kind", "size", "stored", "item"]
    assert lines[1].split()[0] == point["short"]
    assert lines[1].endswith("first")
    assert point["id"] in shown
    assert str(disk) in shown
    assert made("show", "latest", "--json").json["point"]["id"] == point["id"]
    assert made("list", "--tag", "second", "--json").json == {"points": []}


def test_dry_run_makes_nothing(made: Cli) -> None:
    disk = made.disk()
    with disk.open("r+b") as file:
        file.truncate(10 << 20)

    ended = made("backup", "--dry-run", disk, "--json")

    (source,) = ended.json["sources"]
    assert (source["bytes"], source["data_bytes"] < 1 << 20) == (10 << 20, True)
    assert made.points() == []
    assert made.packs() == []


def test_deleted_point_can_be_taken_back(made: Cli) -> None:
    disk = made.disk()
    point = made.backup(disk)

    forgotten = made("forget", "latest", "--json").json

    until = datetime.fromisoformat(forgotten["deleted"][0]["deleted_until"])
    assert timedelta(days=13) < until - datetime.now(UTC) < timedelta(days=15)
    assert made.points() == []
    assert made("restore", "latest", "--target", "new", "--json", code=3).error == "RecoveryPointNotFound"
    (listed,) = made("list", "--deleted", "--json").json["points"]
    assert listed["deleted_until"] == forgotten["deleted"][0]["deleted_until"]
    assert made("undelete", point["short"], "--json").json == {"undeleted": [point["id"]]}
    assert [found["id"] for found in made.points()] == [point["id"]]
    assert made("undelete", point["short"], "--json", code=2).error == "BadRequest"


def test_purged_point_and_its_space_are_gone(made: Cli) -> None:
    made.backup(made.disk(3 << 20))

    purged = made("forget", "latest", "--purge", "--json").json
    reclaimed = made("reclaim", "--json").json

    assert purged["purged"] is True
    assert made("list", "--deleted", "--json").json == {"points": []}
    assert reclaimed["packs_deleted"] == 2
    assert reclaimed["bytes_freed"] > 3 << 20
    assert made.packs() == []


def test_reclaim_purges_deleted_points_when_told_to(made: Cli) -> None:
    point = made.backup(made.disk())
    made("forget", "latest")

    dry = made("reclaim", "--dry-run", "--json").json
    kept = made("reclaim", "--json").json
    assert made("reclaim", "--dry-run", "--purge-now", "--json", code=2).error == "BadRequest"
    purged = made("reclaim", "--purge-now", "--json").json

    assert dry["dry_run"] is True
    assert (kept["packs_deleted"], kept["points_purged"]) == (0, 0)
    assert purged["purged"] == [point["id"]]
    assert purged["points_purged"] == 1
    assert made.packs() == []


def test_reclaim_says_how_many_points_it_purged(made: Cli) -> None:
    for number in range(3):
        made.backup(made.disk(seed=number), "--item", str(number))
    made("forget", "--item", "1", "latest")
    made("forget", "--item", "2", "latest")

    assert re.search(r"^points purged: +2$", made("reclaim", "--purge-now").out, re.MULTILINE)


@pytest.mark.parametrize(("answer", "code", "left"), [("n", 130, 1), ("y", 0, 0)])
def test_reclaim_asks_before_it_purges(
    made: Cli, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, left: int
) -> None:
    made.backup(made.disk())
    made("forget", "latest")
    asked: list[str] = []

    def confirm(question: str, *, abort: bool, err: bool) -> None:
        asked.append(question)
        if answer == "n":
            raise click.Abort

    monkeypatch.setattr(click, "confirm", confirm)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)

    made("reclaim", code=0)
    made("reclaim", "--purge-now", code=code)

    assert asked == ["Remove 1 deleted recovery points for ever?"]
    assert len(made("list", "--deleted", "--json").json["points"]) == left
    made("reclaim", "--purge-now", "--yes")
    made("reclaim", "--purge-now")
    assert len(asked) == 1


def test_dry_run_of_reclaim_counts_what_is_due(cli: Cli) -> None:
    cli.init("--soft-delete-days", "0")
    cli.backup(cli.disk())
    cli("forget", "latest")

    tried = cli("reclaim", "--dry-run", "--json").json
    done = cli("reclaim", "--json").json

    assert (tried["points_purged"], tried["bytes_dead"]) == (1, done["bytes_freed"])
    assert (done["points_purged"], done["bytes_freed"] > 700_000) == (1, True)


def test_item_that_has_no_points(made: Cli) -> None:
    """A slip of the pen is no retention that keeps everything."""
    made.backup(made.disk())

    ended = made("forget", "--item", "typo", "--keep-daily", "1", "--json", code=3)

    assert ended.error == "RecoveryPointNotFound"
    assert "item 'typo'" in ended.err


def test_locked_point_is_not_purged(made: Cli) -> None:
    point = made.backup(made.disk(), "--lock-days", "30")

    ended = made("forget", "latest", "--purge", "--json", code=6)
    assert ended.error == "GuardRefused"
    assert datetime.fromisoformat(point["locked_until"]) > datetime.now(UTC) + timedelta(days=29)
    assert made("list", "--json").json["points"][0]["id"] == point["id"]
    made("forget", "latest")
    refused = made("reclaim", "--purge-now", "--json", code=4)
    assert refused.json["purged"] == []
    assert f"is locked until {point['locked_until']}" in refused.json["warnings"][0]["message"]
    made("undelete", point["short"])
    assert [found["id"] for found in made.points()] == [point["id"]]


def test_rules_of_retention(made: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    now = Env().wall_time()
    disk = made.disk()
    ids = []
    for days in (40, 9, 2, 1, 0):
        with monkeypatch.context() as patch:
            patch.setattr(Env, "wall_time", lambda self, then=now - days * DAY: then)
            ids.append(made.backup(disk)["id"])
    other = made.backup(disk, "--item", "other")["id"]

    dry = made("forget", "--keep-daily", 2, "--keep-yearly", 1, "--dry-run", "--json").json
    assert [point["id"] for point in made.points()] == [*ids, other]
    done = made("forget", "--keep-daily", 2, "--keep-yearly", 1, "--json").json

    assert [point["id"] for point in dry["deleted"]] == [point["id"] for point in done["deleted"]] == ids[:3]
    assert dry["kept"] == done["kept"]
    assert set(done["kept"]) == {*ids[3:], other}
    assert [point["id"] for point in made.points()] == [*ids[3:], other]
    made("forget", "--keep-last", 1, "--item", str(disk))
    assert [point["id"] for point in made.points()] == [ids[4], other]


@pytest.mark.parametrize("arguments", [(), ("latest", "--keep-last", "1"), ("--keep-last", "0"), ("--keep-daily", "x")])
def test_forget_needs_points_or_rules(made: Cli, arguments: tuple[str, ...]) -> None:
    made.backup(made.disk())

    assert made("forget", *arguments, "--json", code=2).error == "BadRequest"

    assert len(made.points()) == 1


def test_statistics_and_index(made: Cli) -> None:
    disk = made.disk(1 << 20)
    made.backup(disk)
    made.backup(disk)

    stat = made("stat", "--json").json

    assert (stat["points"], stat["items"], stat["chunks"]) == (2, 1, 4)
    assert (stat["logical_bytes"], stat["unique_bytes"], stat["deduplication"]) == (2 << 20, 1 << 20, 2.0)
    assert "deduplication:   2 times" in made("stat").out
    assert made("rebuild-index", "--json").json == {"chunks": 4}
    assert made("rebuild-index").out == "the index holds 4 chunks\n"


def test_diff_of_disks(made: Cli) -> None:
    disk = made.disk(1 << 20)
    first = made.backup(disk)
    with disk.open("r+b") as file:
        file.seek(300 << 10)
        file.write(b"changed")
    second = made.backup(disk)

    differing = made("diff", first["short"], second["short"], "--blocks", "--json").json

    assert differing["changes"] == [{"offset": 256 << 10, "length": 256 << 10}]
    assert "256 KiB in 1 ranges" in made("diff", first["short"], "latest", "--blocks").out
    assert made("diff", "latest", "latest", "--blocks").out == made("diff", "latest", "latest").out == "no difference\n"
    size = 1 << 20
    assert made("diff", first["short"], "latest", "--json").json["changes"] == [
        {"path": "disk.img", "difference": "content", "size_before": size, "size_after": size}
    ]
