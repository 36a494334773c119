# SPDX-License-Identifier: Apache-2.0
"""`keepstone recoverypoint browse` and `download`: looking into points through the service, and files out of them."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest

from keepstone.cli.client import saving
from keepstone.control.browsing import Look
from keepstone.errors import CorruptObject
from tests.cli.answering import Answering
from tests.cli.running import Cli, noise

pytestmark = pytest.mark.service
_numbers = count(1)
LARGE = noise(5_000_000)


@pytest.fixture
def tree(service: Answering, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is backed up in the vault that the commands of this test mean."""
    monkeypatch.setenv("KEEPSTONE_DATA", str(service.root))
    name = f"group{next(_numbers)}"
    cli.run("group", "create", "-n", name)
    monkeypatch.setenv("KEEPSTONE_GROUP", name)
    cli.run("vault", "create", "-g", name, "-n", "v1")
    root = tmp_path / "tree"
    (root / "inner" / "deep").mkdir(parents=True)
    (root / "large").write_bytes(LARGE)
    (root / "inner" / "line\nbreak").write_bytes(b"x")
    (root / "inner" / "back\\slash").write_bytes(b"y")
    os.symlink("../large", root / "inner" / "link")
    cli.run("protection", "enable", "--path", root)
    cli.run("protection", "backup-now", "-i", root)
    return root


def browse(cli: Cli, tree: Path, *more: object, code: int = 0) -> Any:
    return json.loads(cli.run("recoverypoint", "browse", "-i", tree, "latest", *more, "-o", "json", code=code).out)


def paths(entries: Any) -> list[str]:
    return [one["properties"]["path"] for one in entries]


def download(cli: Cli, tree: Path, *more: object, code: int = 0) -> Any:
    return cli.run("recoverypoint", "download", "-i", tree, "latest", *more, code=code)


def test_browse(cli: Cli, tree: Path) -> None:
    assert paths(browse(cli, tree)) == ["inner", "large"]
    inner = ["inner/back\\\\slash", "inner/deep", "inner/line\\nbreak", "inner/link"]
    for path in ("inner", "/inner/", tree / "inner"):
        assert paths(browse(cli, tree, path)) == inner
    for path in ("inner/line\nbreak", "inner/line\\nbreak", "inner/back\\slash", "inner/back\\\\slash"):
        assert len(browse(cli, tree, path)) == 1
    assert paths(browse(cli, tree, "--find", "*e*")) == ["inner", "inner/deep", "inner/line\\nbreak", "large"]
    assert paths(browse(cli, tree, "inner", "--find", "l*")) == ["inner/line\\nbreak", "inner/link"]
    shown = cli.run("recoverypoint", "browse", "-i", tree, "latest", "inner").out
    assert "inner/link -> ../large" in shown
    assert "inner/line\\nbreak" in shown
    assert browse(cli, tree, "none", code=3)["error"]["code"] == "ResourceNotFound"


def test_download(cli: Cli, tree: Path, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    download(cli, tree, "large", "--target", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == LARGE
    assert (tmp_path / "got").stat().st_mode & 0o777 == 0o600
    assert "is there already" in download(cli, tree, "large", "--target", tmp_path / "got", code=1).err
    assert download(cli, tree, "inner/line\nbreak").out == "x"
    assert download(cli, tree, "inner/back\\slash", "-q").out == "y"
    download(cli, tree, "inner", "--target", tmp_path / "inner.tar")
    with tarfile.open(tmp_path / "inner.tar") as tar:
        assert sorted(tar.getnames()) == [
            f"inner{one}" for one in ("", "/back\\slash", "/deep", "/line\nbreak", "/link")
        ]
    assert "check the path" in download(cli, tree, "large", "--target", tmp_path / "no" / "x", code=3).err
    assert not list(tmp_path.glob(".*.part"))


def test_a_disk(cli: Cli, tree: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1_000_000) + LARGE)
    cli.run("protection", "enable", "--path", disk, "--disk")
    cli.run("protection", "backup-now", "-i", disk)

    assert paths(browse(cli, disk)) == ["disk.img"]
    for number, path in enumerate(("", "disk.img", disk)):
        download(cli, disk, path, "--target", tmp_path / f"got{number}")
        assert (tmp_path / f"got{number}").read_bytes() == disk.read_bytes()


@pytest.fixture
def cuts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Every answer ends after a million bytes. What was asked for: (begin, end)."""
    asked: list[tuple[int, int]] = []
    real = Look.content

    def content(self: Look, path: bytes, begin: int, end: int) -> Iterator[bytes]:
        asked.append((begin, end))
        sent = 0
        for piece in real(self, path, begin, end):
            yield piece
            sent += len(piece)
            if sent >= 1_000_000:
                raise CorruptObject("cut")

    monkeypatch.setattr(Look, "content", content)
    monkeypatch.setattr(saving, "_PAUSE", 0.0)
    return asked


def test_what_is_cut_off_goes_on(cli: Cli, tree: Path, tmp_path: Path, cuts: list[tuple[int, int]]) -> None:
    download(cli, tree, "large", "--target", tmp_path / "got")

    assert (tmp_path / "got").read_bytes() == LARGE
    assert len(cuts) >= 5
    assert cuts[0] == (0, len(LARGE))
    assert all(one[0] < other[0] for one, other in pairwise(cuts))


def test_a_later_run_goes_on(
    cli: Cli, tree: Path, tmp_path: Path, cuts: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "_AWAY", -1.0)
    download(cli, tree, "large", "--target", tmp_path / "got", code=1)
    assert not (tmp_path / "got").exists()
    (part,) = tmp_path.glob(".got.*.part")
    came = part.stat().st_size
    assert 0 < came < len(LARGE)
    cuts.clear()
    monkeypatch.setattr(saving, "_AWAY", 60.0)

    download(cli, tree, "inner/back\\slash", "--target", tmp_path / "got2")  # of something else: nothing goes on
    download(cli, tree, "large", "--target", tmp_path / "got")

    assert (tmp_path / "got").read_bytes() == LARGE
    assert not part.exists()
    assert [begin for begin, _ in cuts][:2] == [0, came]
