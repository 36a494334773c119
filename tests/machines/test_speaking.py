# SPDX-License-Identifier: Apache-2.0
"""Monitors and agents that hang, lie or talk nonsense: each ends with an error that says who it was, and in time."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from keepstone.env import Env
from keepstone.errors import SourceFailed, SourceMissing
from keepstone.workloads.kvm import qmp
from keepstone.workloads.kvm.agent import Agent, AgentFailed, AgentRefused
from keepstone.workloads.kvm.drives import drives
from keepstone.workloads.kvm.freeze import frozen
from keepstone.workloads.kvm.qmp import Gone, Monitor, Refused
from keepstone.workloads.machines import Level

pytestmark = pytest.mark.vm

_GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\r\n'


@contextlib.contextmanager
def served(place: Path, answer: Callable[[socket.socket], None]) -> Iterator[Path]:
    """A socket whose next client is answered so."""
    path = place / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield path
        thread.join(10)


def talk(*answers: bytes) -> Callable[[socket.socket], None]:
    """Greet, agree, then answer each command with the next of these, in which ID is the command's."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(_GREETING)
        lines = [b'{"return": {}, "id": ID}', *answers]
        for number, line in enumerate(lines, 1):
            connection.recv(4096)
            connection.sendall(line.replace(b"ID", b"%d" % number) + b"\r\n")
        connection.recv(4096)

    return answer


def test_what_belongs_to_nobody_is_left_out(tmp_path: Path) -> None:
    """Events, and answers that come after their commands were given up."""
    event = b'{"event": "STOP", "timestamp": {}}\r\n'
    answer = event + b'{"return": "late", "id": 1}\r\n' + event + b'{"return": "mine", "id": ID}'
    with served(tmp_path, talk(answer)) as path, Monitor(Env(), path) as monitor:
        assert monitor.execute("query-status") == "mine"


def test_a_refusal_has_the_words_of_qemu(tmp_path: Path) -> None:
    answer = b'{"error": {"class": "GenericError", "desc": "No such node"}, "id": ID}'
    with (
        served(tmp_path, talk(answer)) as path,
        Monitor(Env(), path) as monitor,
        pytest.raises(Refused, match="QEMU refuses blockdev-del: No such node"),
    ):
        monitor.execute("blockdev-del", node_name="x")


@pytest.mark.parametrize("first", [b"", b"nonsense\n", b"[1]\n", b'{"return": {}}\n', b'{"QMP": 7}\n'])
def test_what_is_no_monitor(tmp_path: Path, first: bytes) -> None:
    with served(tmp_path, lambda connection: connection.sendall(first)) as path, pytest.raises(Gone):
        Monitor(Env(), path)


def test_a_monitor_that_is_taken(tmp_path: Path) -> None:
    """QEMU talks to one client; others wait in line for its greeting."""
    over = threading.Event()

    def silent(connection: socket.socket) -> None:
        over.wait(10)

    with served(tmp_path, silent) as path:
        with pytest.raises(Gone, match="has another client already"):
            Monitor(Env(), path, timeout=0.2)
        over.set()


def test_a_monitor_that_stops_answering(tmp_path: Path) -> None:
    over = threading.Event()

    def answer(connection: socket.socket) -> None:
        for line in (_GREETING, b'{"return": {}, "id": 1}\n', b'{"return"'):
            connection.sendall(line)
        over.wait(10)

    with served(tmp_path, answer) as path, Monitor(Env(), path, timeout=0.3) as monitor:
        with pytest.raises(Gone, match="does not answer"):
            monitor.execute("query-status")
        with pytest.raises(Gone):
            monitor.execute("query-status")
        over.set()


def test_an_answer_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qmp, "_LONGEST", 1 << 20)
    with (
        served(tmp_path, talk(b"x" * (3 << 20))) as path,
        Monitor(Env(), path) as monitor,
        pytest.raises(Gone, match="does not end its answer"),
    ):
        monitor.execute("query-status")


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="is the machine running"):
        Monitor(Env(), tmp_path / "none")
    with pytest.raises(Gone, match="cannot be reached"):
        Monitor(Env(), tmp_path / ("x" * 200))


