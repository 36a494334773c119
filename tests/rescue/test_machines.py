# SPDX-License-Identifier: Apache-2.0
"""`rescue.py` restores every disk of a machine, and says what machine it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.machines.points import forged_machine, machine_point
from tests.rescue.bare import Bare, make_bare
from tests.rescue.test_rescue import NEEDED, Shelf, new_shelf
from tests.unit.images.disk import CHUNK, noise, sparse

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Bare:
    return make_bare(tmp_path_factory.mktemp("bare"), *NEEDED)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return new_shelf(tmp_path)


@pytest.fixture
def disks(tmp_path: Path) -> dict[str, Path]:
    return {
        "sda": sparse(tmp_path / "one", 9 * CHUNK + 777, {CHUNK: noise(2)}),
        "sdb": sparse(tmp_path / "two", 3 * CHUNK, {0: noise(1, 1)}),
        "nvram": sparse(tmp_path / "nvram", 5000, {7: b"variables"}),
    }


def test_a_machine_comes_back_as_it_was(bare: Bare, shelf: Shelf, disks: dict[str, Path], tmp_path: Path) -> None:
    machine_point(shelf.store, disks)

    ended = bare.rescue(shelf.place, "restore", "latest", tmp_path / "out", *shelf.key)

    assert (ended.returncode, ended.stderr) == (0, "")
    for name, path in disks.items():
        assert (tmp_path / f"out/{name}.raw").read_bytes() == path.read_bytes()
    about = json.loads((tmp_path / "out/machine.json").read_text())
    assert about["consistency"] == {"level": "crash", "reason": "no guest agent was named"}
    assert [(disk["name"], disk["size"], disk["file"]) for disk in about["disks"]] == [
        ("sda", 9 * CHUNK + 777, "sda.raw"),
        ("sdb", 3 * CHUNK, "sdb.raw"),
        ("nvram", 5000, "nvram.raw"),
    ]
    assert about["definition"] == {"qemu.json": {"name": {"name": "web"}}, "notes": "\\xffno JSON"}
    ended = bare.rescue(shelf.place, "verify", *shelf.key)
    assert ended.returncode == 0
    assert "1 points with 7 nodes; 0 problems" in ended.stdout


def test_of_a_damaged_machine_the_other_disks_come_back(
    bare: Bare, shelf: Shelf, disks: dict[str, Path], tmp_path: Path
) -> None:
    shelf.put_image(disks["sdb"])  # so that what it consists of lies in another pack
    before = set(shelf.place.glob("packs/*/*"))
    machine_point(shelf.store, disks)
    damaged = max(set(shelf.place.glob("packs/*/*")) - before, key=lambda path: path.stat().st_size)
    damaged.chmod(0o600)
    damaged.write_bytes(bytes(damaged.stat().st_size))

    ended = bare.rescue(shelf.place, "restore", "latest", tmp_path / "out", *shelf.key)

    assert ended.returncode == 4
    assert "sda.raw is left out" in ended.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["machine.json", "sdb.raw"]
    assert (tmp_path / "out/sdb.raw").read_bytes() == disks["sdb"].read_bytes()


@pytest.mark.parametrize("name", ["../sda", "/tmp/sda", "", "sda\n", "machine.json/x"])
def test_a_name_that_is_none_is_refused(bare: Bare, shelf: Shelf, tmp_path: Path, name: str) -> None:
    body = {"name": "web", "disks": [{"name": name, "size": 0}], "definition": {}}
    forged_machine(shelf.store, body, 1)

    ended = bare.rescue(shelf.place, "restore", "latest", tmp_path / "out", *shelf.key)

    assert ended.returncode == 1
    assert "the point is forged" in ended.stderr
    assert list((tmp_path / "out").iterdir()) == []
    assert not list(tmp_path.glob("sda*"))


def test_a_machine_with_too_few_disks_is_refused(bare: Bare, shelf: Shelf, tmp_path: Path) -> None:
    body = {"name": "web", "disks": [{"name": "sda", "size": 0}, {"name": "sdb", "size": 0}], "definition": {}}
    forged_machine(shelf.store, body, 1)

    ended = bare.rescue(shelf.place, "restore", "latest", tmp_path / "out", *shelf.key)

    assert ended.returncode == 1
