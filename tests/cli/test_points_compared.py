# SPDX-License-Identifier: Apache-2.0
"""`keepstone store diff` and `find --versions` of disks and folders, and `keepstone find` and `diff` of a service."""

from __future__ import annotations

import json
import os
import zipfile
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.cli.answering import Answering
from tests.cli.running import Cli
from tests.unit.guestfiles.changing import edited, overwritten
from tests.unit.guestfiles.filesystems import MIB, ext, need, noise

_numbers = count(1)
TOLD = b"content that a file has, once\n"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    need("mkfs.ext4", "debugfs")
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc" / "fstab").write_bytes(b"# none")
    (tree / "told").write_bytes(TOLD)
    (tree / "large").write_bytes(noise(MIB))
    return ext(tmp_path / "vm.img", tree, 8 * MIB)


def changed(disk: Path) -> Path:
    return edited(disk, "rm etc/fstab", "set_inode_field large mode 0100600", f"write {__file__} etc/new")


# ---------------------------------------------------------------------- a store


@pytest.mark.vm
def test_diff_of_disks(made: Cli, disk: Path) -> None:
    first = made.backup(disk)["short"]
    overwritten(changed(disk), TOLD, TOLD.upper())
    made.backup(disk)

    def differences(*more: object, code: int = 0) -> dict[str, str]:
        found = made("diff", first, "latest", *more, "--json", code=code).json["changes"]
        return {one["path"]: one["difference"] for one in found}

    assert differences() == {
        "0/etc/fstab": "removed", "0/etc/new": "added", "0/large": "metadata", "disk.img": "content"
    }  # fmt: skip
    assert differences("--content") == {**differences(), "0/told": "content"}
    assert differences("--path", "0/etc") == {"0/etc/fstab": "removed", "0/etc/new": "added"}
    assert list(differences("--path", f"{disk}/0/large")) == ["0/large"]
    lines = made("diff", first, "latest").out.splitlines()
    assert lines[:3] == ["- 0/etc/fstab", "+ 0/etc/new", "m 0/large"]
    assert lines[-1] == "1 removed, 1 added, 1 metadata, 1 content"
    assert made("diff", "latest", "latest").out == "no difference\n"
    assert made("diff", first, "latest", "--path", "0/no", "--json", code=3).error == "ResourceNotFound"
    assert made("diff", first, "latest", "--blocks", "--path", "0", "--json", code=2).error == "BadRequest"
    assert made("diff", first, "latest", "--blocks", "--json").json["changes"][0]["length"] % 4096 == 0


@pytest.mark.vm
def test_a_file_system_that_one_point_cannot_show(made: Cli, disk: Path) -> None:
    first = made.backup(disk)["short"]
    with disk.open("r+b") as file:
        file.seek(1024)
        file.write(b"\xff" * 56 + b"\x53\xef")
    made.backup(disk)

    ended = made("diff", first, "latest", code=4)

    assert ended.out.splitlines()[0] == "M disk.img"
    assert "0: it is not compared" in ended.err


@pytest.mark.vm
def test_versions_on_disks(made: Cli, disk: Path) -> None:
    first = made.backup(disk)
    edited(disk, "set_inode_field told mtime 20300101000000")
    made.backup(disk)
    last = made.backup(disk)

    found = made("find", "told", "large", "--item", disk, "--versions", "--json").json["versions"]

    assert [(one["path"], one["from"]["point"], one["until"]["point"], one["points"]) for one in found] == [
        ("0/large", first["id"], last["id"], 3),
        ("0/told", first["id"], first["id"], 1),
        ("0/told", found[2]["from"]["point"], last["id"], 2),
    ]
    assert found[2]["modified"] == "2030-01-01T00:00:00Z"
    shown = made("find", "0/told", "--item", disk, "--versions").out.splitlines()
    assert shown[0] == str(disk)
    assert shown[1].split() == ["size", "modified", "from", "until", "points", "path"]
    assert [line.split()[-2:] for line in shown[2:]] == [["1", "0/told"], ["2", "0/told"]]
    assert made("find", "none", "--item", disk, "--versions", "--json", code=3).json == {"versions": []}


