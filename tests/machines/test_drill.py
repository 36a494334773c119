# SPDX-License-Identifier: Apache-2.0
"""Whether a point starts, and how far it comes."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from keepstone.env import Env
from keepstone.errors import Unsupported
from keepstone.store import Store
from keepstone.workloads.machines import PointOfMachine
from keepstone.workloads.running import Accel, Outcome, Reached, State, drill
from keepstone.workloads.running.drilling import _Stillness
from keepstone.workloads.running.firmware import firmware
from keepstone.workloads.running.screen import Console, Screen
from tests.cli.conftest import cli, made
from tests.cli.running import Cli
from tests.machines.guest import Guest, make_disk, tools, until
from tests.machines.starting import alive, defined, little, point_of
from tests.unit.files.points import new_store
from tests.unit.images.disk import CHUNK, noise, sparse

__all__ = ["cli", "made"]

pytestmark = pytest.mark.vm

_PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def _tools() -> None:
    tools()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(Env(threads=2), tmp_path / "store")


@contextlib.contextmanager
def empty(store: Store, folder: Path) -> Iterator[PointOfMachine]:
    """A machine with a disk that nothing starts from."""
    with point_of(store, {"sda": sparse(folder / "sda", 4 * CHUNK, {0: noise(0.1)})}) as point:
        yield point


def drilled(point: PointOfMachine, folder: Path, **options: Any) -> Outcome:
    place = folder / "drill"
    place.mkdir()
    outcome = drill(Env(threads=2), point, place, accel=Accel.TCG, **options)
    assert list(place.iterdir()) == []
    return outcome


def test_a_machine_comes_up(made: Cli, guest: Guest) -> None:
    """By the command, from a backup of one that runs."""
    made.backup("--machine", f"qemu:{guest.qmp}", "--agent", guest.qga, "--fleece", made.path)
    place, picture = made.path / "place", made.path / "screen.png"
    place.mkdir()

    told = made("drill", "latest", "--screenshot", picture, "--folder", place, "--json").json

    assert (told["level"], told["reason"], told["shut_down"]) == ("agent", "the guest agent answers", True)
    assert 0 < told["seconds"] < told["total"]
    assert 0 < told["read"] < told["size"] // 20
    assert told["memory"] == 256 << 20
    found = {(one["state"], one.get("name"), one["kind"]) for one in told["file_systems"]}
    assert found == {("mounted", "/a", "ext4"), ("mounted", "/b", "ext4"), ("readable", None, "ext4")}
    assert sorted(one["disk"] for one in told["file_systems"] if one["state"] == "readable") == ["disk0", "disk1"]
    assert picture.read_bytes()[:8] == _PNG
    assert list(place.iterdir()) == []
    assert "is there already" in made("drill", "latest", "--screenshot", picture, code=1).err


def test_one_without_an_agent_asks_for_a_login(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not hear of the button that switches it off, so it is switched off in the end."""
    monkeypatch.setattr("keepstone.workloads.running.drilling._DOWN", 0.5)
    with point_of(store, {"sda": make_disk(tmp_path / "sda.raw", 16, "raw")}) as point:
        outcome = drilled(defined(point, little("agent=no", "prompt=ttyS0")), tmp_path)

    assert (outcome.level, outcome.reason) == (Reached.LOGIN, "the serial console asks for a login")
    assert outcome.seconds is not None
    assert not outcome.shut_down
    assert outcome.console.rstrip().endswith("login:")
    assert [(one.state, one.kind) for one in outcome.file_systems] == [(State.READABLE, "ext4")]
    assert msgspec.json.decode(msgspec.json.encode(outcome), type=Outcome) == outcome


@pytest.mark.slow
def test_one_with_uefi_comes_up(tmp_path: Path, store: Store) -> None:
    """With the host's firmware, and what its own had kept."""
    try:
        found = firmware(Env(), "x86_64", secure=False, nvram=None)
    except Unsupported:
        pytest.skip("no UEFI firmware is here; scripts/tools.sh installs it")
    shutil.copy(found.template, tmp_path / "kept")
    disks = {"sda": make_disk(tmp_path / "sda.raw", 16, "raw"), "nvram": tmp_path / "kept"}
    with point_of(store, disks) as point:
        outcome = drilled(defined(point, little("efi=debug")), tmp_path)

    assert outcome.level is Reached.AGENT
    assert outcome.console.startswith("EFI stub")


