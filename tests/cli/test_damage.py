# SPDX-License-Identifier: Apache-2.0
"""A damaged store: what verify says, and what still works."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.running import Cli

pytestmark = pytest.mark.store


def flip(path: Path, at: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 1
    path.write_bytes(data)


def test_whole_store_is_whole(made: Cli) -> None:
    made.backup(made.disk())

    for options in ((), ("--deep",)):
        verified = made("verify", *options, "--json").json
        assert (verified["ok"], verified["findings"], verified["points"]) == (True, [], 1)
        assert verified["deep"] is bool(options)
        assert "the store is whole" in made("verify", *options).out


def test_flipped_bit_is_found_by_a_deep_look(made: Cli) -> None:
    made.backup(made.disk())
    flip(made.packs()[0], 0.3)

    ended = made("verify", "--deep", "--json", code=1)

    assert ended.json["ok"] is False
    assert ended.json["findings"][0]["object"].startswith("packs/")
    assert "DAMAGED packs/" in made("verify", "--deep", code=1).out


def test_missing_pack_is_found_and_names_the_points(made: Cli) -> None:
    point = made.backup(made.disk())
    made.packs()[0].unlink()

    ended = made("verify", "--json", code=1)

    assert ended.json["damaged_points"] == [point["id"]]


def test_damaged_point_is_a_warning_where_others_are_listed(made: Cli) -> None:
    disk = made.disk()
    made.backup(disk)
    good = made.backup(disk, "--item", "good")
    (bad,) = [path for path in (made.store / "commits").iterdir() if path.name != good["id"]]
    flip(bad)

    ended = made("list", "--json", code=4)

    assert [point["id"] for point in ended.json["points"]] == [good["id"]]
    assert ended.json["warning_count"] == 1
    assert bad.name in ended.json["warnings"][0]["message"]
    assert made("restore", "latest", "--target", "new", "--json").json["point"] == good["id"]


def test_point_with_warnings_is_good_and_ends_with_4(made: Cli) -> None:
    disk = made.disk()
    made.backup(disk)
    made.packs()[-1].unlink()  # the first point's manifest

    ended = made("backup", disk, "--json", code=4)

    (point,) = ended.json["points"]
    assert point["warnings"] == ended.json["warning_count"] == 1
    assert ended.json["warnings"][0]["path"] == str(disk)
    assert "warning: " in ended.err
    made("restore", point["short"], "--target", "new")
    assert Path("new").read_bytes() == disk.read_bytes()


@pytest.mark.parametrize(
    ("content", "code", "error"),
    [
        (b"", 1, "CorruptObject"),
        (b"{}", 1, "CorruptObject"),
        (b'{"magic": "another tool", "format": 1}', 1, "UnsupportedFormat"),
        (b'{"magic": "keepstone store", "format": 2}', 1, "UnsupportedFormat"),
        (None, 10, "StoreMissing"),
    ],
)
def test_foreign_newer_or_damaged_store_is_named_as_such(
    made: Cli, content: bytes | None, code: int, error: str
) -> None:
    descriptor = made.store / "keepstone.json"
    descriptor.unlink()
    if content is not None:
        descriptor.write_bytes(content)

    for verb in ("list", "stat", "verify"):
        assert made(verb, "--json", code=code).error == error


def test_lost_point_is_given_up(made: Cli) -> None:
    """Verify and reclaim name the command; it does nothing without being told which, and to a point that is there."""
    disk = made.disk()
    lost = made.backup(disk)["id"]
    good = made.backup(made.disk(seed=1), "--item", "good")["id"]
    dead = made.backup(made.disk(seed=2), "--item", "dead")["id"]
    made("forget", dead, "--purge")
    (made.store / "commits" / lost).unlink()
    command = f"keepstone store forget --lost {lost}"

    assert command in made("verify", code=1).out
    refused = made("reclaim", "--json", code=3)
    assert (refused.error, command in refused.json["error"]["message"]) == ("ObjectMissing", True)
    for wrong in ((), (good,), (lost, "--purge"), (lost, "--item", "good"), ("--keep-last", "1")):
        made("forget", "--lost", *wrong, "--json", code=3 if wrong == (good,) else 2)
    tried = made("forget", "--lost", lost, "--dry-run", "--json").json
    made("reclaim", code=3)

    done = made("forget", "--lost", lost[-32:], "--json").json

    assert tried == {"given_up": [lost], "dry_run": True}
    assert done == {"given_up": [lost], "dry_run": False}
    assert made("verify", "--deep", "--json").json["ok"] is True
    assert made("reclaim", "--json").json["packs_deleted"] == 4
    assert [point["id"] for point in made.points()] == [good]
    assert made("verify", "--deep", "--json").json["ok"] is True