@pytest.mark.store
def test_versions_of_files(made: Cli) -> None:
    """What was put back as it was is the same version, in more points."""
    tree = made.path / "tree"
    tree.mkdir()
    path = tree / "file"
    for content in (b"first", b"second", b"third", b"first"):
        path.write_bytes(content)
        os.utime(path, ns=(1, 10**18 if content != b"second" else 2 * 10**18))
        made.backup(tree)
    ids = [point["id"] for point in made.points()]

    found = made("find", "file", "--versions", "--json").json["versions"]

    assert [(one["size"], one["from"]["point"], one["until"]["point"], one["points"]) for one in found] == [
        (5, ids[0], ids[3], 2),
        (6, ids[1], ids[1], 1),
        (5, ids[2], ids[2], 1),
    ]


# ---------------------------------------------------------------------- a service


@pytest.fixture
def vault(service: Answering, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> str:
    """The vault that the commands of this test mean."""
    monkeypatch.setenv("KEEPSTONE_DATA", str(service.root))
    name = f"group{next(_numbers)}"
    cli.run("group", "create", "-n", name)
    monkeypatch.setenv("KEEPSTONE_GROUP", name)
    cli.run("vault", "create", "-g", name, "-n", "v1")
    return name


def run(cli: Cli, *arguments: object, code: int = 0) -> Any:
    return json.loads(cli.run(*arguments, "-o", "json", code=code).out)


def properties(found: Any, *keys: str) -> list[tuple[Any, ...]]:
    return [tuple(one["properties"][key] for key in keys) for one in found]


@pytest.mark.service
def test_find_and_diff_in_a_service(cli: Cli, vault: str, disk: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "fstab").write_bytes(b"mine")
    (folder / "odd\\name").write_bytes(b"odd")
    cli.run("protection", "enable", "--path", folder)
    cli.run("protection", "enable", "--path", disk, "--disk")
    for item in (folder, disk):
        cli.run("protection", "backup-now", "-i", item)
    changed(disk)
    (folder / "fstab").write_bytes(b"changed")
    for item in (folder, disk):
        cli.run("protection", "backup-now", "-i", item)

    everywhere = run(cli, "find", "fstab")
    assert sorted((one["item"], one["properties"]["path"]) for one in everywhere) == [
        (str(folder), "fstab"), (str(folder), "fstab"), (str(disk), "0/etc/fstab")
    ]  # fmt: skip
    versions = run(cli, "find", "fstab", "--item", folder, "--versions")
    assert properties(versions, "size") == [(4,), (7,)]
    assert [one["points"] for one in versions] == [1, 1]
    assert versions[0]["from"] == versions[0]["until"]
    (large,) = run(cli, "find", "0/told", "-i", disk, "--versions")
    assert large["points"] == 2
    assert large["from"]["recoveryPointTime"] < large["until"]["recoveryPointTime"]
    assert properties(run(cli, "find", "odd\\name", "-i", folder, "--versions"), "path") == [("odd\\\\name",)]
    assert run(cli, "find", "none", code=3) == []
    shown = cli.run("find", "fstab", "-i", folder, "--versions").out.splitlines()
    assert shown[0].split() == ["item", "size", "modified", "from", "until", "points", "last", "point", "path"]

    points = [one["name"] for one in reversed(run(cli, "recoverypoint", "list", "-i", disk))]
    differing = run(cli, "diff", "-i", disk, points[0], "latest")
    assert properties(differing, "path", "difference") == [
        ("0/etc/fstab", "removed"), ("0/etc/new", "added"), ("0/large", "metadata"), ("disk.img", "content")
    ]  # fmt: skip
    assert properties(run(cli, "diff", "-i", disk, "latest", points[0], "--path", "0/etc"), "difference") == [
        ("added",), ("removed",)
    ]  # fmt: skip
    ended = cli.run("diff", "-i", disk, *points)
    assert [line.split()[0] for line in ended.out.splitlines()[1:]] == ["-", "+", "m", "M"]
    assert "1 removed, 1 added, 1 metadata, 1 content" in ended.err
    assert run(cli, "diff", "-i", disk, points[0], points[0]) == []
    assert run(cli, "diff", "-i", disk, *points, "--path", "no", code=3)["error"]["code"] == "ResourceNotFound"


@pytest.mark.service
def test_a_folder_of_a_disk_as_a_zip(cli: Cli, vault: str, disk: Path, tmp_path: Path) -> None:
    cli.run("protection", "enable", "--path", disk, "--disk")
    cli.run("protection", "backup-now", "-i", disk)
    for target, more in (("etc.zip", ()), ("etc", ("--format", "zip"))):
        cli.run("recoverypoint", "download", "-i", disk, "latest", "0/etc", "--target", tmp_path / target, *more)
        with zipfile.ZipFile(tmp_path / target) as archive:
            assert archive.read("0/etc/fstab") == b"# none"