def test_one_that_cannot_start_shows_why(tmp_path: Path, store: Store) -> None:
    """Its firmware finds nothing, says so, and nothing happens any more."""
    with empty(store, tmp_path) as point:
        outcome = drilled(point, tmp_path, still=3.0)

    assert (outcome.level, outcome.seconds) == (Reached.SCREEN, None)
    assert outcome.reason == "no agent and no login came, and nothing happens any more; look at the screen"
    assert outcome.screenshot[:8] == _PNG
    assert outcome.read > 0
    assert outcome.file_systems == []


def test_time_is_bounded(made: Cli, tmp_path: Path) -> None:
    """Also of an image, of which nothing is known but its bytes."""
    made.backup("--image", sparse(tmp_path / "x.img", 2 * CHUNK, {0: noise(0.1)}))

    ended = made("drill", "latest", "--time-limit", "1", "--memory", "64", code=4)

    assert "none: neither an agent nor a login came within the time limit" in ended.out
    assert "64 MiB of memory" in ended.out


def test_a_point_that_is_damaged(tmp_path: Path, store: Store) -> None:
    """What is not there any more stops the machine; the guest is not told of an error."""
    with empty(store, tmp_path) as point:
        packs = sorted((tmp_path / "store/packs").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
        packs[-1].unlink()
        outcome = drilled(point, tmp_path)

    assert outcome.level is Reached.NONE
    assert outcome.reason.startswith("it stands still, because its disk cannot be read or written: ")
    assert packs[-1].name in outcome.reason
    assert [one.state for one in outcome.file_systems] == [State.UNREADABLE]


def test_one_whose_qemu_dies(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Screen.look

    def look(self: Screen) -> bytes:
        os.kill(self._monitor.process, signal.SIGKILL)
        return plain(self)

    monkeypatch.setattr(Screen, "look", look)
    with empty(store, tmp_path) as point:
        outcome = drilled(point, tmp_path)

    assert (outcome.level, outcome.reason) == (Reached.NONE, "QEMU ended: with -9")


def test_what_cannot_be_started(made: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    made.backup(tmp_path / "file")
    assert "no disk to start from" in made("drill", "latest", code=2).err


def test_a_command_that_is_killed_leaves_nothing(made: Cli, tmp_path: Path) -> None:
    made.backup("--image", sparse(tmp_path / "x.img", CHUNK, {0: noise(0.1)}))
    place = tmp_path / "place"
    place.mkdir()
    code = "import sys; from keepstone.cli import main; sys.exit(main())"
    words = ["store", "drill", "--store", made.store, "latest", "--folder", place, "--accel", "tcg"]
    with subprocess.Popen([sys.executable, "-c", code, *map(str, words)], stderr=subprocess.DEVNULL) as process:
        machine = until(lambda: _qemu(place), "QEMU")
        process.kill()
    until(lambda: not alive(machine) and not list(place.iterdir()), "the end of everything", 15)


def _qemu(folder: Path) -> int | None:
    """The QEMU that has its monitor in this folder."""
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = command.read_bytes()
            if words.startswith(b"/") and b"qemu-system" in words.split(b"\0")[0] and os.fsencode(folder) in words:
                return int(command.parent.name)
    return None


def test_stillness() -> None:
    """A cursor that blinks does not count; a third picture does, and so does what is read."""
    still = _Stillness(10)
    frames = [(1, b"a", 0), (6, b"b", 0), (11, b"a", 0), (12, b"c", 0), (21, b"a", 0), (23, b"a", 1), (32, b"a", 1)]
    assert [still.lasts(*frame) for frame in frames] == [False, False, True, False, False, False, False]
    assert still.lasts(33, b"c", 1)


@pytest.mark.parametrize(
    ("said", "asks"),
    [
        (b"\r\nDebian GNU/Linux 12 vm ttyS0\r\n\r\nvm login: ", True),
        (b"\x1b[0m\x1b[2Jvm\x1b[1m login:\x1b[0m ", True),
        (b"(none) login:", True),
        (b"\x1b]0;the title\x07vm login: ", True),
        (b"\x1b]" * 8000 + b" login: ", True),
        (b"vm login: root\r\nPassword: ", False),
        (b"starting the login: \r\n[ ok ]", False),
        (b"last login:x", False),
        (b"", False),
    ],
)
def test_a_login_prompt(said: bytes, asks: bool) -> None:
    console = Console(_Ring(said))  # type: ignore[arg-type]
    console.look()
    assert console.asks_for_login == asks
    assert console.count == len(said)


class _Ring:
    """A monitor whose ring holds this."""

    def __init__(self, said: bytes) -> None:
        self._said = said

    def execute(self, command: str, **arguments: Any) -> str:
        return base64.b64encode(self._said).decode()
