# SPDX-License-Identifier: Apache-2.0
"""The service as people start and stop it: real processes, real sockets, and signals in the middle of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from keepstone.control import people
from keepstone.control.installation import Installation
from keepstone.env import Env
from keepstone.server import instance
from keepstone.server.processes import Processes
from tests.cli.services import PROGRAM, Service, Stepping, until
from tests.contract.databases import new_database

pytestmark = pytest.mark.service
ANSWERERS = {f"answerer-{number + 1}" for number in range(min(2, len(os.sched_getaffinity(0))))}


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that a first start has made: its keys are dear, a copy is not."""
    service = Service(tmp_path_factory.mktemp("begun") / "service")
    with service.attached():
        pass
    return service.root


def copy(begun: Path, root: Path) -> None:
    """Without the sockets that it had while it ran."""
    shutil.copytree(begun, root, ignore=shutil.ignore_patterns("*.sock"))


@pytest.fixture(scope="module")
def shared(begun: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, dict[str, Any]]]:
    """A service that runs in a copy of it, for tests that leave it as it is; and what it said."""
    root = tmp_path_factory.mktemp("shared") / "service"
    copy(begun, root)
    service = Service(root)
    with service.running() as up:
        yield service, up


@pytest.fixture
def service(begun: Path, tmp_path: Path) -> Service:
    """A copy of it. Nothing runs there."""
    copy(begun, tmp_path / "service")
    return Service(tmp_path / "service")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_first_start_tells_all_once_and_a_restart_keeps_everything(tmp_path: Path) -> None:
    service = Service(tmp_path / "deep" / "service")
    with service.running("--location", "berlin") as first:
        password = first["first_start"]["password"]
        assert first["location"] == "berlin"
        assert service.ask("GET", "/healthz").body["status"] == "ok"
        setup = service("az-setup")
        assert setup == setup | {name: first[name] for name in ("endpoint", "tenant", "subscription", "ca")}
        token = service.log_in(setup)
        until(lambda: {line["process"] for line in service.lines()} >= {"worker-1", *ANSWERERS}, "all begin")
        listed = service.ask("GET", "/subscriptions?api-version=2022-12-01", token=token).body["value"]
        assert [one["subscriptionId"] for one in listed] == [first["subscription"]]
        authority = Path(first["ca"]).read_bytes()
        assert service("down") == {"stopped": True, "pid": first["pid"]}
        assert not is_alive(first["pid"])

    with service.running() as again:
        kept = ("tenant", "subscription", "location", "ca", "data")
        assert {name: again[name] for name in kept} == {name: first[name] for name in kept}
        assert "first_start" not in again
        assert Path(again["ca"]).read_bytes() == authority
        later = service.ask("GET", "/subscriptions?api-version=2022-12-01", token=service.log_in(setup))
        assert later.body["value"] == listed

    plane = Installation(Env(), service.root).plane()
    assert people.log_in(plane, "admin", password).kind == "user"
    plane.database.close()
    for path in [service.root, *service.root.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    written = b"".join(path.read_bytes() for path in (service.root / "log").iterdir())
    for secret in (password, setup["client_secret"], token):
        assert secret.encode() not in written
    lines = service.lines()
    assert all({"time", "level", "process", "message"} <= line.keys() for line in lines)
    asked = next(line for line in lines if line.get("operation") == "subscriptions.list")
    assert asked["message"] == "GET /subscriptions"
    assert asked["status"] == 200
    assert 0 < asked["seconds"] < 60
    assert len(asked["request"]) == 36
    assert {line["process"] for line in lines} >= {"server", "worker-1", *ANSWERERS}
    assert (service.root / "log" / "crash.log").read_bytes() == b""


def test_people_are_told_what_the_first_start_made(tmp_path: Path) -> None:
    service = Service(tmp_path / "service")

    out = service.start("--workers", 0)

    answered = service.ask("GET", "/healthz").status
    service("down")
    words = out.split()
    password = words[words.index("password:") + 1]
    assert answered == 200
    assert len(password) == 32
    assert re.search(r"^Keepstone answers at https://localhost:\d+; its authority is (.*)$", out, re.MULTILINE)
    assert f"its authority is {service.root / 'tls' / 'ca.pem'}\n" in out
    assert password not in service.log.read_text()


def test_one_service_for_a_folder_one_for_a_port(shared: tuple[Service, dict[str, Any]], tmp_path: Path) -> None:
    service, first = shared
    port = urlsplit(first["endpoint"]).port

    second = service.up(code=1)
    other = Service(tmp_path / "other")
    taken = other.up("--port", port, code=1)

    assert second["error"]["code"] == taken["error"]["code"] == "Conflict"
    assert f"{first['endpoint']} (process {first['pid']})" in second["error"]["message"]
    assert f"127.0.0.1:{port}" in taken["error"]["message"]
    assert {path.name for path in other.root.iterdir()} == {"run"}
    assert service.ask("GET", "/healthz").status == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_in_the_foreground_a_signal_stops_it(service: Service, number: signal.Signals) -> None:
    with service.attached() as (process, said):
        assert service.ask("GET", "/healthz").status == 200
        assert instance.running(service.root) == instance.Running(
            pid=process.pid, url=said["endpoint"], probe=said["endpoint"].replace("localhost", "127.0.0.1")
        )
        process.send_signal(number)

        assert process.wait(60) == 0
        log = service.root.with_name("service.stderr").read_text()
        assert [json.loads(line)["message"] for line in log.splitlines()][-1] == "stopped"
        assert instance.running(service.root) is None


def test_a_request_in_flight_is_answered_before_the_end(service: Service) -> None:
    with service.attached() as (process, said):
        url = urlsplit(said["endpoint"])
        context = ssl.create_default_context(cafile=service.root / "tls" / "ca.pem")
        with (
            socket.create_connection(("127.0.0.1", url.port or 0), 60) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            head = "POST /adfs/oauth2/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 15\r\n"
            connection.sendall(f"{head}Content-Type: application/x-www-form-urlencoded\r\n\r\ngrant".encode())
            until(lambda: service.ask("GET", "/healthz").status == 200, "the first half is with the service by now")
            process.terminate()
            until(lambda: _refuses(url.port or 0), "it takes no connection any more")
            log = service.root.with_name("service.stderr")
            until(lambda: "Waiting for connections to close" in log.read_text(), "it waits for this one")

            connection.sendall(b"_type=xyz1")

            answer = b"".join(iter(lambda: connection.recv(4096), b""))
        assert answer.startswith(b"HTTP/1.1 400")
        assert b"unsupported_grant_type" in answer
        assert process.wait(60) == 0


def _refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 60).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_killed_worker_is_replaced_and_its_job_goes_on_where_it_was(service: Service) -> None:
    stepping = Stepping(service.root)
    with service.attached(command=stepping.command):
        job = stepping.ask()
        first = stepping.wait_for(2)

        os.kill(first, signal.SIGKILL)
        began = time.monotonic()
        second = stepping.wait_for(2, but=first)

        assert time.monotonic() - began < 25  # not the thirty seconds of its lease
        stepping.gate.touch()
        until(lambda: stepping.row(job)["status"] == "Completed", "the job ends")
        assert stepping.taken() == [(first, 0), (first, 1), (first, 2), (second, 2), (second, 3)]
        assert stepping.row(job)["attempt"] == 2
        assert b"keepstone_worker_restarts_total 1.0" in service.ask("GET", "/metrics").content
    messages = [line["message"] for line in service.lines()]
    assert any(message.startswith("worker-1 was killed by signal 9 after") for message in messages)
    steps = [line for line in service.lines() if line.get("job") == str(job)]
    assert [line["message"] for line in steps] == ["job begins", "job begins, attempt 2", "job is done"]
    assert {line["operation"] for line in steps} == {"Steps"}


def test_a_stop_hands_a_long_job_back_and_the_next_start_goes_on(service: Service) -> None:
    stepping = Stepping(service.root)
    with service.attached(command=stepping.command) as (process, _):
        job = stepping.ask()
        first = stepping.wait_for(2)

        process.terminate()

        assert process.wait(60) == 0
        assert not is_alive(first)
        left = stepping.row(job)
        assert (left["status"], left["owner"], left["attempt"], left["state"]) == ("Queued", None, 0, {"next": 2})
    stepping.gate.touch()
    with service.attached(command=stepping.command):
        until(lambda: stepping.row(job)["status"] == "Completed", "the job ends")

    assert [step for _, step in stepping.taken()] == [0, 1, 2, 2, 3]
    assert stepping.row(job)["attempt"] == 1


def test_nothing_outlives_a_killed_server(service: Service) -> None:
    stepping = Stepping(service.root)
    with service.attached(command=stepping.command) as (process, said):
        job = stepping.ask()
        worker = stepping.wait_for(2)
        others = Processes.read(service.root).pids
        assert (others.pop("server"), others["worker-1"]) == (process.pid, worker)
        assert others.keys() >= ANSWERERS

        process.kill()

        process.wait(60)
        with service.attached("--port", str(urlsplit(said["endpoint"]).port)):  # where they answer, and at once
            until(lambda: not any(map(is_alive, others.values())), "the others end too")
        assert stepping.row(job)["status"] == "Queued"
        assert instance.running(service.root) is None
    stepping.gate.touch()
    with service.attached(command=stepping.command):
        until(lambda: stepping.row(job)["status"] == "Completed", "the job ends")


def test_a_start_that_fails_in_the_background_shows_the_log(service: Service) -> None:
    (service.root / "issuer.key").write_text("no key")

    failed = service.up(code=1)

    message = failed["error"]["message"]
    assert message.startswith("the service ended with 1 before it answered; its log ends so:\n")
    line = json.loads(message.splitlines()[-1])
    assert line["level"] == "error"
    assert "Traceback" in line["trace"]
    # whichever of them fell first: the other is stopped, perhaps before it falls too
    assert re.search(r'"process":"answerer-\d","message":"this answerer fell over a fault","trace":"Traceback', message)
    assert instance.running(service.root) is None


def test_a_first_start_that_fails_has_told_the_password_all_the_same(tmp_path: Path) -> None:
    service = Service(tmp_path / "service")
    (service.root / "log").mkdir(parents=True, mode=0o700)
    (service.root / "log" / "keepstone.log").mkdir()  # it cannot log

    failed = service.up(code=1)

    assert len(failed["first_start"]["password"]) == 32
    assert "keepstone.log" in failed["error"]["message"]


def test_down_where_nothing_runs(service: Service, tmp_path: Path) -> None:
    assert service("down") == {"stopped": False}
    assert Service(tmp_path / "nothing")("down", code=10)["error"]["code"] == "StoreMissing"
    assert not (tmp_path / "nothing").exists()


def test_a_service_that_does_not_stop_in_time_is_named(service: Service) -> None:
    with service.attached() as (process, _):
        process.send_signal(signal.SIGSTOP)
        try:
            failed = service("down", "--timeout", 0.1, code=1)
        finally:
            process.send_signal(signal.SIGCONT)

        assert f"kill -9 {process.pid}" in failed["error"]["message"]
        assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--host", "192.0.2.7"), "BadRequest", "no address 192.0.2.7"),
        (("--host", "no.such.host.invalid"), "BadRequest", "no.such.host.invalid"),
        (("--location", "elsewhere"), "BadRequest", "leave --location out"),
        (("--database", "postgresql+psycopg://u:secret@elsewhere/db"), "BadRequest", "leave --database out"),
    ],
)
def test_what_cannot_be_done_is_refused(service: Service, arguments: tuple[str, ...], code: str, words: str) -> None:
    failed = service.up(*arguments, code=2)

    assert failed["error"]["code"] == code
    assert words in failed["error"]["message"]
    assert "secret" not in failed["error"]["message"]


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.odt").touch()

    failed = Service(tmp_path).up(code=2)

    assert "thesis.odt" in failed["error"]["message"]
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.odt"]


