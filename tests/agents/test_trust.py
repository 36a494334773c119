# SPDX-License-Identifier: Apache-2.0
"""Who is let in, and whom an agent believes; and a machine that lies, over HTTPS."""

from __future__ import annotations

import _ssl
import ctypes
import json
import os
import socket
import ssl
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from keepstone.agent.identity import Credentials, _key, _request, register
from keepstone.agentapi.callers import key_of as named
from keepstone.catalogue import agents as rows
from keepstone.env import Env
from keepstone.errors import (
    AccessDenied,
    CorruptObject,
    InvalidRequest,
    JobLost,
    KeepstoneError,
    Unauthenticated,
)
from keepstone.identity import Authority, Issued
from keepstone.remote.calls import Broken, Calls
from keepstone.remote.service import HttpPoint, HttpSession
from keepstone.remote.wire import Beat, Begin, Commit, Fetch, Pulse, Wanted, encode, frame_record
from tests.agents.living import Hand, Living, Machine
from tests.cli.services import until

pytestmark = pytest.mark.agents

MakeHand = Callable[..., Hand]


@pytest.fixture
def item(machine: Machine, source: Path) -> Path:
    machine.protect(source)
    return source


class Behind(Env):
    """A clock that is wrong."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._off = int(seconds * 1e9)

    def wall_time(self) -> int:
        return super().wall_time() + self._off


# ---------------------------------------------------------------------------------------------------- certificates


def certificate(machine: Machine) -> x509.Certificate:
    return x509.load_pem_x509_certificate((machine.home / "agent" / "state" / "machine.pem").read_bytes())


def reissue(machine: Machine, until: float) -> None:
    """Its certificate ends so many seconds from now, as if it had been made earlier."""
    living, folder = machine.living, machine.home / "agent" / "state"
    hours = 1
    env = Behind(until - hours * 3600)
    made = authority_of(living, env).machine(_request(_key(folder), machine.name), machine.name, hours)
    (folder / "machine.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    about = json.loads((folder / "agent.json").read_text())
    (folder / "agent.json").write_text(json.dumps(about | {"until": made.not_valid_after_utc.timestamp()}))
    with living.plane.database.change() as connection:
        mine = rows.c.key == key_of(machine)
        connection.execute(rows.update().where(mine).values(until=made.not_valid_after_utc))


def key_of(machine: Machine) -> str:
    return named(certificate(machine).public_bytes(serialization.Encoding.DER))


def authority_of(living: Living, env: Env) -> Authority:
    tls = living.service.root / "tls"
    return Authority(env, Issued((tls / "ca.pem").read_bytes(), (tls / "ca.key").read_bytes()))


def test_a_certificate_that_has_ended_is_renewed(machine: Machine, source: Path) -> None:
    reissue(machine, -3600)
    old = certificate(machine).serial_number

    with machine.running():
        machine.protect(source)
        machine.back_up(source)

    assert certificate(machine).serial_number != old
    assert "new certificate" in machine.said()


def test_also_where_the_machines_clock_does_not_see_its_end(machine: Machine, source: Path) -> None:
    """It is the service's clock that counts: what it takes for ended is renewed."""
    reissue(machine, -3600)
    folder = machine.home / "agent" / "state"
    about = json.loads((folder / "agent.json").read_text())
    (folder / "agent.json").write_text(json.dumps(about | {"until": time.time() + 86_000}))

    with machine.running():
        machine.protect(source)
        machine.back_up(source)

    assert "new certificate" in machine.said()


def test_one_that_is_about_to_end_is_renewed_while_a_job_runs(machine: Machine, source: Path) -> None:
    reissue(machine, 600)
    (source / "more").write_bytes(os.urandom(3_000_000))
    machine.configure('[limits]\nbandwidth = "1 MB"\n')

    with machine.running():
        machine.hears("new certificate")
        machine.protect(source)
        machine.back_up(source)


def test_an_authority_that_nobody_knows(machine: Machine, tmp_path: Path) -> None:
    other = Living(tmp_path / "other")
    other.up()
    try:
        foreign = other.machine("x")
        folder = machine.home / "agent" / "state"
        about = json.loads((folder / "agent.json").read_text())
        (folder / "agent.json").write_text(json.dumps(about | {"url": other.url}))
        with machine.running():
            machine.hears("is not to be trusted")
            assert machine.process is not None
            assert machine.process.poll() is None  # it goes on asking
        calls = Calls(Env(), other.url, lambda: mixed(machine, other), patience=0.0)
        with pytest.raises(Broken):  # its certificate is of another authority
            calls.once("pulse", [encode(Pulse(version="", room=0))])
        calls.close()
        assert foreign.name == "x"
    finally:
        other.down()


