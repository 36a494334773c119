# SPDX-License-Identifier: Apache-2.0
"""A restore by somebody who is not root: in a process of its own that has given up every privilege."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.store,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else"),
]

NOBODY = 65534
BEGIN = """
import os, stat, sys
sys.path[:0] = {path!r}
from pathlib import Path
from keepstone.env import Env
from keepstone.workloads import Silent
from keepstone.workloads.files import RestoreOptions, restore_files
from keepstone.workloads.files.page import Extra
from tests.unit.files.points import *
from tests.unit.files.trees import CAPABILITY
env = Env(threads=2)
mine = dict(uid={nobody}, gid={nobody})
def become_nobody():
    os.setgroups([])
    os.setresgid({nobody}, {nobody}, {nobody})
    os.setresuid({nobody}, {nobody}, {nobody})
def point(*items):
    return make_point(new_store(env), *items, described=detail(root=b""))
def restore(reader, **options):
    return restore_files(env, reader, Path("target"), RestoreOptions(**options), Silent())
def mode(name):
    return stat.S_IMODE(os.lstat("target/" + name).st_mode)
"""


def run(tmp_path: Path, code: str) -> None:
    """Run this as nobody, in an own directory."""
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    os.chown(home, NOBODY, NOBODY)
    path = [entry for entry in (str(Path.cwd()), *sys.path) if entry]
    script = BEGIN.format(path=path, nobody=NOBODY) + code
    done = subprocess.run([sys.executable, "-c", script], cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_owners_are_told_once_and_setuid_bits_not_lent(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
reader = point(
    file(b"a", b"a", uid=0, gid=0, mode=0o6755), file(b"b", b"b", uid=65534, gid=65534, mode=0o6755),
    file(b"c", b"c", uid=65534, gid=0, mode=0o6755), file(b"d", uid=1000), folder(b"e", uid=0, gid=0, mode=0o3755),
)
become_nobody()
report = restore(reader)
assert report.failed == []
assert [mode(name) for name in "abcde"] == [0o755, 0o6755, 0o4755, 0o644, 0o1755]
assert {os.lstat("target/" + name).st_uid for name in "abcde"} == {65534}
assert len(report.warnings) == 1 and "privileges" in report.warnings[0][1] and "4 entries" in report.warnings[0][1]
""",
    )


def test_devices_and_capabilities_are_left_out_and_told(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
reader = point(
    node(b"null", stat.S_IFCHR, rdev=os.makedev(1, 3), **mine),
    node(b"sda", stat.S_IFBLK, rdev=os.makedev(8, 0), **mine),
    node(b"fifo", stat.S_IFIFO, **mine), node(b"socket", stat.S_IFSOCK, **mine),
    file(b"able", b"x", extra=Extra(xattrs={b"security.capability": CAPABILITY, b"user.u": b"1"}), **mine),
)
become_nobody()
report = restore(reader)
assert report.failed == []
assert sorted(os.listdir("target")) == ["able", "fifo", "socket"]
assert os.listxattr("target/able") == ["user.u"]
assert sorted(reason.split(" ")[0] for _, reason in report.warnings) == ["devices", "extended"], report.warnings
""",
    )


def test_read_only_directories(tmp_path: Path) -> None:
    """They are closed only when everything in them is there, and hard links out of them still work."""
    run(
        tmp_path,
        """
link = dict(inode=5, extra=Extra(link=(1, 3)), **mine)
apart = dict(inode=6, extra=Extra(link=(1, 2)), **mine)
inner = folder(b"b", file(b"f", b"f", **mine), file(b"l", b"l", **link), mode=0o555, **mine)
items = [
    folder(b"a", inner, mode=0o500, **mine),
    folder(b"c", file(b"l", b"l", **link), mode=0o000, **mine),
    folder(b"d", file(b"l", b"l", **link), mode=0o300, **mine),
    folder(b"e", file(b"first", b"1", **apart), mode=0o200, **mine),
    folder(b"z", file(b"second", b"1", **apart), **mine),
]
many = [folder(b"m%03d" % number, file(b"f", b"1", **mine), mode=0o100, **mine) for number in range(600)]
reader = point(*items, *many)
become_nobody()
report = restore(reader)
assert (report.failed, report.warnings) == ([], [])
assert (mode("a"), mode("a/b"), mode("c"), mode("d"), mode("m599")) == (0o500, 0o555, 0, 0o300, 0o100)
assert os.stat("target/a").st_mtime_ns == os.stat("target/c").st_mtime_ns == DATE
for name in ("c", "d", "e"):
    os.chmod("target/" + name, 0o700)
assert os.path.samefile("target/e/first", "target/z/second")
assert len({os.stat("target/" + name + "/l").st_ino for name in ("a/b", "c", "d")}) == 1
os.unlink("target/d/l")
report = restore(reader, in_place=True)
assert (report.failed, report.warnings) == ([], [])
assert (mode("a"), mode("a/b"), mode("c"), mode("d")) == (0o500, 0o555, 0, 0o300)
""",
    )


def test_somebody_elses_directory_is_told_not_entered(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "target" / "theirs").mkdir(parents=True, mode=0o700)
    os.chown(home / "target", NOBODY, NOBODY)
    (home / "target" / "theirs").chmod(0o755)
    run(
        tmp_path,
        """
reader = point(folder(b"theirs", file(b"f", b"f"), folder(b"g")), file(b"mine", b"m", **mine))
become_nobody()
report = restore(reader, in_place=True)
assert sorted(path for path, _ in report.failed) == [b"theirs/f", b"theirs/g"], report.failed
assert os.listdir("target/theirs") == []
assert open("target/mine").read() == "m"
""",
    )