def test_az_setup_gives_the_role_that_was_asked_for(shared: tuple[Service, dict[str, Any]]) -> None:
    service, up = shared
    reader = service("az-setup", "--role", "Reader", "--scope", f"/subscriptions/{up['subscription']}")
    path = f"/subscriptions/{up['subscription']}/resourceGroups/g?api-version=2024-11-01"
    token = service.log_in(reader)

    assert service.ask("GET", path, token=token).status == 404
    assert service.ask("PUT", path, '{"location": "onprem1"}', token=token).status == 403
    assert "Reader" in service("az-setup", "--role", "Rider", code=3)["error"]["message"]
    assert service("az-setup", "--scope", "/subscriptions/other", code=2)["error"]["code"] == "BadRequest"


def test_what_az_setup_shows_can_be_pasted(shared: tuple[Service, dict[str, Any]]) -> None:
    service, up = shared
    *recipe, told = service.text("az-setup").splitlines()

    script = "az() { printf '%s|' \"$@\"; echo; }\n" + "\n".join(recipe) + "\necho $REQUESTS_CA_BUNDLE"
    done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=True).stdout.splitlines()
    register, choose, setting, login, register_b, choose_b, login_b, ca = done
    assert register == f"cloud|register|-n|Keepstone|--endpoint-resource-manager|{up['endpoint']}|"
    assert register_b == f"{register}--endpoint-active-directory|{up['endpoint']}/adfs|"
    assert (choose, setting) == ("cloud|set|-n|Keepstone|", "config|set|core.instance_discovery=false|")
    assert (choose_b, login_b, ca) == (choose, login, up["ca"])
    words = login.split("|")
    shown = {"tenant": words[7], "client_id": words[3], "client_secret": words[5]}
    assert [*words[:3], words[4], words[6]] == ["login", "--service-principal", "-u", "-p", "--tenant"]
    assert service.log_in(shown)
    assert told == "The principal is Owner at /. Its secret is shown this once."


