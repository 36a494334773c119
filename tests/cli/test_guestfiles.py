# SPDX-License-Identifier: Apache-2.0
"""`keepstone store ls` and `restore` of files in the disks of points."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from tests.cli.running import Cli
from tests.unit.guestfiles.filesystems import MIB, UNICODE, ext, fat, need, partitioned, plain_tree, run, sparse

pytestmark = pytest.mark.vm


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = plain_tree(tmp_path / "tree")
    (root / "tool").write_bytes(b"#!")
    (root / "tool").chmod(0o4755)
    os.symlink("/etc/passwd", root / "link")
    return root


@pytest.fixture
def disk(tmp_path: Path, tree: Path, cli: Cli) -> Path:
    """A disk of two volumes and a partition of swap, of which there is a point."""
    need("mkfs.ext4", "mkfs.vfat", "mcopy", "sfdisk", "mkswap")
    (tmp_path / "dos").mkdir()
    (tmp_path / "dos" / "README.TXT").write_bytes(b"read me")
    linux, dos = ext(tmp_path / "ext", tree, 16 * MIB), fat(tmp_path / "fat", tmp_path / "dos", 40 * MIB)
    swap = sparse(tmp_path / "swap", MIB)
    run("mkswap", swap)
    script = "start=2048,size=32768\nstart=34816,size=81920\nstart=116736,size=2048"
    parts = {2048: linux, 34816: dos, 116736: swap}
    made = partitioned(tmp_path / "vm.img", "gpt", script, parts, 64 * MIB)
    cli.init()
    cli.backup(made)
    return made


def test_ls(cli: Cli, disk: Path, tree: Path) -> None:
    shown = cli("ls", "latest", "--json").json
    assert [one["path"] for one in shown["entries"]] == ["1", "2", "disk.img"]
    assert shown["entries"][0]["volume"] == {
        "name": "1", "partition": 1, "offset": MIB, "size": 16 * MIB, "filesystem": "ext4", "label": "linux",
    }  # fmt: skip
    assert [(one["name"], one["filesystem"]) for one in shown["other_volumes"]] == [("3", "swap")]
    said = cli("ls", "latest")
    assert '(ext4, "linux", 16 MiB)' in said.out
    assert "3: swap" in said.err
    for path in ("1", "/1/", f"{disk}/1"):
        listed = [one["path"] for one in cli("ls", "latest", path, "--json").json["entries"]]
        assert listed == sorted(f"1/{name}" for name in [*os.listdir(tree), "lost+found"])
    assert UNICODE in cli("ls", "latest", "1/folder").out
    (one,) = cli("ls", "latest", "2/README.TXT", "--json").json["entries"]
    assert (one["path"], one["size"]) == ("2/README.TXT", 7)
    (image,) = cli("ls", "latest", "disk.img", "--json").json["entries"]
    assert image["size"] == 64 * MIB
    assert "has no '3'" in cli("ls", "latest", "3", code=3).err


def test_restore(cli: Cli, disk: Path, tree: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    cli("restore", "latest", "1/folder", "/1/large.bin", "1/tool", "1/link", "2/README.TXT", "--target", target)
    assert (target / "1" / "large.bin").read_bytes() == (tree / "large.bin").read_bytes()
    assert (target / "1" / "folder" / UNICODE).read_bytes() == b"unicode"
    assert (target / "2" / "README.TXT").read_bytes() == b"read me"
    assert os.readlink(target / "1" / "link") == "/etc/passwd"
    assert stat.S_IMODE((target / "1" / "tool").stat().st_mode) == 0o755
    assert sorted(os.listdir(target / "1")) == ["folder", "large.bin", "link", "tool"]

    assert "not empty" in cli("restore", "latest", "1/empty", "--target", target, code=1).err
    (target / "1" / "large.bin").write_bytes(b"changed")
    cli("restore", "latest", "1/large.bin", "--target", target, "--in-place")
    assert (target / "1" / "large.bin").read_bytes() == (tree / "large.bin").read_bytes()
    assert "give --target" in cli("restore", "latest", "1/empty", "--in-place", code=2).err
    assert "has no '1/none'" in cli("restore", "latest", "1/none", "--target", tmp_path / "no", code=3).err
    assert "leads upwards" in cli("restore", "latest", "1/../..", "--target", tmp_path / "no", code=2).err

    cli("restore", "latest", "disk.img", "--target", tmp_path / "whole")
    assert (tmp_path / "whole" / "disk.img").read_bytes() == disk.read_bytes()


def test_find(cli: Cli, disk: Path) -> None:
    def found(*more: object, code: int = 0) -> list[str]:
        return [
            one["path"] for one in cli("find", "*.TXT", "1/folder/deep*/x", *more, "--json", code=code).json["found"]
        ]

    assert found("--point", "latest") == ["1/folder/deep/deeper/x", "2/README.TXT"]
    assert found("--item", disk) == found("--point", "latest")
    assert found(code=3) == []


def test_tar(cli: Cli, disk: Path, tree: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(cli.raw("restore", "latest", "1/folder", "--tar", "-"))) as tar:
        assert tar.getnames()[0] == "1/folder"
        content = tar.extractfile("1/folder/deep/deeper/x")
        assert content is not None
        assert content.read() == (tree / "folder" / "deep" / "deeper" / "x").read_bytes()
