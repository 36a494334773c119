# SPDX-License-Identifier: Apache-2.0
"""The proxy does exactly what its plan says, and no more."""

from __future__ import annotations

import datetime
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.faults.plan import CLEAN, BlackHole, Cut, End, Plan, Reset, Way
from tests.faults.proxy import FaultProxy

pytestmark = pytest.mark.agents
DATA = random.Random(1).randbytes(300_000)


class Echo:
    """A server that sends back what it gets, each connection in a thread; `got`: what each had received at its end."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self.got: list[bytes] = []
        self.errors: list[type[BaseException]] = []
        self._context = context
        self._ended = threading.Condition()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                own, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(own,), daemon=True).start()

    def _serve(self, own: socket.socket) -> None:
        got = bytearray()
        with own:
            try:
                wire = own if self._context is None else self._context.wrap_socket(own, server_side=True)
                with wire:
                    self._talk(wire, got)
            except OSError as error:
                self.errors.append(type(error))
        with self._ended:
            self.got.append(bytes(got))
            self._ended.notify_all()

    def _talk(self, wire: socket.socket, got: bytearray) -> None:
        """What has arrived is read also where nobody takes an answer any more."""
        answering = True
        while piece := wire.recv(1 << 16):
            got += piece
            if answering:
                try:
                    wire.sendall(piece)
                except OSError as error:
                    answering = False
                    self.errors.append(type(error))

    def wait(self, count: int) -> None:
        with self._ended:
            assert self._ended.wait_for(lambda: len(self.got) >= count, 30)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


def connect(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(proxy.address, 30)


def exchange(proxy: FaultProxy, data: bytes = DATA) -> bytes:
    """What comes back for it until the end; a reset passes for one."""
    got = bytearray()
    try:
        own = connect(proxy)
    except ConnectionResetError:  # it was quicker
        return b""
    with own:

        def send() -> None:
            try:
                own.sendall(data)
                own.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # what the reader of it sees is what counts

        sending = threading.Thread(target=send)
        sending.start()
        try:
            while piece := own.recv(1 << 16):
                got += piece
        except ConnectionResetError:
            pass
        sending.join()
    return bytes(got)


def test_a_clean_connection_goes_through(echo: Echo, fault_proxy: Callable[..., FaultProxy]) -> None:
    proxy = fault_proxy(echo.address)

    assert exchange(proxy) == DATA
    proxy.wait_for_ends()

    (connection,) = proxy.connections
    assert (connection.up.read, connection.up.forwarded, connection.down.forwarded) == (len(DATA),) * 3
    assert connection.ended == "client"


@pytest.mark.parametrize("how", End)
@pytest.mark.parametrize("after", [0, 1, 65_536, 70_001, len(DATA) - 1])
def test_a_cut_lets_exactly_so_many_bytes_through(
    echo: Echo, fault_proxy: Callable[..., FaultProxy], after: int, how: End
) -> None:
    proxy = fault_proxy(echo.address, Plan(up=Way(cut=Cut(after, how))))

    back = exchange(proxy)
    echo.wait(1)

    assert echo.got == [DATA[:after]]
    assert DATA.startswith(back)
    proxy.wait_for_ends()
    assert proxy.connections[0].up.forwarded == after
    assert proxy.connections[0].ended == "cut"


@pytest.mark.parametrize("after", [0, 7, 100_000])
def test_a_cut_on_the_way_back(echo: Echo, fault_proxy: Callable[..., FaultProxy], after: int) -> None:
    proxy = fault_proxy(echo.address, Plan(down=Way(cut=Cut(after, End.FIN))))

    assert exchange(proxy) == DATA[:after]


@pytest.mark.parametrize(("how", "error"), [(End.FIN, None), (End.RST, ConnectionResetError)])
def test_either_side_sees_the_end_that_was_ordered(
    echo: Echo, fault_proxy: Callable[..., FaultProxy], how: End, error: type[BaseException] | None
) -> None:
    proxy = fault_proxy(echo.address, Plan(up=Way(cut=Cut(3, how))))

    with connect(proxy) as own:
        own.sendall(b"12345")  # two of them are never read by the proxy's other side
        seen = None
        try:
            while own.recv(10):
                pass
        except OSError as failure:
            seen = type(failure)
    echo.wait(1)

    assert seen is error
    assert echo.errors == ([] if error is None else [error])


def test_an_end_in_order_stays_one_for_a_client_that_still_sends(
    echo: Echo, fault_proxy: Callable[..., FaultProxy]
) -> None:
    proxy = fault_proxy(echo.address, Plan(up=Way(cut=Cut(3, End.FIN))))

    with connect(proxy) as own:
        own.sendall(DATA * 40)  # more than anybody has room for
        while own.recv(10):
            pass
    echo.wait(1)

    assert echo.got == [DATA[:3]]


def test_one_connection_after_the_other_is_cut_at_the_next_boundary(
    echo: Echo, fault_proxy: Callable[..., FaultProxy]
) -> None:
    proxy = fault_proxy(echo.address)
    boundaries = [10, 500, 501, 200_000]
    proxy.cut_at(boundaries)

    for count in range(len(boundaries)):
        exchange(proxy)
        echo.wait(count + 1)

    assert [len(got) for got in echo.got] == boundaries
    assert exchange(proxy) == DATA, "those after the last boundary follow the plan"


def test_latency_delays_and_costs_no_throughput(echo: Echo, fault_proxy: Callable[..., FaultProxy]) -> None:
    proxy = fault_proxy(echo.address, Plan(up=Way(latency=0.1), down=Way(latency=0.1)))

    began = time.monotonic()
    assert exchange(proxy, DATA * 15) == DATA * 15
    took = time.monotonic() - began

    assert 0.2 <= took < 5, "each of its seventy pieces would have waited for the ones before it"


def test_bandwidth_is_kept(echo: Echo, fault_proxy: Callable[..., FaultProxy]) -> None:
    proxy = fault_proxy(echo.address, Plan(up=Way(bandwidth=1_000_000)))

    began = time.monotonic()
    assert exchange(proxy) == DATA

    assert time.monotonic() - began >= 0.29


def test_half_a_close_leaves_the_way_back_open(fault_proxy: Callable[..., FaultProxy]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = fault_proxy(listener.getsockname(), Plan(up=Way(half_close=4)))
        with connect(proxy) as client:
            client.sendall(b"123456")
            server, _ = listener.accept()
            with server:
                server.settimeout(30)
                got = b""
                while piece := server.recv(10):
                    got += piece
                client.sendall(b"thrown away")
                server.sendall(b"still here")

                assert got == b"1234"
                assert client.recv(10) == b"still here"


def test_a_black_hole_accepts_and_forwards_nothing_until_it_is_over(
    echo: Echo, fault_proxy: Callable[..., FaultProxy]
) -> None:
    proxy = fault_proxy(echo.address, Plan(black_hole=BlackHole(after=5)))

    with connect(proxy) as own:
        own.sendall(b"12345")
        proxy.wait(lambda: proxy.connections[0].up.read == 5 if proxy.connections else False)
        own.settimeout(0.05)
        with pytest.raises(TimeoutError):
            own.recv(10)
        assert proxy.connections[0].up.forwarded == 0

        proxy.release()
        own.settimeout(30)
        assert own.recv(10) == b"12345"


@pytest.mark.parametrize("then", [None, End.FIN, End.RST])
def test_what_comes_after_a_black_hole(echo: Echo, fault_proxy: Callable[..., FaultProxy], then: End | None) -> None:
    proxy = fault_proxy(echo.address, Plan(black_hole=BlackHole(seconds=0.1, then=then)))

    began = time.monotonic()
    back = exchange(proxy, b"1234")
    took = time.monotonic() - began

    assert took >= 0.1
    assert back == (b"1234" if then is None else b"")
    proxy.wait_for_ends()
    assert proxy.connections[0].ended == ("client" if then is None else "black hole")


def test_the_same_seed_resets_the_same_connections_at_the_same_bytes() -> None:
    plan = Plan(reset=Reset(chance=0.3, within=1000))

    def cuts(seed: int) -> list[tuple[Cut | None, Cut | None]]:
        settled = [plan.settled(random.Random(f"{seed}/{number}")) for number in range(1000)]
        return [(one.up.cut, one.down.cut) for one in settled]

    first = cuts(7)
    hit = [pair for pair in first if pair != (None, None)]

    assert first == cuts(7)
    assert first != cuts(8)
    assert 250 < len(hit) < 350
    assert 0.35 < sum(up is not None for up, _ in hit) / len(hit) < 0.65
    assert len({cut.after for pair in hit for cut in pair if cut is not None}) > 200


def test_resets_happen(echo: Echo, fault_proxy: Callable[..., FaultProxy]) -> None:
    proxy = fault_proxy(echo.address, Plan(reset=Reset(chance=1, within=1000)), seed=3)

    assert all(len(exchange(proxy)) < 1000 for _ in range(5))
    proxy.wait_for_ends()
    assert {connection.ended for connection in proxy.connections} == {"cut"}


def test_a_request_is_sent_again_on_a_connection_of_its_own(echo: Echo, fault_proxy: Callable[..., FaultProxy]) -> None:
    proxy = fault_proxy(echo.address, record=True)
    assert exchange(proxy, b"a request") == b"a request"
    echo.wait(1)

    assert proxy.duplicate(0) == b"a request"
    echo.wait(2)

    assert echo.got == [b"a request"] * 2


def test_what_was_cut_is_not_in_the_duplicate(echo: Echo, fault_proxy: Callable[..., FaultProxy]) -> None:
    proxy = fault_proxy(echo.address, Plan(up=Way(cut=Cut(3))), record=True)
    exchange(proxy, b"a request")
    echo.wait(1)

    proxy.duplicate(0, answer=False)
    echo.wait(2)

    assert echo.got == [b"a r"] * 2


def test_everything_open_is_ended_at_once(echo: Echo, fault_proxy: Callable[..., FaultProxy]) -> None:
    proxy = fault_proxy(echo.address)
    with connect(proxy) as first, connect(proxy) as second:
        for own in (first, second):
            own.sendall(b"x")
            assert own.recv(1) == b"x"

        assert proxy.cut() == 2

        for own in (first, second):
            with pytest.raises(ConnectionResetError):
                own.recv(1)
    proxy.plan = CLEAN
    assert exchange(proxy, b"again") == b"again"


def test_a_target_that_is_not_there_is_a_reset(fault_proxy: Callable[..., FaultProxy]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    proxy = fault_proxy(address)

    assert exchange(proxy, b"x") == b""
    proxy.wait_for_ends()
    assert proxy.connections[0].ended == "refused"


def test_the_end_of_the_proxy_is_the_end_of_its_connections(echo: Echo) -> None:
    with FaultProxy(echo.address) as proxy:
        own = connect(proxy)
        own.sendall(b"x")
        assert own.recv(1) == b"x"
    with own, pytest.raises(ConnectionResetError):
        own.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)


def _authority(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts for the server `localhost` and for its clients."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    both = folder / "both.pem"
    both.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(both)
    return server, ssl.create_default_context(cafile=str(both))


@pytest.mark.parametrize("how", End)
def test_bytes_within_tls_count_as_the_programs_wrote_them(
    tmp_path: Path, fault_proxy: Callable[..., FaultProxy], how: End
) -> None:
    server, client = _authority(tmp_path)
    echo = Echo(server)
    try:
        proxy = fault_proxy(echo.address, client_tls=server, target_tls=client, target_name="localhost")
        proxy.cut_at([100_000], how=how)
        for number in range(2):
            with connect(proxy) as own, client.wrap_socket(own, server_hostname="localhost") as wire:
                got = 0
                try:
                    for start in range(0, len(DATA), 10_000):
                        wire.sendall(DATA[start : start + 10_000])
                        while got < start + 10_000 and (piece := wire.recv(1 << 16)):
                            got += len(piece)
                except OSError:
                    assert number == 0
            echo.wait(number + 1)
    finally:
        echo.close()

    assert [len(got) for got in echo.got] == [100_000, len(DATA)]
