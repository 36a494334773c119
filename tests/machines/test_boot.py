# SPDX-License-Identifier: Apache-2.0
"""A machine goes on from a point at once, and is moved while it runs."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keepstone.cli.opening import Opening
from keepstone.cli.secret import Secret
from keepstone.env import Env
from keepstone.errors import Conflict, SourceFailed, TargetExists
from keepstone.workloads import Silent
from keepstone.workloads.kvm.definition import DOCUMENT
from keepstone.workloads.machines import PointOfMachine
from keepstone.workloads.running import Accel, Network, Running, boot, move_running
from tests.cli.conftest import cli, made
from tests.cli.running import Cli
from tests.machines.guest import Shell, make_disk, monitor, tools, until
from tests.machines.points import machine_point
from tests.machines.starting import alive, defined, little, point_of
from tests.unit.files.points import new_store
from tests.unit.images.disk import CHUNK, noise, sparse

__all__ = ["cli", "made"]

pytestmark = pytest.mark.vm


@pytest.fixture(autouse=True)
def _tools() -> None:
    tools()


@pytest.fixture
def point(tmp_path: Path) -> Iterator[PointOfMachine]:
    """Of the tiny guest, with two disks."""
    disks = {
        "sda": make_disk(tmp_path / "sda.raw", 32, "raw"),
        "sdb": sparse(tmp_path / "sdb", 9 * CHUNK, {3: noise(1)}),
    }
    with point_of(new_store(Env(threads=2), tmp_path / "store"), disks) as found:
        yield defined(found, little())


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[PointOfMachine]:
    """Of a machine that starts nothing, with data on two disks; the first begins with a chunk of data."""
    disks = {
        "sda": sparse(tmp_path / "sda", 9 * CHUNK, {0: noise(1), 5: noise(1)}),
        "sdb": sparse(tmp_path / "sdb", CHUNK, {}),
    }
    with point_of(new_store(Env(threads=2), tmp_path / "store"), disks) as found:
        yield found


def booted(point: PointOfMachine, folder: Path, **options: Any) -> Running:
    return boot(Env(threads=2), point, folder, point="its id", accel=Accel.TCG, **options)


def free(folder: Path) -> bool:
    """Whether nobody has a machine running from there."""
    with open(folder / "point.json") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_it_goes_on_from_the_point_and_leaves_the_store(point: PointOfMachine, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    running = booted(point, folder)
    try:
        with Shell(running.agent) as guest:
            guest.sh("echo of the machine > /a/new; sync")
            assert running.needs_point
            with pytest.raises(Conflict, match="needs its point"):
                running.let_go()
            there = ["agent", "console", "nbd", "point.json", "qmp", "sda.qcow2", "sdb.qcow2"]
            assert (folder.stat().st_mode & 0o777, files(folder)) == (0o700, there)
            running.move(Silent())
            assert not running.needs_point
            running.let_go()
            running.close()  # which is nothing any more
            assert guest.sh("echo more >> /a/new; cat /a/new") == "of the machine\nmore\n"
            assert not (folder / "nbd").exists()
            with pytest.raises(Conflict, match="runs from"):
                booted(point, folder)
            guest.sh("touch /run/off")
        until(lambda: not alive(running.process), "the end of the machine", 30)
        until(lambda: files(folder) == ["point.json", "sda.qcow2", "sdb.qcow2"], "the end of its sockets", 10)
    finally:
        with contextlib.suppress(OSError):
            os.kill(running.process, signal.SIGKILL)
        running.close()
    until(lambda: free(folder), "the end of its keeper", 10)
    with booted(point, folder) as again:
        assert not again.needs_point
        with Shell(again.agent) as guest:
            assert guest.sh("cat /a/new") == "of the machine\nmore\n"
        assert again.stop(30)
        ended = again.wait(0)
        assert ended is not None
        assert ended.status == 0
    assert files(folder) == ["point.json", "sda.qcow2", "sdb.qcow2"]


def test_what_was_moved_is_what_the_point_has(silent: PointOfMachine, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with booted(silent, folder) as running:
        running.move(Silent())
        running.move(Silent())  # there is nothing left
        assert not running.needs_point
    for name in ("sda", "sdb"):
        image = folder / f"{name}.qcow2"
        told = json.loads(
            subprocess.run(["qemu-img", "info", "--output=json", image], capture_output=True, check=True).stdout
        )
        assert "backing-filename" not in told
        subprocess.run(["qemu-img", "compare", "-F", "raw", image, tmp_path / name], capture_output=True, check=True)
    assert (folder / "sdb.qcow2").stat().st_blocks * 512 < 1 << 20  # zeros take no room
    assert files(folder) == ["point.json", "sda.qcow2", "sdb.qcow2"]


def test_a_move_that_fails_leaves_it_running(silent: PointOfMachine, tmp_path: Path) -> None:
    """The point cannot be read; when it can again, the next move goes on."""
    folder = tmp_path / "run"
    with booted(silent, folder) as running:
        pack, away = _hidden(tmp_path)
        with pytest.raises(SourceFailed, match=r"cannot be moved: .*runs from its point as before"):
            running.move(Silent())
        assert running.wait(0) is None
        assert running.needs_point
        away.rename(pack)
        running.move(Silent())
        assert not running.needs_point


def test_a_disk_that_cannot_be_read_stops_the_machine_and_no_more(silent: PointOfMachine, tmp_path: Path) -> None:
    """Its guest hears of no error; when the store is there again it goes on."""
    pack, away = _hidden(tmp_path)
    with booted(silent, tmp_path / "run") as running:
        until(lambda: _status(running) == "io-error", "that it stands still", 30)
        away.rename(pack)
        error = running.unread()
        assert error is not None
        assert pack.name in str(error)
        until(lambda: _status(running) == "running", "that it goes on", 10)
        assert running.unread() is None


def _hidden(folder: Path) -> tuple[Path, Path]:
    """The pack with the data, and where it is now."""
    packs = sorted((folder / "store/packs").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    away = folder / "away"
    packs[-1].rename(away)
    return packs[-1], away


def _status(running: Running) -> str:
    with monitor(running.monitor) as ask:
        return str(ask("query-status")["status"])


@pytest.mark.parametrize(("network", "cards"), [(Network(), 0), (Network("user"), 1)])
def test_its_network(silent: PointOfMachine, tmp_path: Path, network: Network, cards: int) -> None:
    """None, unless somebody asks for one."""
    with booted(silent, tmp_path / "run", network=network) as running, monitor(running.monitor) as ask:
        devices = [device for bus in ask("query-pci") for device in bus["devices"]]
    assert sum(device["class_info"]["class"] == 0x200 for device in devices) == cards


class _Interrupted(Silent):
    """A progress whose watcher has had enough."""

    def advance(self, size: int, files: int = 0, reused: int = 0) -> None:
        raise KeyboardInterrupt


def test_a_move_can_be_interrupted(silent: PointOfMachine, tmp_path: Path) -> None:
    with booted(silent, tmp_path / "run") as running:
        with pytest.raises(KeyboardInterrupt):
            running.move(_Interrupted())
        with monitor(running.monitor) as ask:
            assert ask("query-jobs") == []
        assert _status(running) == "running"


def test_a_folder_belongs_to_one_point(silent: PointOfMachine, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    env = Env(threads=2)
    with booted(silent, folder):
        pass
    with pytest.raises(Conflict, match="a machine of its id wrote"):
        boot(env, silent, folder, point="another", accel=Accel.TCG)
    assert not move_running(env, folder, "its id", Silent())
    (folder / "point.json").write_text("x")
    with pytest.raises(Conflict, match="cannot be told"):
        booted(silent, folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thing").touch()
    with pytest.raises(TargetExists, match="something else"):
        booted(silent, tmp_path / "other")
    with pytest.raises(TargetExists, match="something already"):
        booted(silent, tmp_path / "new", monitor=tmp_path / "other/thing")
    assert files(tmp_path / "other") == ["thing"]


def test_what_a_host_that_went_down_left(silent: PointOfMachine, tmp_path: Path) -> None:
    """Sockets of then are in nobody's way, and a half of an image is no image."""
    folder = tmp_path / "run"
    with booted(silent, folder):
        pass
    (folder / "sda.qcow2").rename(folder / "sda.qcow2.new")
    for name in ("qmp", "nbd", "agent", "console"):
        (folder / name).touch()
    with booted(silent, folder) as running:
        assert running.needs_point
        assert running.wait(0) is None
    assert files(folder) == ["point.json", "sda.qcow2", "sdb.qcow2"]


