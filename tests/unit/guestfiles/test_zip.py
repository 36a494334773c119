# SPDX-License-Identifier: Apache-2.0
"""Folders of a disk as a zip, read back by what did not write it."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from keepstone.env import Env
from keepstone.errors import NotFound
from keepstone.workloads import Silent
from keepstone.workloads.files import RestoreOptions, restore_files
from keepstone.workloads.files.restore.zip import write_zip
from tests.unit.guestfiles.filesystems import (
    MIB,
    UNICODE,
    ext,
    looked_into,
    mounted_ntfs,
    need,
    noise,
    ntfs,
    plain_tree,
    run,
    sparse,
)

pytestmark = pytest.mark.vm


class OneWay:
    """A stream in which nobody can go back."""

    def __init__(self) -> None:
        self.data = io.BytesIO()

    def write(self, data: Any) -> int:
        return self.data.write(data)

    def flush(self) -> None:
        """Nothing waits."""


def test_a_folder(tmp_path: Path) -> None:
    tree = plain_tree(tmp_path / "tree")
    os.symlink("small.txt", tree / "link")
    os.link(tree / "small.txt", tree / "twin")
    (tree / "small.txt").chmod(0o750)
    with sparse(tree / "holes", 20 * MIB).open("r+b") as file:
        file.seek(7 * MIB)
        file.write(noise(3 * MIB))
    for number in range(2500):
        (tree / "folder" / f"{number:04}").write_bytes(b"%d" % number)
    out = OneWay()
    with looked_into(ext(tmp_path / "image", tree, 64 * MIB)) as found:
        report = write_zip(found.reader, [b"0"], out, Silent())  # type: ignore[arg-type] # that is the point
        with pytest.raises(NotFound):
            write_zip(found.reader, [b"0/none"], OneWay(), Silent())  # type: ignore[arg-type]
    assert report.failed == []
    (tmp_path / "a.zip").write_bytes(out.data.getvalue())
    with zipfile.ZipFile(out.data) as archive:
        assert archive.testzip() is None
        for path in tree.rglob("*"):
            name = f"0/{path.relative_to(tree)}"
            about = archive.getinfo(name + ("/" if path.is_dir() and not path.is_symlink() else ""))
            mode = about.external_attr >> 16
            if path.is_symlink():
                assert (stat.S_ISLNK(mode), archive.read(about)) == (True, b"small.txt")
            elif path.is_file():
                assert archive.read(about) == path.read_bytes()
                assert stat.S_IMODE(mode) == stat.S_IMODE(path.stat().st_mode)
        assert archive.getinfo(f"0/folder/{UNICODE}").flag_bits & 0x800  # said to be UTF-8
    need("busybox")
    tested = subprocess.run(["busybox", "unzip", "-t", tmp_path / "a.zip"], capture_output=True, check=False)
    assert tested.returncode == 0, tested.stderr


def test_streams_stay_behind(tmp_path: Path) -> None:
    image = ntfs(tmp_path / "image", 8 * MIB)
    with mounted_ntfs(image, tmp_path / "mnt") as folder:
        (folder / "file").write_bytes(b"main")
        (folder / "file:Zone.Identifier").write_bytes(b"zone")
        (folder / "elsewhere").write_bytes(b"x")
        compact = (0x80000017).to_bytes(4, "little") + b"\x04\0\0\0" + bytes(4)
        run("setfattr", "-h", "-v", "0x" + compact.hex(), "-n", "system.ntfs_reparse_data", folder / "elsewhere")
    out = OneWay()
    with looked_into(image) as found:
        report = write_zip(found.reader, [b"0"], out, Silent())  # type: ignore[arg-type]
        options = RestoreOptions(paths=(b"0",), xattrs=False)
        restored = restore_files(Env(), found.reader, tmp_path / "out", options, Silent())
    assert [path for path, _ in restored.failed] == [b"0/elsewhere"]
    assert sorted(os.listdir(tmp_path / "out" / "0")) == ["file", "file:Zone.Identifier"]
    with zipfile.ZipFile(out.data) as archive:
        assert archive.namelist() == ["0/", "0/file"]
    assert [path for path, _ in report.failed] == [b"0/elsewhere"]
    assert "streams" in report.warnings[0][1]
