# SPDX-License-Identifier: Apache-2.0
"""A bad network between a machine and its service: what arrived is not sent again, and a point is made exactly once."""

from __future__ import annotations

import random
import re
import ssl
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from keepstone.crypto import hashing
from keepstone.errors import KeepstoneError, ServiceUnavailable
from keepstone.remote import calls as remote_calls
from keepstone.remote.reader import RemoteReader
from keepstone.remote.service import HttpPoint, HttpSession
from keepstone.remote.veil import Plain
from keepstone.remote.wire import TRANSFER, Begun, Commit, NodeRecord, Work, frame_record, node_record
from keepstone.workloads import Silent
from keepstone.workloads.files import RestoreOptions, restore_files
from keepstone.workloads.files.page import NODE_KIND
from tests.agents.living import Hand, Machine
from tests.faults.plan import CLEAN, BlackHole, Cut, End, Plan, Way
from tests.faults.proxy import Connection, FaultProxy
from tests.unit.files.trees import snapshot

pytestmark = pytest.mark.agents

MakeHand = Callable[..., Hand]
RECORDS = 24


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow one another at once."""
    monkeypatch.setattr(remote_calls, "_FIRST", 0.02)
    monkeypatch.setattr(remote_calls, "_LONGEST", 0.2)


@contextmanager
def proxied(machine: Machine, plan: Plan = CLEAN, **more: Any) -> Iterator[FaultProxy]:
    """A proxy before the service that sees what is said: it is the service for the machine, and the machine for the
    service."""
    tls, own = machine.living.service.root / "tls", machine.home / "agent" / "state"
    near = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    near.load_cert_chain(tls / "server.pem", tls / "server.key")
    far = ssl.create_default_context(cafile=tls / "ca.pem")
    far.load_cert_chain(own / "machine.pem", own / "machine.key")
    for context in (near, far):
        context.set_alpn_protocols([TRANSFER])
    target = ("127.0.0.1", machine.living.port)
    with FaultProxy(target, plan, client_tls=near, target_tls=far, target_name="localhost", **more) as proxy:
        yield proxy


def url(proxy: FaultProxy) -> str:
    return f"https://localhost:{proxy.port}"


def upload(begun: Begun, seed: int = 0) -> list[list[bytes]]:
    """An upload of frames, handles and nodes; the last one is the root."""
    veil = Plain(hashing(begun.hashing), begun.id_key)
    made = []
    for number in range(RECORDS - 1):
        chunks = [random.Random(f"{seed} {number} {at}").randbytes(700 + 311 * number) for at in range(2)]
        parcel = veil.frame(
            begun.level, b"".join(chunks), [veil.identify(chunk) for chunk in chunks], [*map(len, chunks)]
        )
        made.append(frame_record(parcel.codec, parcel.raw_length, parcel.lengths, parcel.ids, bytes(parcel.payload)))
    made.append([node_record(NodeRecord(NODE_KIND, struct.pack("<III", 0, 0, 2 * RECORDS - 2), b"", b"page"))])
    return made


def commit(session: HttpSession, records: int = RECORDS) -> str:
    """The point of an upload."""
    root = struct.pack("<III", 0, 0, 1)
    return session.commit(
        Commit(records=records, root=root, detail=b"", source=b"/", logical=9, read=9, files=1, warnings=0)
    )


@pytest.fixture
def item(machine: Machine, source: Path) -> Path:
    """What is to be backed up, by hand."""
    machine.protect(source)
    return source


def passed(connections: list[Connection]) -> Counter[int]:
    """How often each record went through the proxy as a whole."""
    found: Counter[int] = Counter()
    for connection in connections:
        assert connection.up.record is not None
        data = bytes(connection.up.record)
        for head in re.finditer(
            rb"POST /agent/v1/sessions/records\?session=\w+&first=(\d+) [^\n]*\r\n(?:[^\n]+\n)*?\r\n", data
        ):
            length = re.search(rb"(?i)content-length: (\d+)", head.group())
            assert length is not None
            body = data[head.end() : head.end() + int(length.group(1))]
            number, at = int(head.group(1)), 0
            while len(body) - at >= 5:
                size = struct.unpack_from("<I", body, at)[0]
                if at + 5 + size > len(body):
                    break
                found[number] += 1
                number, at = number + 1, at + 5 + size
    return found


def made_once(machine: Machine, item: Path, point: str) -> None:
    """There is one point in the store, one in the catalogue, and its job is over."""
    assert machine.living.commits(item) == [point]
    assert len(machine.living.points(item)) == 1
    newest = machine.living("job", "list")[0]["properties"]
    assert (newest["operation"], newest["status"]) == ("Backup", "Completed")


def run(hand: Hand, work: Work, seed: int = 0) -> str:
    """An upload, and its commit."""
    begun = hand.begin(work)
    session = HttpSession(hand.calls, begun.session)
    records = upload(begun, seed)
    for at in range(0, RECORDS, 9):
        session.send(at, records[at : at + 9])
    return commit(session)


def test_cut_at_boundaries(machine: Machine, item: Path, hand: MakeHand) -> None:
    """The connection ends where a record does, or a byte before or after that."""
    with proxied(machine, record=True) as proxy:
        one = hand(url(proxy))
        run(one, one.work(item))
        assert set(passed(proxy.connections).values()) == {1}
        boundaries = ends(proxy.connections)
    assert len(boundaries) == RECORDS
    points = set(machine.living.commits(item))
    for number in range(0, RECORDS, 2):
        at = boundaries[number] + number % 3 - 1
        with proxied(machine, record=True) as proxy:
            one = machine.hand(url(proxy))
            try:
                work = one.work(item)
                proxy.cut_at([at], how=End.FIN if number % 4 else End.RST)
                points.add(run(one, work, number))
            finally:
                one.close()
            assert proxy.connections[0].ended == "cut"
            again = passed(proxy.connections)
        assert set(again) == set(range(RECORDS)), at
        assert sum(again.values()) - RECORDS <= 1, at
    assert points == set(machine.living.commits(item))
    assert len(points) == 1 + RECORDS // 2


def ends(connections: list[Connection]) -> list[int]:
    """At which byte of its connection each record ends."""
    found = []
    for connection in connections:
        assert connection.up.record is not None
        data = bytes(connection.up.record)
        for head in re.finditer(rb"POST /agent/v1/sessions/records[^\n]*\r\n(?:[^\n]+\n)*?\r\n", data):
            length = re.search(rb"(?i)content-length: (\d+)", head.group())
            assert length is not None
            at, end = head.end(), head.end() + int(length.group(1))
            while at < end:
                at += 5 + struct.unpack_from("<I", data, at)[0]
                found.append(at)
    return found


@pytest.mark.parametrize("how", [End.RST, End.FIN])
def test_many_cuts_in_one_upload(machine: Machine, item: Path, hand: MakeHand, how: End) -> None:
    """At random bytes of every other connection: at most one record is sent again for each."""
    with proxied(machine, record=True) as proxy:
        one = hand(url(proxy))
        begun = one.begin(one.work(item))
        session = HttpSession(one.calls, begun.session)
        records = upload(begun)
        chance = random.Random(4)
        cuts = [chance.randrange(400, 12_000) for _ in range(25)]
        proxy.cut()
        proxy.cut_at(cuts, how=how)
        session.send(0, records)
        point = commit(session)
        done = [one for one in proxy.connections if one.ended == "cut"]
        again = passed(proxy.connections)
    assert len(done) > 5
    assert set(again) == set(range(RECORDS))
    assert sum(again.values()) - RECORDS <= len(done)
    assert max(again.values()) <= 3
    made_once(machine, item, point)


def test_lost_answers(machine: Machine, item: Path, hand: MakeHand) -> None:
    """What was asked for was done, and nobody heard of it: it is asked for again, and done once."""
    with proxied(machine, record=True) as proxy:
        one = hand(url(proxy))
        work = one.work(item)
        proxy.cut_at([0, 5, 60], up=False)
        begun = one.begin(work)
        session = HttpSession(one.calls, begun.session)
        records = upload(begun)
        proxy.cut()
        proxy.cut_at([0, 10, 100], up=False)
        session.send(0, records)
        proxy.cut()
        proxy.cut_at([0, 1, 50], up=False)
        point = commit(session)
        assert commit(session) == point
        again = passed(proxy.connections)
        assert sum(again.values()) - RECORDS <= 1
    made_once(machine, item, point)
    assert list(machine.living.store.context.storage.list("leases/")) == []


def test_requests_that_arrive_twice(machine: Machine, item: Path, hand: MakeHand) -> None:
    with proxied(machine, record=True) as proxy:
        one = hand(url(proxy))
        work = one.work(item)
        begun = one.begin(work)
        session = HttpSession(one.calls, begun.session)
        records = upload(begun)
        proxy.cut()  # so that what is sent twice does not begin with the session's beginning
        session.send(0, records[:10])
        number = len(proxy.connections) - 1
        answers = [proxy.duplicate(number)]
        session.send(10, records[10:])
        answers.append(proxy.duplicate(number))
        point = commit(session)
        answers.append(proxy.duplicate(number))
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
    made_once(machine, item, point)


def test_a_restore_over_a_link_that_never_lasts(machine: Machine, item: Path, hand: MakeHand) -> None:
    """200 ms, and no connection lasts for a third of it: the restore is whole."""
    (item / "more").write_bytes(random.Random(1).randbytes(12_000_000))
    machine.start()
    machine.back_up(item)
    machine.stop()
    job = machine.living("restore", "files", "-i", item, "latest", "--target", machine.restored / "x", "--no-wait")[
        "name"
    ]
    plan = Plan(up=Way(latency=0.1), down=Way(latency=0.1, cut=Cut(4_400_000, End.RST)))
    with proxied(machine, plan) as proxy:
        one = hand(url(proxy))
        work = one.take(job)
        point = HttpPoint(one.calls, work.job, work.token)
        opened = point.open()
        with RemoteReader(one.env, point, opened, Plain(hashing(opened.hashing), opened.id_key)) as reader:
            report = restore_files(one.env, reader, item.parent / "restored", RestoreOptions(), Silent())
        ends = [one.ended for one in proxy.connections]
        assert ends.count("cut") >= 2
        one.end(work, "Completed")
    assert report.failed == []
    assert snapshot(item.parent / "restored") == snapshot(item)


def test_a_black_hole(machine: Machine, item: Path, hand: MakeHand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing comes any more, and nobody says so."""
    with proxied(machine, record=True) as proxy:
        one = hand(url(proxy))
        begun = one.begin(one.work(item))
        monkeypatch.setattr(remote_calls, "_SOCKET", 0.5)
        session = HttpSession(one.calls, begun.session)
        records = upload(begun)
        proxy.cut()
        proxy.plan = Plan(black_hole=BlackHole(after=5_000))
        with pytest.raises(ServiceUnavailable, match="does not answer"):
            brief = machine.hand(url(proxy), patience=1.5)
            try:
                HttpSession(brief.calls, begun.session).send(0, records)
            finally:
                brief.close()
        proxy.plan = CLEAN
        session.send(0, records)
        point = commit(session)
    made_once(machine, item, point)


