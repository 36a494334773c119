# SPDX-License-Identifier: Apache-2.0
"""Points in the tree of a machine: mounted by its agent through HTTPS, looked at, and gone when they should be."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agents.living import Living, Machine
from tests.cli.services import until
from tests.unit.files.trees import make_tree, snapshot
from tests.unit.images.disk import sparse
from tests.unit.mount.mounting import mounts, needs_fuse

pytestmark = [pytest.mark.agents, needs_fuse]


def mount(machine: Machine, item: Path, where: Path, *more: object, code: int = 0) -> Any:
    """Have the newest point mounted; the job."""
    return machine.living("recoverypoint", "mount", "-i", item, "latest", "--target", where, *more, code=code)


@pytest.fixture(autouse=True)
def nothing_stays(machine: Machine) -> Iterator[None]:
    """Whatever a test that fails leaves mounted."""
    yield
    subprocess.run(["umount", "-q", "-l", machine.restored / "mounted"], check=False, stderr=subprocess.DEVNULL)


def bag(job: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = job["properties"]["extendedInfo"]["propertyBag"]
    return found


def backed_up(machine: Machine, source: Path) -> None:
    machine.protect(source)
    machine.back_up(source)


def test_a_tree_is_looked_at_and_gone(agent: Machine, tmp_path: Path) -> None:
    tree, where = tmp_path / "tree", agent.restored / "mounted"
    make_tree(tree)
    backed_up(agent, tree)
    wanted = snapshot(tree)

    job = mount(agent, tree, where)

    assert job["properties"]["operation"] == "Mount"
    assert (bag(job)["Target"], bag(job)["Recovery Point"]) == (str(where), agent.living.points(tree)[0]["name"])
    (line,) = mounts(where)
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(line[3].split(","))
    assert snapshot(where) == wanted
    for number in range(2):
        mount(agent, tree, agent.restored / f"again{number}")
    agent.back_up(tree)  # an agent has two jobs at a time, and no mount is one of these
    every = agent.living("recoverypoint", "unmount", "-i", tree, bag(job)["Recovery Point"])
    assert [one["properties"]["status"] for one in every] == ["Cancelled"] * 3
    assert str(where) in [bag(one)["Target"] for one in every]
    assert not mounts(where)
    assert not where.exists()  # it was made for that
    until(lambda: not agent.jobs(), "the end of its process")
    said = agent.living("recoverypoint", "unmount", "-i", tree, bag(job)["Recovery Point"], code=3)
    assert "is not mounted" in said


def test_a_disk_on_another_machine(agent: Machine, living: Living, tmp_path: Path) -> None:
    data = {at: random.Random(at).randbytes(700_000) for at in (0, 20_000_000, 29_000_000)}
    disk = sparse(tmp_path / "disk.img", 30_000_000, data)
    agent.protect(disk, "--disk")
    agent.back_up(disk)
    with living.machine("reader").running() as other:
        job = mount(agent, disk, other.restored / "disk", "--target-container", "reader")
        assert len(other.jobs()) == 1
        assert not agent.jobs()

        assert subprocess.run(["cmp", disk, other.restored / "disk" / "disk.img"], check=False).returncode == 0

        living("job", "stop", "-n", job["name"])
        ended = other.ended(job["name"])
        assert ended["properties"]["status"] == "Cancelled", ended
        assert not mounts(other.restored / "disk")


def test_unmounted_there(agent: Machine, source: Path) -> None:
    backed_up(agent, source)
    where = source.parent / "place"
    where.mkdir()
    agent.configure(f'[restore]\nallow = ["{where}"]\n')
    job = mount(agent, source, where)

    subprocess.run(["umount", where], check=True)

    assert agent.ended(job["name"])["properties"]["status"] == "Completed"
    assert where.is_dir()  # it was there before


def test_where_the_machine_does_not_allow_it(agent: Machine, source: Path, tmp_path: Path) -> None:
    backed_up(agent, source)
    (tmp_path / "place").mkdir()
    assert "restore.allow" in mount(agent, source, tmp_path / "place", code=1)
    (agent.restored / "full").mkdir(parents=True)
    (agent.restored / "full" / "file").touch()
    assert "holds something" in mount(agent, source, agent.restored / "full", code=1)
    assert "absolute path" in mount(agent, source, Path("place"), "--target-container", agent.name, code=2)
    assert not mounts(tmp_path / "place")


def test_a_sealed_point_where_the_passphrase_is(agent: Machine, living: Living, source: Path, tmp_path: Path) -> None:
    word = tmp_path / "passphrase"
    word.write_text("a sentence that nobody else would write\n")
    word.chmod(0o600)
    agent.configure(f'[sealed]\npassphrase_file = "{word}"\n')
    backed_up(agent, source)
    wanted, where = snapshot(source), agent.restored / "mounted"

    mount(agent, source, where)

    assert snapshot(where) == wanted
    said = living("recoverypoint", "browse", "-i", source, "latest", code=12)
    assert "sealed by a passphrase" in said
    with living.machine("without").running() as other:
        said = mount(agent, source, other.restored / "mounted", "--target-container", "without", code=1)
        assert "passphrase_file in [sealed] of agent.toml" in said
        assert not mounts(other.restored / "mounted")


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_a_mount_ends_with_its_agent(agent: Machine, source: Path, number: int) -> None:
    backed_up(agent, source)
    where = agent.restored / "mounted"
    job = mount(agent, source, where)
    assert mounts(where)

    agent.stop(number)

    until(lambda: not mounts(where), "the end of the mount")
    if number == signal.SIGKILL:
        agent.start()  # and is told so when its lease is over
    ended = agent.ended(job["name"])["properties"]
    assert (ended["status"], "AgentStopped" in str(ended["errorDetails"])) == ("Cancelled", True)
    if agent.process is None:
        agent.start()
        agent.hears("is the agent of")
    assert not mounts(where)
    assert not agent.jobs()


def test_what_is_left_of_a_process_that_died(agent: Machine, source: Path) -> None:
    backed_up(agent, source)
    where = agent.restored / "mounted"
    job = mount(agent, source, where)
    (process,) = agent.jobs()

    os.kill(process, signal.SIGKILL)

    assert "the process of this job ended" in str(agent.ended(job["name"])["properties"]["errorDetails"])
    with pytest.raises(OSError, match="not connected"):
        os.listdir(where)
    mount(agent, source, where)
    assert len(mounts(where)) == 1
    assert (where / "private").read_text() == "x"


@pytest.mark.slow
def test_a_service_that_is_away(agent: Machine, source: Path) -> None:
    """Whoever looks gets an error instead of waiting for ever, and may look again."""
    backed_up(agent, source)
    where = agent.restored / "mounted"
    job = mount(agent, source, where)
    assert len(list(where.iterdir())) == 4
    port = agent.living.port
    agent.living.down()
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            (where / "large").read_bytes()
    finally:
        agent.living.up("--port", port)
    assert "large" in agent.said() or True
    assert (where / "large").read_bytes() == (source / "large").read_bytes()
    assert agent.living("job", "show", "-n", job["name"])["properties"]["status"] == "InProgress"
