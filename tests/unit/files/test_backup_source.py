# SPDX-License-Identifier: Apache-2.0
"""What can be backed up and what not, which part of it, and what would be."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepstone.env import Env
from keepstone.errors import AccessDenied, KeepstoneError, SourceMissing, UsageError
from keepstone.workloads import Silent
from keepstone.workloads.files import Selection, dry_run
from tests.tampered import Tampered, fails
from tests.unit.files.backed import Backups, World, assert_like

pytestmark = pytest.mark.store

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do this")


@pytest.fixture
def backups() -> Backups:
    return Backups()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    for folder in ("build", "src/build", "src/cache", "docs/empty"):
        (path / folder).mkdir(parents=True)
        (path / folder / "made.o").write_bytes(b"object")
    (path / "docs" / "empty" / "made.o").unlink()
    (path / "src" / "main.c").write_text("main")
    (path / "src" / "keep.o").write_text("keep")
    (path / "docs" / "text.md").write_text("text")
    (path / "docs" / os.fsdecode(b"odd\xff.o")).write_text("odd")
    (path / "link.o").symlink_to("src/main.c")
    return path


def names(backups: Backups) -> list[str]:
    """What is in the newest point; folders end in a slash."""
    return [
        os.fsdecode(path) + ("/" if stat.S_ISDIR(seen.entry.mode) else "")
        for path, seen in sorted(backups.seen().items())
    ]


EVERYTHING = [
    "build/", "build/made.o", "docs/", "docs/empty/", "docs/odd\udcff.o", "docs/text.md", "link.o",
    "src/", "src/build/", "src/build/made.o", "src/cache/", "src/cache/made.o", "src/keep.o", "src/main.c",
]  # fmt: skip

INSIDE_SRC = [name for name in EVERYTHING if name.startswith("src/") and name != "src/"]
MARKDOWN_AND_KEPT = ("docs/", "docs/text.md", "src/", "src/keep.o")


@pytest.mark.parametrize(
    ("selection", "without"),
    [
        (Selection(), []),
        (Selection(exclude=["*.o"]), [name for name in EVERYTHING if name.endswith(".o")]),
        (Selection(exclude=["*.o", "!keep.o"]), [n for n in EVERYTHING if n.endswith(".o") and n != "src/keep.o"]),
        (Selection(exclude=["build/"]), ["build/", "build/made.o", "src/build/", "src/build/made.o"]),
        (Selection(exclude=["/build"]), ["build/", "build/made.o"]),
        (Selection(exclude=["src/*/made.o"]), ["src/build/made.o", "src/cache/made.o"]),
        (Selection(exclude=["src/**", "!src/main.c"]), [n for n in INSIDE_SRC if n != "src/main.c"]),
        (Selection(exclude=["build/", "!build/made.o"]), ["build/", "build/made.o", "src/build/", "src/build/made.o"]),
        (Selection(exclude=["# a remark", "", "link.*"]), ["link.o"]),
        (Selection(exclude=["empty"]), ["docs/empty/"]),
        (Selection(exclude=["odd?.o"]), ["docs/odd\udcff.o"]),
        (Selection(include=["*.md", "keep.o"]), [n for n in EVERYTHING if n not in MARKDOWN_AND_KEPT]),
        (Selection(include=["docs/"]), [n for n in EVERYTHING if n[:5] != "docs/"]),
        (Selection(include=["src"], exclude=["build"]), [n for n in EVERYTHING if n[:4] != "src/" or "build" in n]),
        (Selection(include=["nothing"]), EVERYTHING),
        (Selection(exclude=["!**"], never=["src"]), ["src/", *INSIDE_SRC]),
        (Selection(exclude=["!**", "!*.o"], always=["*.o"]), [name for name in EVERYTHING if name.endswith(".o")]),
        (Selection(include=["**"], never=["src/build"], always=["/docs/"]), [
            name for name in EVERYTHING if name.startswith(("docs/", "src/build/"))]),
    ],
    ids=repr,
)  # fmt: skip
def test_patterns(backups: Backups, source: Path, selection: Selection, without: list[str]) -> None:
    report = backups.run(source, selection)

    expected = [name for name in EVERYTHING if name not in without]
    assert names(backups) == expected
    assert report.directories == 1 + sum(name.endswith("/") for name in expected)
    assert report.files == sum(not name.endswith("/") for name in expected)
    again = backups.run(source, selection)
    assert (again.unchanged, backups.new_bytes) == (report.files, 0)
    backups.run(source)
    assert_like(backups.seen(), source)
    heard: list[bytes] = []
    dry = dry_run(backups.env, source, selection, Silent(), lambda path, _: heard.append(path))
    assert (dry.files, dry.directories, dry.bytes) == (report.files, report.directories, report.bytes)
    assert sorted(heard) == sorted(os.fsencode(source / name) for name in expected if not name.endswith("/"))


def test_patterns_out_of_files(backups: Backups, source: Path, tmp_path: Path) -> None:
    (tmp_path / "first").write_text("*.o\n# remark\n\n")
    (tmp_path / "second").write_bytes(b"!keep.o\r\ndocs\n")
    selection = Selection(exclude_from=[tmp_path / "first", str(tmp_path / "second")], exclude=["main.c"])

    backups.run(source, selection)

    assert names(backups) == ["build/", "src/", "src/build/", "src/cache/", "src/keep.o"]
    assert backups.detail().patterns == ["*.o", "# remark", "", "!keep.o", "docs", "main.c"]


@pytest.mark.parametrize(
    ("selection", "error", "named"),
    [
        (Selection(exclude=["fine", "**x\\"]), UsageError, "x"),
        (Selection(include=["!"]), UsageError, "!"),
        (Selection(exclude_from=["/no/such/file"]), SourceMissing, "/no/such/file"),
    ],
    ids=["pattern", "inclusion", "file"],
)
def test_patterns_that_are_none(
    backups: Backups, source: Path, selection: Selection, error: type[KeepstoneError], named: str
) -> None:
    with pytest.raises(error, match=named.replace("!", "[!]")):
        backups.run(source, selection)

    assert backups.store.points.list() == []


TAG = b"Signature: 8a477f597d28d172789f06886806bc55"


def test_caches(backups: Backups, source: Path) -> None:
    (source / "src" / "cache" / "CACHEDIR.TAG").write_bytes(TAG + b"\n# made by a test\n")
    (source / "build" / "CACHEDIR.TAG").write_bytes(b"Signature: something else")
    (source / "docs" / "CACHEDIR.TAG").symlink_to("../src/cache/CACHEDIR.TAG")

    report = backups.run(source, Selection(skip_caches=True))

    expected = sorted(
        [name for name in EVERYTHING if name != "src/cache/made.o"]
        + [f"{folder}/CACHEDIR.TAG" for folder in ("src/cache", "build", "docs")]
    )
    assert names(backups) == expected
    assert report.warnings == 0
    backups.run(source)
    assert_like(backups.seen(), source)


def test_the_source_itself_is_a_cache(backups: Backups, source: Path) -> None:
    (source / "CACHEDIR.TAG").write_bytes(TAG)

    backups.run(source, Selection(skip_caches=True))

    assert names(backups) == ["CACHEDIR.TAG"]


@pytest.fixture
def mounted(source: Path) -> Iterator[Path]:
    """Another file system beneath the source."""
    place = source / "src" / "cache"
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    try:
        (place / "far").mkdir()
        (place / "far" / "away").write_text("on a tmpfs")
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@needs_root
def test_one_file_system(backups: Backups, source: Path, mounted: Path) -> None:
    report = backups.run(source, Selection(one_file_system=True))

    assert names(backups) == [name for name in EVERYTHING if name != "src/cache/made.o"]
    assert backups.seen()[b"src/cache"].entry.mode == mounted.stat().st_mode
    assert backups.run(source, Selection(one_file_system=True)).unchanged == report.files
    backups.run(source)
    assert backups.seen()[b"src/cache/far/away"].content == b"on a tmpfs"
    assert_like(backups.seen(), source)
    backups.run(source, Selection(one_file_system=True))
    assert names(backups) == [name for name in EVERYTHING if name != "src/cache/made.o"]


def test_one_file(backups: Backups, tmp_path: Path) -> None:
    path = tmp_path / "only"
    path.write_bytes(b"content")
    (tmp_path / "beside").touch()
    os.setxattr(path, "user.x", b"1")

    report = backups.run(path)

    seen = backups.seen()
    assert list(seen) == [b"only"]
    assert seen[b"only"].content == b"content"
    assert seen[b"only"].entry.extra.xattrs == {b"user.x": b"1"}
    assert (report.files, report.directories, report.bytes) == (1, 0, 7)
    detail = backups.detail()
    assert (detail.single, detail.root) == (True, b"")
    assert backups.point().record.source == os.fsencode(path)
    assert backups.run(path).unchanged == 1


def test_a_source_that_is_a_link(backups: Backups, source: Path, tmp_path: Path) -> None:
    (tmp_path / "there").symlink_to(source)
    (tmp_path / "that").symlink_to("there/src/main.c")

    backups.run(tmp_path / "there")
    assert_like(backups.seen(), source)
    assert not backups.detail().single

    backups.run(tmp_path / "that")
    seen = backups.seen()
    assert {name: one.content for name, one in seen.items()} == {b"main.c": b"main"}


def test_ways_to_name_a_source(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    odd = tmp_path / os.fsdecode(b"\xff")
    source.rename(odd)
    for given in (odd, os.fsencode(odd), b"\xff/", Path(".") / odd.name, odd / ".." / odd.name):
        backups = Backups()
        backups.run(given)
        assert_like(backups.seen(), odd)
        assert backups.point().record.source == os.fsencode(odd)


def assert_refused(backups: Backups, source: Path, error: type[KeepstoneError]) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(error) as caught:
        backups.run(source)
    assert str(source) in str(caught.value)
    with pytest.raises(error):
        dry_run(backups.env, source, Selection(), Silent())
    assert backups.store.points.list() == []
    assert list(backups.storage.list("leases/")) == []
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_source_that_is_not_there(backups: Backups, tmp_path: Path) -> None:
    assert_refused(backups, tmp_path / "nothing", SourceMissing)
    (tmp_path / "dangling").symlink_to("nothing")
    assert_refused(backups, tmp_path / "dangling", SourceMissing)
    (tmp_path / "file").touch()
    assert_refused(backups, tmp_path / "file" / "below", SourceMissing)


def test_a_source_of_another_kind(backups: Backups, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert_refused(backups, tmp_path / "fifo", UsageError)
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        assert_refused(backups, tmp_path / "socket", UsageError)
    assert_refused(backups, Path("/dev/null"), UsageError)


@pytest.mark.parametrize("call", ["open", "scandir"])
def test_a_source_that_may_not_be_read(source: Path, call: str) -> None:
    assert_refused(Backups(World(fs=Tampered(**{call: fails(13)}))), source, AccessDenied)


@needs_root
@pytest.mark.parametrize("mode", [0o000, 0o100, 0o400])
@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_source_that_another_user_may_not_read(what: str, mode: int) -> None:
    """In a process of its own, which is not root any more after it has imported all that it needs.

    Who may list a directory but not reach into it has nothing.
    """
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / what
        os.chmod(place, 0o755)  # so that the other user gets as far as this
        if what == "folder":
            path.mkdir()
            (path / "inside").touch()
        else:
            path.touch()
        path.chmod(mode if what == "folder" else mode & 0o300)
        os.chown(path, 65534, 65534)
        program = f"""