def test_half_a_connection(machine: Machine, item: Path, hand: MakeHand) -> None:
    """The service sees the end of what the machine says, which hears nothing of that. Without TLS between, for the
    proxy is none to it."""
    with FaultProxy(("127.0.0.1", machine.living.port)) as proxy:
        one = hand(url(proxy), patience=10.0)
        begun = one.begin(one.work(item))
        session = HttpSession(one.calls, begun.session)
        records = upload(begun)
        for after in (3000, 9000, 20_000):
            proxy.cut()
            before = len(proxy.connections)
            proxy.plan = Plan(up=Way(half_close=after))
            try:
                one_try(session, records)
            except KeepstoneError as error:
                raise AssertionError(error) from error
            finally:
                proxy.plan = CLEAN
            assert len(proxy.connections) > before
        session.send(0, records)
        point = commit(session)
    made_once(machine, item, point)


def one_try(session: HttpSession, records: list[list[bytes]]) -> None:
    """Send it, whatever the next connection does; those after it are sound."""
    import threading

    def send() -> None:
        with suppress(KeepstoneError):  # it goes on until the connections are closed
            session.send(0, records)

    thread = threading.Thread(target=send)
    thread.start()
    thread.join(3.0)


@pytest.mark.slow
def test_a_black_hole_of_real_length(machine: Machine, item: Path, hand: MakeHand) -> None:
    """No timeout is shortened: the machine waits as long as it does in the field, and goes on then."""
    with proxied(machine, record=True) as proxy:
        one = hand(url(proxy), patience=300.0)
        begun = one.begin(one.work(item))
        session = HttpSession(one.calls, begun.session)
        proxy.cut()
        proxy.plan = Plan(black_hole=BlackHole(after=5_000, seconds=60.0, then=End.RST))
        records = upload(begun)
        import threading

        def beat() -> None:
            while not over.wait(5.0):
                one.pulse(room=0, wait=0.0)

        over = threading.Event()
        beating = threading.Thread(target=beat)
        beating.start()
        proxy_once(proxy)
        try:
            session.send(0, records)
            point = commit(session)
        finally:
            over.set()
            beating.join()
    assert point in machine.living.commits(item)


def proxy_once(proxy: FaultProxy) -> None:
    """The plan is for the next connection alone."""
    import threading

    def clean() -> None:
        number = len(proxy.connections)
        proxy.wait(lambda: len(proxy.connections) > number)
        proxy.plan = CLEAN

    threading.Thread(target=clean, daemon=True).start()
