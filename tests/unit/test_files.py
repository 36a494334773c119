# SPDX-License-Identifier: Apache-2.0
"""Small files and folders by the file calls of an `Env`: what is there, what is durable, what a failure leaves."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keepstone.env import Env, FileSystem
from keepstone.errors import AccessDenied, AlreadyExists, NotFound, StorageFull
from keepstone.files import (
    exists,
    have_folders,
    is_folder,
    make_folder,
    make_folders,
    names_in,
    read_file,
    remove_file,
    write_new,
)
from keepstone.objects import write_private
from tests.tampered import Tampered, failing_at, fails

FS = FileSystem()


def test_what_there_is(tmp_path: Path) -> None:
    file, folder, link, loop = (tmp_path / name for name in ("file", "folder", "link", "loop"))
    file.write_bytes(b"x")
    folder.mkdir()
    link.symlink_to(folder)
    loop.symlink_to(loop)
    (tmp_path / "dangling").symlink_to("nowhere")

    assert all(exists(FS, path) for path in (file, folder, link))
    assert not any(exists(FS, path) for path in (tmp_path / "no", file / "below"))
    assert [is_folder(FS, path) for path in (file, folder, link, tmp_path / "no")] == [False, True, True, False]
    for path in (loop, tmp_path / "dangling"):
        assert not exists(FS, path)
        assert not is_folder(FS, path)
        assert exists(FS, path, follow=False)


def test_what_cannot_be_seen_is_not_missing(tmp_path: Path) -> None:
    fs = Tampered(stat=fails(errno.EACCES))

    for ask in (exists, is_folder):
        with pytest.raises(PermissionError):
            ask(fs, tmp_path)


def test_names_in(tmp_path: Path) -> None:
    for name in ("b-2", "b-1", "a"):
        (tmp_path / name).touch()

    assert names_in(FS, tmp_path) == ["a", "b-1", "b-2"]
    assert names_in(FS, tmp_path, "b-") == ["b-1", "b-2"]
    assert names_in(FS, tmp_path / "no") == names_in(FS, tmp_path / "a") == []


def test_read_file(tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    (tmp_path / "file").write_bytes(data)
    os.mkfifo(tmp_path / "fifo")

    assert read_file(FS, tmp_path / "file") == data
    assert read_file(Tampered(read=lambda fd, size: os.read(fd, min(size, 1000))), tmp_path / "file") == data
    assert read_file(FS, tmp_path / "fifo") == b""
    with pytest.raises(FileNotFoundError):
        read_file(FS, tmp_path / "no")


def test_a_new_file_is_durable_and_so_are_its_folders(tmp_path: Path) -> None:
    fs, synced = _syncing()
    write_new(fs, tmp_path / "a" / "b" / "file", b"secret")

    assert synced == [tmp_path.name, "a", "file", "b"]
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"secret"
    assert (tmp_path / "a" / "b" / "file").stat().st_mode & 0o777 == 0o600
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "a", tmp_path / "a" / "b")} == {0o700}
    with pytest.raises(FileExistsError):
        write_new(fs, tmp_path / "a" / "b" / "file", b"other")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"secret"


@pytest.mark.parametrize("call", ["write", "fsync", "close"])
def test_nothing_is_left_of_a_new_file_that_failed(tmp_path: Path, call: str) -> None:
    with pytest.raises(OSError, match="No space"):
        write_new(failing_at(call, 1, errno.ENOSPC), tmp_path / "file", b"secret")

    assert list(tmp_path.iterdir()) == []


def test_every_byte_is_written_however_few_at_a_time(tmp_path: Path) -> None:
    fs = Tampered(write=lambda fd, data: os.write(fd, data[:3]))
    write_new(fs, tmp_path / "file", b"0123456789")

    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_remove_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for _ in range(2):
        remove_file(FS, tmp_path / "file")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [make_folder, make_folders])
def test_a_folder_that_is_there(tmp_path: Path, make: Callable[[FileSystem, Path], Any]) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    for path in (tmp_path, tmp_path / "link"):
        make(FS, path)
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(NotADirectoryError):
            make(FS, path)


def test_a_folder_that_is_there_is_made_durable_too(tmp_path: Path) -> None:
    """Who made it may not have lived to do so."""
    (tmp_path / "a").mkdir()
    fs, synced = _syncing()

    make_folder(fs, tmp_path / "a")
    make_folders(fs, tmp_path / "a" / "b" / "c")

    assert synced == [tmp_path.name, "a", "b"]
    make_folder(Tampered(open=fails(errno.EACCES)), tmp_path / "a")  # above it somebody else is at home
    with pytest.raises(OSError, match="Input/output"):
        make_folder(Tampered(fsync=fails(errno.EIO)), tmp_path / "a")


def test_a_folder_for_what_may_be_lost_costs_a_look(tmp_path: Path) -> None:
    fs, synced = _syncing()
    for _ in range(2):
        have_folders(fs, tmp_path / "a" / "b")

    assert synced == [tmp_path.name, "a"]
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        have_folders(fs, tmp_path / "file")


def _syncing() -> tuple[FileSystem, list[str]]:
    """A file system, and the names of what is synced by it."""
    synced: list[str] = []

    def fsync(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        os.fsync(descriptor)

    return Tampered(fsync=fsync), synced


def test_only_make_folders_makes_those_above(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        make_folder(FS, tmp_path / "a" / "b")
    make_folders(FS, tmp_path / "a" / "b")

    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize(
    ("fs", "name", "error"),
    [
        (FS, "there", AlreadyExists),
        (FS, "there/below", NotFound),
        (Tampered(fsync=fails(errno.ENOSPC)), "new", StorageFull),
        (Tampered(open=fails(errno.EACCES)), "new", AccessDenied),
    ],
)
def test_a_private_file_that_cannot_be_written_says_which(
    tmp_path: Path, fs: FileSystem, name: str, error: type[Exception]
) -> None:
    (tmp_path / "there").write_bytes(b"before")
    with pytest.raises(error, match=str(tmp_path / name)):
        write_private(Env(fs=fs), tmp_path / name, b"secret")

    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert (tmp_path / "there").read_bytes() == b"before"
