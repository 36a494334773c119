# SPDX-License-Identifier: Apache-2.0
"""`keepstone policy`: made, changed, and tried on the points that there are before it is changed."""

from __future__ import annotations

import io
import json
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from keepstone.catalogue import points
from tests.cli.answering import Answering
from tests.cli.running import Cli, Ended
from tests.cli.services import until

pytestmark = pytest.mark.service
_numbers = count(1)


@pytest.fixture
def vault(service: Answering, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("KEEPSTONE_DATA", str(service.root))
    group = f"group{next(_numbers)}"
    monkeypatch.setenv("KEEPSTONE_GROUP", group)
    cli.run("group", "create", "-n", group)
    cli.run("vault", "create", "-n", "v1")
    return "v1"


@pytest.fixture
def item(service: Answering, cli: Cli, vault: str, tmp_path: Path) -> str:
    """A folder with two points, the older one of ten days ago."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.txt").write_text("first")
    cli.run("protection", "enable", "--path", folder)
    cli.run("protection", "backup-now", "-i", folder)
    (first,) = found(cli.run("recoverypoint", "list", "-i", folder, "--json"))
    with service.plane.database.change() as connection:
        made = service.plane.env.utc() - timedelta(days=10)
        values = {"made": made, "until": made + timedelta(days=30)}
        connection.execute(points.update().where(points.c.name == first["name"]).values(**values))
    cli.run("protection", "backup-now", "-i", folder)
    return str(folder)


def found(ended: Ended) -> Any:
    return json.loads(ended.out.splitlines()[-1])


def days(cli: Cli, number: int) -> str:
    """FilesPolicy, with points kept for so many days."""
    document = found(cli.run("policy", "show", "-n", "FilesPolicy", "--json"))
    document["properties"]["retentionPolicy"]["dailySchedule"]["retentionDuration"]["count"] = number
    return json.dumps(document)


def test_a_policy_comes_and_goes(cli: Cli, vault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "policy.json").write_text(days(cli, 7))
    cli.run("policy", "create", "-n", "Weekly-1", "--policy", "@policy.json")
    assert cli.run("policy", "create", "-n", "weekly-1", "--policy", "@policy.json", code=1)
    assert "7 days" in cli.run("policy", "show", "-n", "Weekly-1").out
    monkeypatch.setattr("sys.stdin", io.StringIO(days(cli, 8)))
    cli.run("policy", "set", "-n", "Weekly-1", "--policy", "-")
    assert "8 days" in cli.run("policy", "list", "--backup-management-type", "MAB").out
    assert cli.run("policy", "list", "--backup-management-type", "MAB", "--query", "length(@)").out == "2\n"
    (tmp_path / "x").mkdir()
    cli.run("protection", "enable", "--path", "x", "-p", "Weekly-1")
    dry = found(cli.run("policy", "delete", "-n", "Weekly-1", "--dry-run", "--json"))
    assert dry["refused"] == [f"the item {tmp_path / 'x'}"]
    assert cli.run("policy", "delete", "-n", "Weekly-1", code=1)
    cli.run("item", "set-policy", "-i", "x", "-p", "FilesPolicy")
    assert found(cli.run("item", "list", "-p", "Weekly-1", "--json")) == []
    cli.run("policy", "delete", "-n", "Weekly-1")
    assert cli.run("policy", "set", "-n", "Weekly-1", "--policy", "@policy.json", "--json", code=3)


def test_a_change_is_tried_before_it_is_made(cli: Cli, item: str) -> None:
    tried = cli.run("policy", "what-if", "-n", "FilesPolicy", "--policy", days(cli, 5))
    lines = tried.out.splitlines()
    assert len(lines) == 3
    assert "lost" in lines[1]
    assert "shortened" in lines[2]
    assert "1 would go, 1 end earlier" in tried.err
    assert "come free" in tried.err
    assert "the longest gap between runs would be 1,440 minutes" in tried.err
    assert "0 of 1 items" in tried.err
    dry = found(cli.run("policy", "set", "-n", "FilesPolicy", "--policy", days(cli, 5), "--dry-run", "--json"))
    assert {key: dry["properties"][key] for key in ("kept", "lost", "shortened", "lengthened")} == {
        "kept": 0, "lost": 1, "shortened": 1, "lengthened": 0,
    }  # fmt: skip
    assert "30 days" in cli.run("policy", "show", "-n", "FilesPolicy").out
    assert len(found(cli.run("recoverypoint", "list", "-i", item, "--json"))) == 2

    cli.run("policy", "set", "-n", "FilesPolicy", "--policy", days(cli, 5), "--yes")
    cli.run("protection", "backup-now", "-i", item)
    lost = dry["properties"]["items"][0]["points"][0]["name"]

    def left() -> list[str]:
        return [point["name"] for point in found(cli.run("recoverypoint", "list", "-i", item, "--json"))]

    until(lambda: lost not in left(), "what is over goes, when the job has ended")
    assert len(left()) == 2


def test_a_longer_policy_costs_no_point(cli: Cli, item: str) -> None:
    tried = cli.run("policy", "what-if", "-n", "FilesPolicy", "--policy", days(cli, 60))
    assert tried.out == ""
    assert "0 would go, 0 end earlier and 2 later" in tried.err


def test_when_policies_run_is_shown(cli: Cli, vault: str) -> None:
    document = json.loads(days(cli, 7))
    document["properties"]["timeZone"] = "Tokyo Standard Time"
    cli.run("policy", "create", "-n", "Tokyo", "--policy", json.dumps(document))
    shown = cli.run("policy", "runs", "-n", "tokyo").out.splitlines()
    assert len(shown) == 11
    assert "T16:00+09:00" in shown[1]
    assert "T07:00:00Z" in shown[1]
    assert [one["name"] for one in found(cli.run("policy", "runs", "--json"))] == [
        "DefaultPolicy", "EnhancedPolicy", "FilesPolicy", "HourlyLogBackup", "Tokyo",
    ]  # fmt: skip
    assert cli.run("policy", "runs", "-n", "none", code=3)


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ("{", "holds no JSON"),
        ("[]", "holds no policy"),
        ('{"properties": 1}', "holds no policy"),
        ("@nothing", "No such file"),
        ('{"backupManagementType": "MAB"}', "schedulePolicy"),
    ],
)
def test_what_is_no_policy(cli: Cli, vault: str, policy: str, says: str) -> None:
    assert says in cli.run("policy", "what-if", "-n", "FilesPolicy", "--policy", policy, code=2).err
