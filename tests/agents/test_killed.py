# SPDX-License-Identifier: Apache-2.0
"""Either side is killed in the middle of a backup: its point is made exactly once, and every point restores."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from keepstone.catalogue import jobs, points
from keepstone.control.points import tags
from keepstone.jobs import Status
from keepstone.remote.service import HttpSession
from keepstone.remote.wire import Commit
from keepstone.store import Outcome
from tests.agents.living import Living, Machine
from tests.cli.services import until
from tests.unit.disks_writing.images import needs_qemu, qemu
from tests.unit.files.trees import snapshot

pytestmark = pytest.mark.agents


@pytest.fixture
def living(tmp_path: Path) -> Iterator[Living]:
    """A service of the test's own."""
    made = Living(tmp_path / "service")
    try:
        made.up()
        yield made
    finally:
        made.down()


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """What takes some seconds at 1 MB a second."""
    root = tmp_path / "large"
    root.mkdir()
    for number in range(12):
        (root / f"{number}").write_bytes(random.Random(number).randbytes(400_000))
    return root


def kill(*processes: int) -> None:
    for one in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


def server(living: Living) -> int:
    """The service's first process."""
    import json

    return int(json.loads((living.service.root / "run" / "lock").read_text())["pid"])


def under_way(machine: Machine, item: Path) -> str:
    """A backup that has sent a part of it; its job."""
    job = machine.ask(item)
    store = machine.living.store
    until(lambda: list(store.context.storage.list("leases/")), "a session")
    until(machine.jobs, "the job's process")
    time.sleep(1.0)  # a part of the upload, whichever
    assert list(store.context.storage.list("leases/"))
    return job


def made_once(machine: Machine, item: Path, job: str, *, leases: int = 0) -> None:
    """The job made one point, which restores. `leases`: of sessions that nobody uses, and nobody has given up yet."""
    assert machine.ended(job)["properties"]["status"] == "Completed"
    assert len(machine.living.commits(item)) == 1
    assert len(machine.living.points(item)) == 1
    target = machine.restored / f"after {job}"
    machine.restore(item, "--target", target)
    assert snapshot(target) == snapshot(item)
    store = machine.living.store
    store.reclaim()  # ends the leases of processes that are dead
    assert len(list(store.context.storage.list("leases/"))) == leases
    assert store.verify(deep=True).ok


KINDS = ("receiver", "answerer", "worker")


@pytest.mark.parametrize("kind", KINDS)
def test_a_process_of_the_service(living: Living, large: Path, kind: str) -> None:
    machine = living.machine("web")
    machine.configure('[limits]\nbandwidth = "1 MB"\n')
    with machine.running():
        machine.protect(large)
        job = under_way(machine, large)

        kill(*living.processes(kind))

        made_once(machine, large, job)
        if kind == "receiver":
            assert "begins anew" in machine.said()


def test_the_whole_service(living: Living, large: Path) -> None:
    machine = living.machine("web")
    machine.configure('[limits]\nbandwidth = "1 MB"\n')
    port = living.port
    with machine.running():
        machine.protect(large)
        job = under_way(machine, large)

        living.close()
        kill(server(living), *living.processes("receiver"), *living.processes("answerer"), *living.processes("worker"))
        time.sleep(2.0)
        living.up("--port", port)

        made_once(machine, large, job)


def test_the_agent(living: Living, large: Path) -> None:
    """Its job goes with it, and is done when it is back: once the service knows that it is nobody's."""
    machine = living.machine("web")
    machine.configure('[limits]\nbandwidth = "1 MB"\n')
    machine.start()
    machine.protect(large)
    job = under_way(machine, large)

    assert machine.stop(signal.SIGKILL) == -signal.SIGKILL
    until(lambda: not machine.jobs(), "the end of its job's process")
    expire(living, job)
    with machine.running():
        made_once(machine, large, job)


def test_the_job_of_an_agent(living: Living, large: Path) -> None:
    """The job fails, and says so; nothing of it is there. The next one is none the worse for it."""
    machine = living.machine("web")
    machine.configure('[limits]\nbandwidth = "1 MB"\n')
    with machine.running():
        machine.protect(large)
        job = under_way(machine, large)

        kill(*machine.jobs())

        ended = machine.ended(job)["properties"]
        assert ended["status"] == "Failed"
        assert "ended with -9" in str(ended["errorDetails"])
        assert living.commits(large) == []
        again = machine.ask(large)
        made_once(machine, large, again, leases=1)


