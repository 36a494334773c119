# SPDX-License-Identifier: Apache-2.0
"""The agent's settings: what may be said, what is said of what may not, and a file that somebody changes meanwhile."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import pytest

from keepstone.agent import configuration
from keepstone.agent.configuration import Command, Configuration, ConfigurationFile
from keepstone.env import Env
from keepstone.errors import AccessDenied, NotFound, UsageError

pytestmark = pytest.mark.agents


def test_the_example_of_the_docstring_means_what_it_says() -> None:
    assert configuration.__doc__ is not None
    example = textwrap.dedent(configuration.__doc__.partition("\n\n")[2].partition("\n\nA service")[0])

    found = Configuration.parse(example)

    assert (found.log_level, found.threads, found.cache) == ("info", 2, 10**9)
    assert (found.limits.bandwidth, found.limits.cpu, found.limits.nice, found.limits.io) == (
        20_000_000,
        50,
        10,
        "idle",
    )
    (span,) = found.limits.times
    assert (span.days, span.begin, span.until) == (("mon", "tue", "wed", "thu", "fri"), "08:00", "18:00")
    assert (span.bandwidth, span.cpu) == (2_000_000, None)
    assert (found.backup.allow, found.backup.deny) == (("/", "/dev/vdb"), ("/root/.ssh",))
    assert (found.backup.exclude, found.restore.allow) == (("*.tmp",), ("/srv",))
    assert found.backup.snapshots == "/var/snap"
    assert (found.restore.machines, found.restore.networks) == (True, ("bridge=br0",))
    assert found.before == (
        Command(run=("/usr/local/bin/freeze", "--all"), items=("/srv/*",), timeout=300, ignore=True),
    )


def test_nothing_said_is_a_configuration() -> None:
    assert Configuration.parse("") == Configuration()
    assert Configuration().restore.allow is None
    assert Configuration().backup.snapshots is None


@pytest.mark.parametrize(
    ("text", "size"),
    [("7", 7), ("'7'", 7), ("'64 KiB'", 65_536), ("'1.5 MB/s'", 1_500_000), ("'2GiB'", 2 << 30), ("'1 kB'", 1000)],
)
def test_sizes(text: str, size: int) -> None:
    assert Configuration.parse(f"cache = {text}").cache == size


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[restore]\nnetworks = ['bridge=']", r"restore\.networks has 'bridge='; write `user` or `bridge=NAME`"),
        ("limitz = 1", "`limitz` is no setting; did you mean `limits`"),
        ("[limits]\nbandwith = 3", r"`limits\.bandwith` is no setting; did you mean `bandwidth`"),
        (
            "[[limits.times]]\n[[limits.times]]\nweekday = 1",
            r"`limits\.times\[1\]\.weekday` is no setting; there are days",
        ),
        ("[restore]\nexclude = []", r"`restore\.exclude` is no setting; there are allow, deny"),
        ("[limits]\nbandwidth = '3 bananas'", r"limits\.bandwidth: '3 bananas' is no size"),
        ("[limits]\nbandwidth = -1", r"limits\.bandwidth: -1 is no size"),
        ("[limits]\nbandwidth = true", r"limits\.bandwidth: True is no size"),
        ("[limits]\ncpu = 0", r"limits\.cpu: "),
        ("[limits]\nnice = 30", r"limits\.nice: "),
        ("[[limits.times]]\ndays = ['monday']", r"limits\.times\[0\]\.days\[0\]: Invalid enum value 'monday'"),
        ("[[limits.times]]\nfrom = '24:30'", "'24:30' is no time of day"),
        ("[[limits.times]]\nfrom = 08:30:10", "is no time of day"),
        ("[[before]]\nrun = []", r"before\[0\]\.run: "),
        ("[[before]]\nrun = ['ls']", "before runs 'ls'; name the program by its absolute path"),
        ("[[before]]\nrun = 'rm -rf /'", r"before\[0\]\.run: "),
        ("[[after]]\ntimeout = 3", r"after\[0\]"),
        ("[backup]\nallow = ['srv']", r"backup\.allow has 'srv'"),
        ("[restore]\ndeny = ['']", r"restore\.deny"),
        ("[backup]\nsnapshots = 'snap'", r"backup\.snapshots is 'snap'; name an absolute folder"),
        ("[backup]\nsnapshots = ''", r"backup\.snapshots"),
        ("threads = 0", "threads: "),
        ("log_level = 'chatty'", "log_level: "),
        ("log_level", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=rf"^agent\.toml.*{said}"):
        Configuration.parse(text)


def test_all_unknown_keys_are_named_at_once() -> None:
    with pytest.raises(UsageError) as refused:
        Configuration.parse("one = 1\n[limits]\ntwo = 2\n[[before]]\nrun = ['/x']\nthree = 3")

    assert all(f"`{key}`" in str(refused.value) for key in ("one", "limits.two", "before[0].three"))


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text("threads = 3")
    path.chmod(0o600)

    assert ConfigurationFile(Env(), path).load().threads == 3


def test_errors_of_a_file_have_its_path(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.touch(0o600)
    path.write_bytes(b"\xff")
    with pytest.raises(UsageError, match=f"{path} is not UTF-8"):
        ConfigurationFile(Env(), path).load()
    path.write_text("x = 1")
    with pytest.raises(UsageError, match=str(path)):
        ConfigurationFile(Env(), path).load()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "nowhere.toml"
    with pytest.raises(NotFound, match=r"nowhere\.toml"):
        ConfigurationFile(Env(), path).load()
    file = ConfigurationFile(Env(), path, needed=False)

    assert file.load() == Configuration()
    assert file.reload() is None
    path.touch(0o600)
    path.write_text("threads = 2")
    assert file.reload() == Configuration(threads=2)


@pytest.mark.parametrize("others", ["file", "folder"])
def test_a_file_that_others_may_write_to_does_not_count(tmp_path: Path, others: str) -> None:
    path = tmp_path / "own" / "agent.toml"
    path.parent.mkdir(mode=0o700)
    path.touch(0o600)
    (path if others == "file" else path.parent).chmod(0o770)

    with pytest.raises(AccessDenied, match="chmod go-w"):
        ConfigurationFile(Env(), path).load()


def test_a_change_is_seen_once(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.touch(0o600)
    file = ConfigurationFile(Env(), path)
    assert file.load() == Configuration()
    assert file.reload() is None

    def write(text: str) -> None:
        new = tmp_path / "new"
        new.touch(0o600)
        new.write_text(text)
        os.replace(new, path)

    write("threads = 2")
    changed = file.reload()
    assert changed is not None
    assert changed.threads == 2
    assert file.reload() is None

    write("thread = 2")
    with pytest.raises(UsageError, match="did you mean `threads`"):
        file.reload()
    assert file.reload() is None

    write("threads = 4")
    mended = file.reload()
    assert mended is not None
    assert mended.threads == 4