def test_az_setup_needs_an_address(service: Service) -> None:
    (service.root / "run" / "lock").unlink()

    assert "keepstone up" in service("az-setup", code=1)["error"]["message"]


def test_names_are_in_the_certificate_and_stay_there(service: Service) -> None:
    for names in (("--name", "vault.example"), ()):
        with service.attached("--host", "127.0.0.2", *names) as (_, said):
            url = urlsplit(said["endpoint"])
            context = ssl.create_default_context(cafile=service.root / "tls" / "ca.pem")
            for name in ("vault.example", "127.0.0.2", "localhost"):
                with (
                    socket.create_connection(("127.0.0.2", url.port or 0), 60) as plain,
                    context.wrap_socket(plain, server_hostname=name) as connection,
                ):
                    assert connection.version() == "TLSv1.3"


def test_on_postgresql_every_command_finds_the_database(tmp_path: Path) -> None:
    service = Service(tmp_path / "service")
    with new_database("postgresql", tmp_path) as url:
        with service.running("--database", url) as up:
            assert service.log_in(service("az-setup"))
            until(lambda: service.ask("GET", "/healthz").body["workers"] == 1, "the worker begins")
            checks = {check["check"]: check for check in service("doctor")["checks"]}
            assert checks["database"]["message"].startswith("it answers")
        assert not (service.root / "keepstone.db").exists()
        with service.running("--workers", 0) as again:
            assert again["subscription"] == up["subscription"]


def test_the_doctor_finds_nothing_and_then_what_is_wrong(service: Service) -> None:
    with service.running() as up:
        well = service("doctor")
        assert well["ok"]
        assert [check["check"] for check in well["checks"] if not check["ok"] or check["todo"]] == []
        assert f"process {up['pid']} answers at {up['endpoint']}" in service.text("doctor")

        (service.root / "issuer.key").chmod(0o644)
        ill = service("doctor", code=1)
        assert [check["check"] for check in ill["checks"] if not check["ok"]] == ["data folder"]
        assert f"chmod -R go= {service.root}" in service.text("doctor", code=1)

    ill = service("doctor", code=1)
    assert [check["check"] for check in ill["checks"] if not check["ok"]] == [
        "data folder", "service", "answerers", "workers"
    ]  # fmt: skip


def test_the_folder_may_come_from_the_environment(service: Service) -> None:
    service.environment["KEEPSTONE_DATA"] = str(service.root)

    ended = subprocess.run(
        [*PROGRAM, "down", "--json"], capture_output=True, text=True, env=service.environment, check=True
    )

    assert json.loads(ended.stdout) == {"stopped": False}