@pytest.mark.parametrize("victim", ["agent", "agent and service"])
def test_the_agent_in_a_restore(living: Living, large: Path, victim: str) -> None:
    """The next attempt goes on with what the one before it has left where nothing else may be."""
    machine, port = living.machine("web"), living.port
    for number in range(20):  # more than is fetched at once
        (large / f"more {number}").write_bytes(random.Random(number).randbytes(2_000_000))
    machine.start()
    machine.protect(large)
    machine.back_up(large)
    machine.stop()
    machine.configure('[limits]\nbandwidth = "8 MB"\n')
    machine.start()
    target = machine.restored / "back"
    job = living("restore", "files", "-i", large, "latest", "--target", target, "--no-wait")["name"]
    until(lambda: target.is_dir() and list(target.iterdir()), "a file that is back")

    machine.stop(signal.SIGKILL)
    until(lambda: not machine.jobs(), "the end of its job's process")
    assert snapshot(target) != snapshot(large)
    if victim == "agent and service":
        living.close()
        kill(server(living), *(one for kind in KINDS for one in living.processes(kind)))
        living.up("--port", port)
    expire(living, job)

    with machine.running():
        assert machine.ended(job)["properties"]["status"] == "Completed"
    assert snapshot(target) == snapshot(large)
    assert "goes on where the attempt before it ended" in str(living("job", "log", "-n", job))
    assert list((machine.home / "agent" / "state" / "begun").iterdir()) == []