import os, sys
from pathlib import Path
from keepstone.errors import AccessDenied
from tests.unit.files.backed import Backups
path = Path({os.fspath(path)!r})
Backups().run(path)
backups = Backups()
os.setgid(65534)
os.setuid(65534)
path.stat()
try:
    backups.run(path)
except AccessDenied as error:
    assert str(path) in str(error)
    sys.exit(0 if not backups.store.points.list() else 3)
"""
        assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_one_file_that_vanishes(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    calls = []

    def opening(path: bytes, *given: object, **named: object) -> int:
        if path == b"file":
            calls.append(path)
            if len(calls) == 2:
                (tmp_path / "file").unlink()
        return os.open(path, *given, **named)  # type: ignore[arg-type]

    backups = Backups(World(fs=Tampered(open=opening)))

    with pytest.raises(SourceMissing):
        backups.run(tmp_path / "file")

    assert backups.store.points.list() == []


def test_a_dry_run_warns_of_what_cannot_be_looked_at(source: Path) -> None:
    def opening(path: bytes, *given: object, **named: object) -> int:
        if path == b"docs":
            raise PermissionError(13, "Permission denied")
        return os.open(path, *given, **named)  # type: ignore[arg-type]

    heard = Silent()

    report = dry_run(Env(fs=Tampered(open=opening)), source, Selection(), heard)

    assert report.warnings == 1
    assert heard.warnings[0][0] == os.fsencode(source / "docs")
    assert (report.commit, report.read, report.unchanged) == ("", 0, 0)
    assert report.files == 6
