# SPDX-License-Identifier: Apache-2.0
"""Processes that a server keeps alive: heard, told, started anew when they die, stopped at the end."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from keepstone.env import Env
from keepstone.server import children as module
from keepstone.server.children import Birth, Children
from tests.cli.services import until
from tests.unit.server.conftest import Heard

pytestmark = [pytest.mark.service, pytest.mark.usefixtures("logging_as_before")]

GOOD = """
import json, os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
from keepstone.server import parent
def say(what): print(json.dumps({"message": what, "who": sys.argv[1]}), file=sys.stderr, flush=True)
def gone():
    say("told to stop")
    os._exit(0)
signal.signal(signal.SIGINT, lambda *_: say("told to hurry"))
say("begun")
parent.hear(lambda line: say(f"heard {line}"), gone)
parent.say_ready()
while True: signal.pause()
"""
STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("{}", file=sys.stderr, flush=True)
while True: time.sleep(1)
"""
DYING = "import sys; print('half a li', end='', file=sys.stderr); sys.exit('ne')"
TALKING = """
import sys
sys.stderr.write("".join(f'{{"number":{number},"more":"{"x" * 100}"}}\\n' for number in range(20_000)))
sys.stderr.flush()
sys.stdin.read()
"""
Start = Callable[..., AbstractContextManager[Children]]


@pytest.fixture
def started() -> Start:
    @contextmanager
    def start(program: str, count: int = 1, **more: Any) -> Iterator[Children]:
        children = Children(Env(), "child", count, lambda name: Birth([sys.executable, "-c", program, name]), **more)
        children.start()
        try:
            yield children
        finally:
            children.stop()

    return start


def test_they_are_heard_and_told(started: Start, heard: Heard) -> None:
    ready, changes = threading.Semaphore(0), threading.Semaphore(0)
    with started(GOOD, 2, ready=ready.release, changed=changes.release) as children:
        for semaphore in (ready, ready, changes, changes):
            assert semaphore.acquire(timeout=60)
        assert children.alive().keys() == {"child-1", "child-2"}
        children.send("one thing")
        children.send("another")
        until(lambda: len(heard.having("heard another")) == 2, "both hear")
        children.hurry()
        until(lambda: len(heard.having("told to hurry")) == 2, "both are in a hurry")

    assert children.alive() == {}
    assert changes.acquire(timeout=0)
    said = [json.loads(line) for line in heard.lines]
    for name in ("child-1", "child-2"):
        mine = [line["message"] for line in said if line["who"] == name]
        assert mine == ["begun", "heard one thing", "heard another", "told to hurry", "told to stop"]
    assert children.restarts == 0


def test_all_have_begun_when_the_start_is_over(started: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever hears that a service is ready finds its processes."""
    plain = subprocess.Popen

    def late(*arguments: Any, **more: Any) -> subprocess.Popen[bytes]:
        time.sleep(0.3)  # as on a machine that has much to do
        return plain(*arguments, **more)

    changes: list[int] = []
    monkeypatch.setattr(subprocess, "Popen", late)
    with started(GOOD, 2, changed=lambda: changes.append(1)) as children:
        assert children.alive().keys() == {"child-1", "child-2"}
        assert len(changes) == 2


def test_all_that_one_says_is_passed_on_in_order(started: Start, heard: Heard) -> None:
    with started(TALKING):
        until(lambda: len(heard.lines) == 20_000, "all is said")

    assert [json.loads(line)["number"] for line in heard.lines] == list(range(20_000))


def test_one_that_dies_is_started_anew_ever_later(started: Start, heard: Heard) -> None:
    deaths = threading.Semaphore(0)
    buried: list[str] = []

    def birth(name: str) -> Birth:
        return Birth([sys.executable, "-c", DYING], bury=lambda: buried.append(name))

    children = Children(Env(), "child", 1, birth, died=deaths.release)
    children.start()
    for _ in range(3):
        assert deaths.acquire(timeout=60)
    children.send("nobody hears")
    children.stop()

    ended = heard.having("child-1 ended with 1 after")
    assert [line.rpartition(" ")[2] for line in ended[:3]] == ["0.2", "0.4", "0.8"]
    assert heard.having("child-1: half a line")
    assert len(buried) >= 3
    assert children.restarts >= 3


def test_one_that_cannot_be_started_is_tried_again(tmp_path: Path, heard: Heard) -> None:
    ready, deaths = threading.Semaphore(0), threading.Semaphore(0)
    commands = iter([[str(tmp_path / "nothing")], [sys.executable, "-c", GOOD, "child-1"]])
    children = Children(Env(), "child", 1, lambda name: Birth(next(commands)), ready=ready.release, died=deaths.release)
    children.start()
    try:
        assert deaths.acquire(timeout=60)
        assert ready.acquire(timeout=60)
    finally:
        children.stop()

    assert heard.having("child-1 could not be started ([Errno 2]")
    assert children.restarts == 1


def test_one_that_does_not_stop_is_killed(started: Start, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    with started(STUBBORN) as children:
        until(lambda: heard.having("{}"), "it begins")

    assert children.alive() == {}
    assert heard.having("child-1 has not stopped within")


def test_what_never_began_has_stopped() -> None:
    Children(Env(), "child", 2, lambda name: Birth(["false"])).stop()


def test_a_stop_before_the_start_starts_nothing(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    command = [sys.executable, "-c", f"open({str(begun)!r}, 'w')"]
    children = Children(Env(), "child", 1, lambda name: Birth(command))
    children.tell()
    children.start()
    children.stop()

    assert not begun.exists()