# ---------------------------------------------------------------------- the command


@pytest.fixture
def little_point(made: Cli) -> str:
    """The tiny guest in the store of the command line; the point's id."""
    opening = Opening(place=made.store, secret=Secret(), key_file=None, kit=None, identity=None)
    disk = make_disk(made.path / "sda.raw", 32, "raw")
    definition = {DOCUMENT: json.dumps(little()).encode()}
    return machine_point(opening.store(), {"sda": disk}, definition=definition).id


@contextlib.contextmanager
def command(cli: Cli, *arguments: object) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """The command in a process of its own, and what it says of the machine."""
    code = "import sys; from keepstone.cli import main; sys.exit(main())"
    words = ["store", "boot", "--store", cli.store, "latest", "--json-progress", "--accel", "tcg", *arguments]
    machine: dict[str, Any] = {}
    with subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            while machine.get("event") != "running":
                line = process.stdout.readline()
                assert line, process.stderr.read() if process.stderr else ""
                machine = json.loads(line)
            yield process, machine
        finally:
            process.kill()
            with contextlib.suppress(OSError, KeyError):
                os.kill(machine["process"], signal.SIGKILL)


def test_killed_it_leaves_what_the_machine_wrote_and_nothing_else(made: Cli, little_point: str, tmp_path: Path) -> None:
    folder, extra = tmp_path / "run", tmp_path / "extra"
    with command(made, "--folder", folder, "--qmp", extra) as (process, machine):
        with Shell(Path(machine["agent"])) as guest:
            guest.sh("echo of the machine > /a/new; sync")
        assert machine["qmp"] == str(extra)
        process.kill()
        until(lambda: not alive(machine["process"]), "the end of the machine", 15)
        until(lambda: files(folder) == ["point.json", "sda.qcow2"], "the end of its sockets", 15)
        assert not extra.exists()
        until(lambda: free(folder), "the end of its keeper", 10)
    with command(made, "--folder", folder, "--vnc", "screen") as (process, machine):
        with Shell(Path(machine["agent"])) as guest:
            assert guest.sh("cat /a/new") == "of the machine\n"
        assert (tmp_path / "screen").is_socket()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    told = json.loads(out.splitlines()[-1])
    assert (told["state"], told["point"]) == ("shut down", little_point)
    assert files(folder) == ["point.json", "sda.qcow2"]