@pytest.mark.parametrize(
    "blocks",
    [
        "no list",
        [{"device": 7}],
        [{"inserted": {"node-name": "d0", "drv": "raw", "ro": False, "image": {"virtual-size": "big"}}}],
        [{"inserted": {"node-name": "d0", "drv": "raw", "ro": False, "image": {"virtual-size": -1}}}],
        [{"inserted": {"node-name": "d0", "drv": "raw", "ro": False, "image": {"virtual-size": 1 << 62}}}],
    ],
)
def test_disks_that_make_no_sense(tmp_path: Path, blocks: Any) -> None:
    answer = json.dumps({"return": blocks, "id": 2}).encode()
    with (
        served(tmp_path, talk(answer)) as path,
        Monitor(Env(), path) as monitor,
        pytest.raises(SourceFailed, match=r"known|cannot be"),
    ):
        drives(monitor)


def test_disks_get_names_that_files_can_have(tmp_path: Path) -> None:
    def block(device: str, qdev: str, node: str) -> dict[str, Any]:
        inserted = {"node-name": node, "drv": "raw", "ro": False, "image": {"virtual-size": 7}}
        return {"device": device, "qdev": qdev, "inserted": inserted}

    blocks = [
        block("", "/machine/peripheral/root/virtio-backend", "n0"),
        block("", "/machine/peripheral/root/virtio-backend", "n1"),
        block("../../etc", "/machine/unattached/device[1]", "#block7"),
        block("", "/machine/peripheral/../virtio-backend", "x" * 200),
    ]
    refused = b'{"error": {"class": "GenericError", "desc": "no"}, "id": ID}'
    answers = [json.dumps({"return": blocks, "id": 2}).encode(), refused, refused, refused, refused]
    with served(tmp_path, talk(*answers)) as path, Monitor(Env(), path) as monitor:
        assert [drive.disk.name for drive in drives(monitor)] == ["root", "n1", "disk-0", "disk-1"]


def agent(*answers: bytes) -> Callable[[socket.socket], None]:
    """Agree, then answer each command with the next of these."""

    def answer(connection: socket.socket) -> None:
        asked = json.loads(connection.recv(4096).lstrip(b"\xff"))
        stale = b'half of one}\n{"return": {}}\n'
        connection.sendall(stale + b'\xff{"return": %d}\n' % asked["arguments"]["id"])
        for line in answers:
            connection.recv(4096)
            connection.sendall(line + b"\n")
        connection.recv(4096)

    return answer


def test_an_agent_begins_with_what_is_its_own(tmp_path: Path) -> None:
    with served(tmp_path, agent(b'{"return": "thawed"}', b'{"error": {"desc": "disabled"}}')) as path:
        speaking = Agent(Env(), path, timeout=5)
        assert speaking.ask("guest-fsfreeze-status", timeout=5) == "thawed"
        with pytest.raises(AgentRefused, match="refuses guest-fsfreeze-freeze: disabled"):
            speaking.ask("guest-fsfreeze-freeze", timeout=5)
        speaking.close()


@pytest.mark.parametrize("answer", [b"nonsense", b"7", b""])
def test_an_agent_that_talks_nonsense(tmp_path: Path, answer: bytes) -> None:
    with served(tmp_path, agent(answer)) as path:
        speaking = Agent(Env(), path, timeout=5)
        with pytest.raises(AgentFailed, match="guest agent"):
            speaking.ask("guest-fsfreeze-status", timeout=0.5)
        speaking.close()


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (["thawed", 0, 0], "found no file system to freeze"),
        (["thawed", 2, 0], "did not stay frozen until all disks were held"),
    ],
)
def test_what_an_agent_says_of_the_freeze(tmp_path: Path, answers: list[Any], reason: str) -> None:
    """It is not called consistent unless there was something that stayed frozen until then."""
    lines = [json.dumps({"return": value}).encode() for value in answers]
    moments: list[None] = []
    with served(tmp_path, agent(*lines)) as path:
        consistency = frozen(Env(), path, lambda: moments.append(None), lambda message: None, answer=5, freeze=5)
    assert consistency.level is Level.CRASH
    assert reason in consistency.reason
    assert len(moments) == 1
