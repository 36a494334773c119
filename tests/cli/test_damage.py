# SPDX-License-Identifier: Apache-2.0
"""A damaged store: what verify says, and what still works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.running import Cli, noise

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


def test_only_points_that_need_what_is_damaged_are_called_damaged(made: Cli) -> None:
    """The first file of a shared pack is damaged, and the second point is of the second file alone."""
    tree = made.path / "tree"
    tree.mkdir()
    for number in range(2):
        (tree / f"file{number}").write_bytes(noise(2 << 20, number))
    bad = made.backup(tree)
    (tree / "file0").unlink()
    made.backup(tree)
    data = made.packs()[0]
    flip(data, 0.1)

    ended = made("verify", "--deep", "--json", code=1)

    assert ended.json["damaged_points"] == [bad["id"]]
    assert [finding["object"] for finding in ended.json["findings"]] == [str(data.relative_to(made.store))]
    assert ended.json["bytes_read"] > 4 << 20
    made("restore", "latest", "--target", "new")
    assert (made.path / "new/file1").read_bytes() == (tree / "file1").read_bytes()


def test_damage_that_was_found_is_told_until_it_is_mended(made: Cli) -> None:
    """By the quick look too, in another process than the deep one: it is the nightly one."""
    made.backup(made.disk())
    whole = made.packs()[0].read_bytes()
    flip(made.packs()[0], 0.3)
    made("verify")  # which reads no data, and has not heard of it yet
    made("verify", "--deep", code=1)

    told = made("verify", code=1).out

    assert "the store is whole" not in told
    assert "its data has not been read since; `keepstone store verify --deep`" in told
    made.packs()[0].write_bytes(whole)
    made("verify", "--deep")
    assert "the store is whole" in made("verify").out


def test_damaged_points_are_told_wherever_all_are_looked_at(made: Cli) -> None:
    disk = made.disk()
    made.backup(disk)
    good = made.backup(made.disk(seed=1), "--item", "good")
    (bad,) = [path for path in (made.store / "commits").iterdir() if path.name != good["id"]]
    flip(bad)

    found = made("find", "x", "--json", code=4)
    stat = made("stat", "--json", code=4)

    for ended in (found, stat):
        assert bad.name in ended.json["warnings"][0]["message"]
        assert bad.name in ended.err
    assert (stat.json["points"], stat.json["packs"]) == (1, 4)
    made.packs()[0].write_bytes(b"")
    assert made("stat", "--json", code=4).json["warning_count"] >= 2


def test_data_that_is_damaged_does_not_stop_reclaim(made: Cli) -> None:
    """Only what it needs to see does: points, manifests, and what is in the packs."""
    disk = made.disk()
    made.backup(disk)
    made.backup(made.disk(seed=1), "--item", "dead")
    made("forget", "latest", "--purge")
    flip(made.packs()[0], 0.3)
    flip(made.packs()[1], 0.3)

    assert made("reclaim", "--json").json["packs_deleted"] == 2


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
        ended = made(verb, "--json", code=code)
        assert ended.error == error
        assert re.search("; (restore|use|check|make)|, or make", ended.err), "no next step"


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