def mixed(machine: Machine, other: Living) -> ssl.SSLContext:
    """Trusts the other service, and is this machine."""
    context = ssl.create_default_context(cafile=other.service.root / "tls" / "ca.pem")
    folder = machine.home / "agent" / "state"
    context.load_cert_chain(folder / "machine.pem", folder / "machine.key")
    return context


def test_clocks_that_are_years_off(machine: Machine, hand: MakeHand) -> None:
    """OpenSSL is told that it is another time than it is: it says which certificate is wrong, and the agent why."""
    one = hand()
    for years, word in ((-5, "not valid yet"), (5, "over")):
        context = one.identity.context()
        at_time(context, int(time.time()) + years * 365 * 86_400)
        calls = Calls(Env(), machine.living.url, lambda context=context: context, patience=0.0)  # type: ignore[misc]
        with pytest.raises(AccessDenied, match=word) as refused:
            calls.once("pulse", [encode(Pulse(version="", room=0))])
        calls.close()
        assert "the clock of this machine may be wrong" in str(refused.value)


def at_time(context: ssl.SSLContext, moment: int) -> None:
    """Certificates are looked at as of this moment (X509_VERIFY_PARAM_set_time(3); `PySSLContext` of CPython)."""
    library = ctypes.CDLL(_ssl.__file__)  # and what it is linked with: other libraries may have an OpenSSL of their own
    library.SSL_CTX_get0_param.restype = ctypes.c_void_p
    library.SSL_CTX_get0_param.argtypes = [ctypes.c_void_p]
    library.X509_VERIFY_PARAM_set_time.argtypes = [ctypes.c_void_p, ctypes.c_long]
    inside = ctypes.c_void_p.from_address(id(context) + 2 * ctypes.sizeof(ctypes.c_void_p)).value
    library.X509_VERIFY_PARAM_set_time(library.SSL_CTX_get0_param(inside), moment)


def test_nobody_without_a_certificate(machine: Machine) -> None:
    context = ssl.create_default_context(cafile=machine.living.service.root / "tls" / "ca.pem")
    calls = Calls(Env(), machine.living.url, lambda: context, patience=0.0)
    for path in ("pulse", "end", "sessions/begin", "sessions/records?session=x", "points/fetch", "points/open", "any"):
        with pytest.raises(Unauthenticated, match="register this machine first"):
            calls.once(path, [b""])
    calls.close()


def test_names_that_strangers_make_up_are_not_counted(machine: Machine) -> None:
    context = ssl.create_default_context(cafile=machine.living.service.root / "tls" / "ca.pem")
    calls = Calls(Env(), machine.living.url, lambda: context, patience=0.0)
    for number in range(3):
        with pytest.raises(Unauthenticated):
            calls.once(f"made-up-{number}", [b""])
    calls.close()

    figures = machine.living.service.ask("GET", "/metrics").content.decode()

    assert 'operation="agent"' in figures
    assert "made-up" not in figures


# ---------------------------------------------------------------------------------------------------- lies


def test_a_session_of_another_machine(machine: Machine, living: Living, item: Path, hand: MakeHand) -> None:
    one = hand()
    begun = one.begin(one.work(item))
    thief = living.machine(f"thief{machine.name}").hand()
    try:
        session = HttpSession(thief.calls, begun.session)
        for steal in (
            lambda: session.send(0, [[b"x"]]),
            lambda: session.nodes(Wanted([[0]])),
            lambda: session.ids([0]),
            lambda: session.known(bytes(32)),
            lambda: session.commit(empty()),
        ):
            with pytest.raises(KeepstoneError, match="no such session"):
                steal()
        session.abort()
    finally:
        thief.close()
    commit = HttpSession(one.calls, begun.session).commit(empty())  # it goes on
    assert living.commits(item) == [commit]


def empty(records: int = 0) -> Commit:
    return Commit(records=records, root=b"", detail=b"", source=b"/", logical=0, read=0, files=0, warnings=0)


def test_jobs_of_others(machine: Machine, living: Living, item: Path, hand: MakeHand) -> None:
    one = hand()
    work = one.work(item)
    other = living.machine(f"other{machine.name}").hand()
    try:
        for job, token in ((work.job, work.token), (work.job, work.token + 1)):
            who = other if token == work.token else one
            with pytest.raises(JobLost):
                who.calls.post("sessions/begin", encode(Begin(job=job, token=token, kind="files")))
            with pytest.raises(JobLost):
                HttpPoint(who.calls, job, token).open()
            told = who.pulse(room=0, wait=0.0, beats=(Beat(job, token),)).told
            assert [(one.job, one.lost) for one in told] == [(job, True)]
        with pytest.raises(InvalidRequest, match="no job"):
            one.calls.post("sessions/begin", encode(Begin(job="nonsense", token=1, kind="files")))
        with pytest.raises(InvalidRequest, match="another kind"):
            HttpPoint(one.calls, work.job, work.token).open()
        with pytest.raises(InvalidRequest, match="not of images"):
            one.begin(work, "images")
        with pytest.raises(InvalidRequest, match="committing"):
            one.end(work, "Completed")
    finally:
        other.close()
    begun = one.begin(work)
    assert living.commits(item) == []
    HttpSession(one.calls, begun.session).commit(empty())