@pytest.mark.parametrize(
    "name", ["raw", pytest.param("vhdx", marks=needs_qemu), pytest.param("vmdk", marks=needs_qemu)]
)
def test_the_agent_in_a_restore_of_a_disk(living: Living, tmp_path: Path, name: str) -> None:
    """The next attempt makes the image anew; what lay there of it is in nobody's way."""
    disk = tmp_path / "disk"
    disk.write_bytes(random.Random(5).randbytes(40_000_000 // 512 * 512))
    machine = living.machine("web")
    machine.start()
    machine.protect(disk, "--disk")
    machine.back_up(disk)
    machine.stop()
    machine.configure('[limits]\nbandwidth = "8 MB"\n')
    machine.start()
    target = machine.restored / f"back.{name}"
    job = living("restore", "disk", "-i", disk, "latest", "--target", target, "--format", name, "--no-wait")["name"]
    until(lambda: target.exists() and target.stat().st_blocks > 0, "a piece of the disk")

    machine.stop(signal.SIGKILL)
    until(lambda: not machine.jobs(), "the end of its job's process")
    assert 0 < target.stat().st_blocks * 512 < disk.stat().st_size
    expire(living, job)

    with machine.running():
        assert machine.ended(job)["properties"]["status"] == "Completed"
    assert "goes on where the attempt before it ended" in str(living("job", "log", "-n", job))
    if name == "raw":
        assert target.read_bytes() == disk.read_bytes()
    else:
        qemu("compare", "-f", "raw", "-F", name, disk, target)


def expire(living: Living, job: str) -> None:
    """Half a minute has passed without a sign of life."""
    from uuid import UUID

    past = living.plane.env.utc() - timedelta(seconds=1)
    with living.plane.database.change() as connection:
        held = jobs.c.id == UUID(job), jobs.c.status == Status.RUNNING
        assert connection.execute(jobs.update().where(*held).values(lease_until=past)).rowcount == 1


def test_between_the_point_and_its_acknowledgement(living: Living, large: Path) -> None:
    """The store has the point, and nothing else knows of it."""
    from uuid import UUID

    machine = living.machine("web")
    machine.protect(large)
    hand = machine.hand()
    work = hand.work(large)
    session = HttpSession(hand.calls, hand.begin(work).session)
    point = session.commit(Commit(records=0, root=b"", detail=b"", source=b"/", logical=0, read=0, files=0, warnings=0))
    past = living.plane.env.utc() - timedelta(seconds=1)
    with living.plane.database.change() as connection:
        connection.execute(points.delete())
        mine = jobs.c.id == UUID(work.job)
        connection.execute(
            jobs.update().where(mine).values(status=Status.RUNNING, ended=None, lease_until=past, owner="agent/x")
        )

    assert hand.pulse(wait=5.0).work == []  # it is brought to its end when somebody looks, not done again

    hand.close()
    with living.plane.look() as connection:
        assert connection.execute(sa.select(jobs.c.status).where(mine)).scalar() == Status.COMPLETED
    assert living.commits(large) == [point]
    assert len(living.points(large)) == 1


def test_an_agent_whose_point_was_made_already(living: Living, large: Path, tmp_path: Path) -> None:
    """As after an upload that was cut off between its point and the answer: it is content, and so are its commands."""
    from uuid import UUID

    machine = living.machine("web")
    go, told = tmp_path / "go", tmp_path / "told"
    machine.configure(
        f"[[before]]\nrun = ['/bin/sh', '-c', 'while [ ! -e {go} ]; do sleep 0.1; done']\n"
        f"[[after]]\nrun = ['/bin/sh', '-c', 'echo $KEEPSTONE_RESULT > {told}']\n"
    )
    with machine.running():
        machine.protect(large)
        job = machine.ask(large)
        until(machine.jobs, "the job's process")
        with living.plane.look() as connection:
            item = connection.execute(sa.select(jobs.c.item).where(jobs.c.id == UUID(job))).scalar_one()
        outcome = Outcome(root=[], detail=b"", source=b"", logical=0, read=0, files=0, warnings=0)
        with living.store.writer(f"web:{large}", "files", tags=tags(item, UUID(job), "Full", None)) as writer:
            point = writer.commit(outcome)
        go.touch()

        assert machine.ended(job)["properties"]["status"] == "Completed"
        assert living.commits(large) == [point]
        assert len(living.points(large)) == 1
        result = until(lambda: told.exists() and told.read_text(), "the command after it")
        assert result == "Completed\n"


@contextlib.contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A disk that is soon full."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="disks can only be mounted by root")


@needs_root
def test_a_full_disk_of_the_service(living: Living, large: Path) -> None:
    """The job says so, nothing of it is there, and with room the next one is made."""
    machine = living.machine("web")
    with machine.running():
        machine.protect(large)
        machine.back_up(large)
        (packs,) = living.service.root.rglob("packs")
        with small_disk_over(packs, "3m"):
            for number in range(12):
                (large / f"{number}").write_bytes(random.Random(100 + number).randbytes(400_000))
            said = machine.back_up(large, code=1)
            assert "StorageFull" in said or "no space" in said.lower() or "full" in said
            assert len(living.commits(large)) == 1
        machine.back_up(large)
        machine.restore(large, "--target", machine.restored / "x")
        assert snapshot(machine.restored / "x") == snapshot(large)


@contextlib.contextmanager
def small_disk_over(folder: Path, size: str) -> Iterator[None]:
    """The same files on a disk that has little room beside them."""
    import shutil

    aside = folder.with_name("aside")
    held = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    shutil.copytree(folder, aside)
    with small_disk(folder, str(held + int(size.rstrip("m")) * (1 << 20))):
        shutil.copytree(aside, folder, dirs_exist_ok=True)
        yield
    shutil.rmtree(aside)


@needs_root
def test_a_full_disk_of_the_machine(living: Living, large: Path) -> None:
    """What cannot be written is told, at once and by its name."""
    machine = living.machine("web")
    with machine.running():
        machine.protect(large)
        machine.back_up(large)
        with small_disk(machine.restored, "2m"):
            began = time.monotonic()
            said = machine.restore(large, "--target", machine.restored / "x", code=1)
            assert "space" in said.lower() or "full" in said.lower()
            assert time.monotonic() - began < 30
        machine.restore(large, "--target", machine.restored / "y")
    assert snapshot(machine.restored / "y") == snapshot(large)


@pytest.mark.slow
def test_for_a_while(living: Living, tmp_path: Path) -> None:
    """Whoever is killed whenever, during backups, restores and reclaim: every acknowledged point restores. For
    KEEPSTONE_SOAK seconds."""
    seconds = float(os.environ.get("KEEPSTONE_SOAK", "240"))
    chance = random.Random(os.environ.get("KEEPSTONE_SEED", "1"))
    machine = living.machine("web")
    machine.configure('[limits]\nbandwidth = "4 MB"\n')
    source, port = tmp_path / "source", living.port
    source.mkdir()
    machine.start()
    machine.protect(source)
    kept: dict[str, dict[bytes, dict[str, object]]] = {}
    end = time.monotonic() + seconds
    rounds = kills = 0
    while time.monotonic() < end:
        rounds += 1
        for _ in range(6):
            (source / f"{chance.randrange(24)}").write_bytes(chance.randbytes(chance.randrange(900_000)))
        state = snapshot(source)
        before = set(living.commits(source))
        job = machine.ask(source)
        time.sleep(chance.random() * 3)
        victim = chance.choice(["receiver", "answerer", "worker", "agent", "job", "service", "nobody"])
        kills += victim != "nobody"
        if victim == "agent":
            machine.stop(signal.SIGKILL)
            until(lambda: not machine.jobs(), "the end of its jobs")
            with contextlib.suppress(AssertionError):  # it was over already
                expire(living, job)
            machine.start()
        elif victim == "job":
            kill(*machine.jobs())
        elif victim == "service":
            living.close()
            kill(
                server(living), *(one for kind in ("receiver", "answerer", "worker") for one in living.processes(kind))
            )
            living.up("--port", port)
        elif victim != "nobody":
            kill(*living.processes(victim))
        status = machine.ended(job)["properties"]["status"]
        assert status in ("Completed", "Failed"), status
        new = set(living.commits(source)) - before
        assert len(new) == (status == "Completed"), (victim, status, new)
        assert status == "Completed" or victim == "job", victim
        if new:
            kept[living.points(source)[0]["name"]] = state
        if rounds % 3 == 0:
            living.store.reclaim()
        if kept and rounds % 2 == 0:
            name = chance.choice(sorted(kept))
            target = machine.restored / f"{rounds}"
            machine.restore(source, "--target", target, point=name)
            assert snapshot(target) == kept[name]
    machine.stop()
    assert living.store.verify(deep=True).ok
    with machine.running():
        for name, state in kept.items():
            machine.restore(source, "--target", machine.restored / f"last {name}", point=name)
            assert snapshot(machine.restored / f"last {name}") == state
    print(f"{rounds} backups, {kills} kills, {len(kept)} points")
