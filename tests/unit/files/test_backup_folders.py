# SPDX-License-Identifier: Apache-2.0
"""Open directories: few at once, the same ones when they are opened again, and never by way of a link."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from keepstone.env import FileSystem
from keepstone.workloads.files.backup.folders import Folder, Folders

pytestmark = pytest.mark.store


@pytest.fixture
def root(tmp_path: Path) -> Folder:
    path = tmp_path
    for level in range(12):
        path = path / f"d{level}"
        path.mkdir()
    status = tmp_path.stat()
    return Folder(None, os.fsencode(tmp_path), status.st_dev, status.st_ino, os.open(tmp_path, os.O_RDONLY))


def enter(folders: Folders, above: Folder, name: bytes) -> Folder:
    fd = folders.pin(above)
    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
    folders.unpin(above)
    return folders.enter(above, name, status.st_dev, status.st_ino)


def way_down(folders: Folders, root: Folder) -> list[Folder]:
    """All directories, entered one in the other and not pinned any more."""
    way = [root]
    for level in range(12):
        way.append(enter(folders, way[-1], b"d%d" % level))
        folders.unpin(way[-1])
    return way[1:]


def opened() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_no_more_than_the_limit_is_open_and_each_can_be_used(root: Folder) -> None:
    folders = Folders(FileSystem(), root, 4)
    before = opened()
    way = way_down(folders, root)

    assert opened() - before <= 3
    for level, folder in enumerate(reversed(way)):
        fd = folders.pin(folder)
        assert os.fstat(fd).st_ino == folder.inode
        assert os.listdir(fd) == ([f"d{12 - level}"] if level else [])
        folders.unpin(folder)
        assert opened() - before <= 4
    for folder in way:
        folders.release(folder)
    assert opened() == before
    folders.close()
    assert opened() == before - 1


def test_what_is_pinned_stays_open(root: Folder) -> None:
    folders = Folders(FileSystem(), root, 3)
    first = enter(folders, root, b"d0")
    fd = first.fd

    way_down(folders, root)

    assert first.fd == fd
    assert os.fstat(fd).st_ino == first.inode
    folders.leave(first)
    assert first.fd == -1
    folders.close()


def test_a_folder_that_nobody_holds_is_closed_after_its_use(root: Folder) -> None:
    folders = Folders(FileSystem(), root, 3)
    folder = enter(folders, root, b"d0")
    before = opened()
    folders.leave(folder)
    assert opened() == before - 1

    folders.pin(folder)
    folders.unpin(folder)

    assert opened() == before - 1
    folders.close()


def test_what_lies_on_the_way_is_not_kept_open(root: Folder) -> None:
    folders = Folders(FileSystem(), root, 4)
    before = opened()
    way = way_down(folders, root)
    for folder in way[:-1]:
        folders.release(folder)
    deepest = way[-1]
    for _ in range(4):  # until it is closed for others
        folders.unpin(enter(folders, root, b"d0"))
    assert deepest.fd == -1

    folders.pin(deepest)

    assert os.fstat(deepest.fd).st_ino == deepest.inode
    assert [folder.fd for folder in way[:-1]] == [-1] * 11
    assert opened() - before <= 4
    folders.close()


def test_another_directory_in_its_place_is_not_taken_for_it(root: Folder, tmp_path: Path) -> None:
    folders = Folders(FileSystem(), root, 2)
    way = way_down(folders, root)
    before = opened()
    (tmp_path / "d0").rename(tmp_path / "moved")
    (tmp_path / "d0" / "d1").mkdir(parents=True)

    with pytest.raises(OSError, match="replaced") as caught:
        folders.pin(way[1])

    assert caught.value.errno == errno.ESTALE
    (tmp_path / "d0").rename(tmp_path / "other")
    (tmp_path / "d0").symlink_to("moved")
    with pytest.raises(NotADirectoryError):
        folders.pin(way[1])
    assert opened() == before
    (tmp_path / "d0").unlink()
    (tmp_path / "moved").rename(tmp_path / "d0")
    assert os.fstat(folders.pin(way[1])).st_ino == way[1].inode
    folders.close()


def test_a_link_is_not_entered(root: Folder, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("d0")
    folders = Folders(FileSystem(), root, 4)

    with pytest.raises(NotADirectoryError):
        enter(folders, root, b"link")

    folders.close()


def test_paths_for_people(root: Folder, tmp_path: Path) -> None:
    folders = Folders(FileSystem(), root, 4)
    folder = enter(folders, enter(folders, root, b"d0"), b"d1")

    assert folder.path() == os.fsencode(tmp_path / "d0" / "d1")
    assert folder.path(b"x") == os.fsencode(tmp_path / "d0" / "d1" / "x")
    assert root.path() == os.fsencode(tmp_path)
    assert Folder(None, b"/", 0, 0, -1).path(b"x") == b"/x"
    folders.close()


def test_many_threads(root: Folder) -> None:
    folders = Folders(FileSystem(), root, 4)
    way = way_down(folders, root)
    wrong: list[BaseException] = []

    def use(seed: int) -> None:
        try:
            for turn in range(300):
                folder = way[(seed * 7 + turn * 5) % len(way)]
                fd = folders.pin(folder)
                assert os.fstat(fd).st_ino == folder.inode
                folders.unpin(folder)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    folders.close()