def test_a_second_command_moves_it(made: Cli, little_point: str, tmp_path: Path) -> None:
    """The first one ends then, and the machine runs on. It can be backed up before."""
    folder = tmp_path / "run"
    with command(made, "--folder", folder) as (process, machine), Shell(Path(machine["agent"])) as guest:
        guest.sh("echo of the machine > /a/new")
        assert "runs from" in made("boot", "latest", "--folder", folder, code=1).err
        backed_up = made.backup("--machine", f"qemu:{machine['qmp']}", "--fleece", tmp_path, "--item", "again")
        disks = made("show", backed_up["id"], "--json").json["machine"]["disks"]
        assert [(disk["name"], disk["bus"]) for disk in disks] == [("sda", "virtio-blk-pci")]
        told = made("boot", "latest", "--item", "web", "--folder", folder, "--move", "--json").json
        assert (told["state"], told["point"]) == ("moved", little_point)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        told = json.loads(out.splitlines()[-1])
        assert (told["state"], told["process"]) == ("moved", machine["process"])
        assert told["read"] > 0
        assert guest.sh("cat /a/new") == "of the machine\n"
        guest.sh("touch /run/off")
        until(lambda: files(folder) == ["point.json", "sda.qcow2"], "the end of its sockets", 30)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--network", "bridge=a,b"], 2, "is no network"),
        (["--network", "lan"], 2, "is no network"),
        (["--vnc", "0.0.0.0:5900"], 2, "whoever reaches the screen"),
        (["--vnc", "127.0.0.1:80"], 2, "5900 or a higher port"),
        (["--vnc", "./store"], 1, "there is something already"),
        (["--vnc", "./a,b"], 2, "a comma"),
        (["--memory", "1"], 2, "--memory"),
    ],
)
def test_wrong_usage(made: Cli, arguments: list[str], code: int, said: str) -> None:
    assert said in made("boot", "latest", "--folder", "run", *arguments, code=code).err
    assert not (made.path / "run").exists()
