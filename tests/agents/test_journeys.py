# SPDX-License-Identifier: Apache-2.0
"""What people do with a machine that has an agent, from registering to restoring, over HTTPS with real processes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.agents.living import Living, Machine
from tests.cli.services import until
from tests.unit.files.trees import make_tree, snapshot
from tests.unit.images.disk import sparse

pytestmark = [
    pytest.mark.agents,
    pytest.mark.skipif(os.geteuid() != 0, reason="owners, devices and capabilities can only be made by root"),
]


def test_everything_comes_back(agent: Machine, tmp_path: Path) -> None:
    make_tree(tmp_path / "tree")
    agent.protect(tmp_path / "tree")

    agent.back_up(tmp_path / "tree")
    agent.restore(tmp_path / "tree", "--target", agent.restored / "back")

    assert snapshot(agent.restored / "back") == snapshot(tmp_path / "tree")


def test_the_log_of_a_job_has_what_the_machine_did(agent: Machine, source: Path) -> None:
    agent.protect(source)
    agent.back_up(source)
    target = agent.restored / "back"
    agent.restore(source, "--target", target)

    newest = max(agent.living("job", "list"), key=lambda job: str(job["properties"]["startTime"]))
    texts = [line["text"] for line in agent.living("job", "log", "-n", newest["name"])]
    assert f"reads the point, and writes to {target}" in texts
    assert texts[-1] == "ended as Completed"


def test_backup_after_backup(agent: Machine, source: Path) -> None:
    agent.protect(source)
    agent.back_up(source)
    (source / "large").rename(source / "folder" / "large")
    (source / "folder" / "file1").write_text("changed")
    (source / "folder" / "file2").unlink()

    agent.back_up(source)

    agent.restore(source, "--target", agent.restored / "new")
    assert snapshot(agent.restored / "new") == snapshot(source)
    newest, older = agent.living.points(source)
    assert newest["properties"]["recoveryPointTime"] > older["properties"]["recoveryPointTime"]
    agent.restore(source, "--target", agent.restored / "old", point=older["name"])
    assert (agent.restored / "old" / "folder" / "file1").read_bytes() == b"1" * 1000
    assert len(agent.living.commits(source)) == 2


def test_chosen_paths_and_conflicts(agent: Machine, source: Path) -> None:
    agent.configure(f'[restore]\nallow = ["{source.parent}"]\n')
    agent.protect(source)
    agent.back_up(source)
    target = source.parent / "target"

    agent.restore(source, "folder/file7", "private", "--target", target)
    assert sorted(path.name for path in target.rglob("*")) == ["file7", "folder", "private"]
    (target / "private").write_text("mine")
    agent.restore(source, "private", "--target", target, "--conflict", "skip")
    assert (target / "private").read_text() == "mine"
    agent.restore(source, "private", "--target", target, "--conflict", "keep-both")
    assert sorted(path.read_text() for path in target.glob("private*")) == ["mine", "x"]
    agent.restore(source, "private", "--target", target, "--conflict", "overwrite")
    assert (target / "private").read_text() == "x"
    wanted = snapshot(source)
    shutil.rmtree(source / "folder")
    (source / "large").write_text("damaged")
    agent.restore(source, "--in-place")
    assert snapshot(source) == wanted


def test_a_target_that_the_machine_does_not_allow(agent: Machine, source: Path, tmp_path: Path) -> None:
    agent.protect(source)
    agent.back_up(source)

    said = agent.restore(source, "--target", tmp_path / "elsewhere", code=1)

    assert "agent.toml" in said
    assert not (tmp_path / "elsewhere").exists()


def test_what_is_left_out(agent: Machine, source: Path) -> None:
    agent.configure('[backup]\nexclude = ["*3"]\n')
    agent.protect(source, "--exclude", "file1*", "--exclude", "link")
    agent.back_up(source)

    agent.restore(source, "--target", agent.restored / "back")

    names = {path.name for path in (agent.restored / "back").rglob("*")}
    assert names == {"folder", "large", "private", *(f"file{number}" for number in (0, 2, 4, 5, 6, 7, 8, 9))}


def test_a_disk(agent: Machine, tmp_path: Path) -> None:
    data = {at: random.Random(at).randbytes(700_000) for at in (0, 20_000_000, 49_000_000)}
    disk = sparse(tmp_path / "disk.img", 50_000_000, data)
    agent.protect(disk, "--disk")
    agent.back_up(disk)
    with disk.open("r+b") as file:
        file.seek(30_000_000)
        file.write(b"into a hole")
    agent.back_up(disk)

    agent.living("restore", "disk", "-i", disk, "latest", "--target", agent.restored / "disk.img")

    assert subprocess.run(["cmp", disk, agent.restored / "disk.img"], check=False).returncode == 0
    assert (agent.restored / "disk.img").stat().st_blocks * 512 < 10_000_000


def test_a_restore_on_another_machine(agent: Machine, living: Living, source: Path) -> None:
    agent.protect(source)
    agent.back_up(source)
    with living.machine("other").running() as other:
        agent.restore(source, "--target-container", "other", "--target", other.restored / "from web")

        assert snapshot(other.restored / "from web") == snapshot(source)


def test_a_source_that_is_gone(agent: Machine, source: Path) -> None:
    agent.protect(source)
    source.rename(source.with_name("elsewhere"))

    said = agent.back_up(source, code=1)

    assert "there is no" in said
    assert agent.living.points(source) == []
    source.with_name("elsewhere").rename(source)
    agent.back_up(source)


def test_a_job_that_is_cancelled(machine: Machine, tmp_path: Path) -> None:
    source = tmp_path / "large"
    source.mkdir()
    for number in range(40):
        (source / f"{number}").write_bytes(random.Random(number).randbytes(1_000_000))
    machine.configure('[limits]\nbandwidth = "400 kB"\n')
    with machine.running():
        machine.protect(source)
        job = machine.ask(source)
        until(machine.jobs, "the job's process")
        until(lambda: sessions(machine), "an upload")

        machine.living("job", "stop", "-n", job)

        assert machine.ended(job)["properties"]["status"] == "Cancelled"
        until(lambda: not machine.jobs(), "the end of its process")
        assert machine.living.commits(source) == []
        until(lambda: not sessions(machine), "the end of its lease")
        assert machine.said().count(f"job {job} is cancelled") == 1


def test_a_job_that_is_cancelled_as_it_begins(machine: Machine, tmp_path: Path) -> None:
    """Its process may not have come as far as to take the signal."""
    source = tmp_path / "large"
    source.mkdir()
    (source / "one").write_bytes(random.Random(1).randbytes(20_000_000))
    machine.configure('[limits]\nbandwidth = "400 kB"\n')
    with machine.running():
        machine.protect(source)
        job = machine.ask(source)
        (process,) = until(machine.jobs, "the job's process")
        os.kill(process, signal.SIGSTOP)
        try:
            machine.living("job", "stop", "-n", job)
            machine.hears(f"job {job} is cancelled")
        finally:
            os.kill(process, signal.SIGCONT)

        assert machine.ended(job)["properties"]["status"] == "Cancelled"


def sessions(machine: Machine) -> list[str]:
    """The leases in the store."""
    return [info.name for info in machine.living.store.context.storage.list("leases/")]


def test_the_agent_stops_at_once(machine: Machine) -> None:
    machine.start()
    machine.hears("is the agent of")
    assert machine.process is not None

    machine.process.send_signal(signal.SIGTERM)

    assert machine.process.wait(10) == 0  # it waits for nothing, though its question is open
    machine.process = None


def test_a_machine_that_is_revoked(agent: Machine, source: Path) -> None:
    agent.protect(source)
    agent.back_up(source)
    assert agent.process is not None

    agent.living("container", "revoke", "-n", agent.name, "--yes")

    until(lambda: agent.process is not None and agent.process.poll() is not None, "the end of its agent")
    assert agent.process.returncode == 5
    agent.process = None
    assert "was taken away" in agent.said()
    assert "register it anew" in agent.said()
    assert len(agent.living.points(source)) == 1
    shown = subprocess.run(
        [*machine_status(), "--json"], env=agent.environment, capture_output=True, text=True, check=True
    )
    assert "was taken away" in json.loads(shown.stdout)["let in"]


def machine_status() -> list[str]:
    from tests.cli.services import PROGRAM

    return [*PROGRAM, "agent", "status"]