def test_a_restore_reads_its_own_point_alone(machine: Machine, living: Living, item: Path, source: Path) -> None:
    second = source.with_name("second")
    second.mkdir()
    (second / "secret").write_text("of another item")
    with machine.running():
        machine.protect(second)
        machine.back_up(second)
        machine.back_up(item)
    job = living("restore", "files", "-i", item, "latest", "--target", machine.restored / "x", "--no-wait")["name"]
    one = machine.hand()
    try:
        work = one.take(job)
        point = HttpPoint(one.calls, work.job, work.token)
        assert point.open().point.source == os.fsencode(item)
        for path in ([5], [0, 0, 0, 0], [-1]):
            with pytest.raises(InvalidRequest, match="no such node"):
                point.columns(path)
        for wanted in (struct.pack("<I", 9_999_999), b"abc"):
            with pytest.raises(InvalidRequest):
                one.calls.post(f"points/fetch?job={work.job}&token={work.token}", encode(Fetch([([0], wanted)])))
        one.end(work, "Failed")
        deadline = time.monotonic() + 30

        def closed() -> bool:
            try:
                point.open()
            except JobLost:
                return True
            assert time.monotonic() < deadline
            return False

        until(closed, "the end of the ticket")
    finally:
        one.close()


def test_lies_over_the_wire(machine: Machine, living: Living, item: Path, hand: MakeHand) -> None:
    """Said at once, and not after a quarter of an hour of trying again."""
    one = hand(patience=600.0)
    begun = one.begin(one.work(item))
    session = HttpSession(one.calls, begun.session)
    began = time.monotonic()

    with pytest.raises(CorruptObject, match="another one than its id says"):
        session.send(0, [frame_record(0, 4, [4], [bytes(32)], b"data")])
        session.commit(empty(1))
    with pytest.raises(CorruptObject):
        session.commit(empty(1))
    with pytest.raises(CorruptObject, match="cannot be"):
        session.send(1, [[struct.pack("<IB", 1 << 31, 0)]])
    assert time.monotonic() - began < 10

    assert living.commits(item) == []


def test_requests_that_are_too_much(machine: Machine, hand: MakeHand) -> None:
    one = hand(patience=0.0)
    for path, body in (
        ("pulse", bytes(5 << 20)),
        ("pulse", b"\xdf\xff\xff\xff\xff"),
        ("sessions/known?session=x", bytes(5 << 20)),
        ("end", b"\xc1"),
        ("sessions/records?session=x&first=abc", b""),
        ("sessions/records?session=x&first=99999999999999999999", b""),
        ("sessions/begin", encode({"job": "x"})),
        ("sessions/frobnicate?session=x", b""),
        ("points/open?job=x&token=-1", b""),
    ):
        with pytest.raises((KeepstoneError, Broken)) as refused:
            one.calls.once(path, [body])
        assert not isinstance(refused.value, Broken) or len(body) > 1 << 20, (path, refused.value)
    beats = [Beat("x", 1)] * 50_000
    began = time.monotonic()
    with pytest.raises(InvalidRequest):
        one.pulse(room=0, wait=0.0, beats=tuple(beats))
    assert time.monotonic() - began < 5
    assert one.pulse(room=0, wait=0.0).told == []


def test_others_go_on_while_somebody_sends_without_end(machine: Machine, living: Living, hand: MakeHand) -> None:
    """Requests that never end, answers that nobody reads: what they hold is small, and everybody else is served."""
    one = hand()
    address = ("127.0.0.1", living.port)
    context = one.identity.context()
    held = []
    for number in range(60):
        plain = socket.create_connection(address)
        secured = context.wrap_socket(plain, server_hostname="localhost")
        path = "sessions/records?session=none" if number % 2 else "sessions/known?session=none"
        secured.sendall(
            f"POST /agent/v1/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n".encode() + b"12345"
        )
        held.append(secured)
    try:
        began = time.monotonic()
        for _ in range(5):
            one.pulse(room=0, wait=0.0)
        assert time.monotonic() - began < 5
    finally:
        for secured in held:
            secured.close()


# ---------------------------------------------------------------------------------------------------- others


def test_credentials_are_for_one_machine(living: Living, machine: Machine, tmp_path: Path) -> None:
    file = living.root / f"{machine.name}.json"
    with pytest.raises(Unauthenticated, match="for one"):
        register(Env(), tmp_path / "second", Credentials.read(file), "another", {})
