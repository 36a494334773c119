# SPDX-License-Identifier: Apache-2.0
"""Servers that lie, stop, or say too much: our client ends, soon, with a sentence, and fills nothing it should not."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from keepstone.disks.nbd import NbdSource
from keepstone.disks.nbd.protocol import (
    COMMAND,
    GREETING,
    GREETING_MAGIC,
    OPTION,
    OPTION_MAGIC,
    OPTION_REPLY,
    OPTION_REPLY_MAGIC,
    STRUCTURED_REPLY,
    STRUCTURED_REPLY_MAGIC,
    Chunk,
    Info,
    Reply,
)
from keepstone.env import Env
from keepstone.errors import AccessDenied, SourceFailed, SourceMissing
from tests.unit.nbd.raw import Peer, answering, chunk, greet
from tests.unit.nbd.serving import MIB, read

pytestmark = pytest.mark.vm

HELLO = GREETING.pack(GREETING_MAGIC, OPTION_MAGIC, 3)
ODD = "is not sound"
GONE = "went away"


def answer(option: int, kind: int, data: bytes = b"", *, length: int | None = None) -> bytes:
    return OPTION_REPLY.pack(OPTION_REPLY_MAGIC, option, kind, len(data) if length is None else length) + data


def haggle(*replies: bytes, hello: bytes = HELLO) -> Callable[[Peer], None]:
    """Answer each option with the next of these, whatever it is."""

    def behave(peer: Peer) -> None:
        peer.send(hello)
        peer.receive(4)
        for reply in replies:
            _, _, length = OPTION.unpack(peer.receive(OPTION.size))
            peer.receive(length)
            peer.send(reply)
        peer.receive(1)

    return behave


NO_SR = answer(8, Reply.ERR_UNSUP)
SR = answer(8, Reply.ACK)
NO_META = answer(10, Reply.ERR_UNSUP)
EXPORT = answer(7, Reply.INFO, struct.pack(">HQH", Info.EXPORT, MIB, 1))


def blocks(smallest: int, largest: int) -> bytes:
    return answer(7, Reply.INFO, struct.pack(">HIII", Info.BLOCK_SIZE, smallest, 4096, largest))


def meta(number: int, name: bytes) -> bytes:
    return answer(10, Reply.META_CONTEXT, struct.pack(">I", number) + name)


@pytest.mark.parametrize(
    ("behave", "kind", "message"),
    [
        (lambda peer: None, SourceFailed, GONE),
        (lambda peer: peer.send(HELLO[:17]), SourceFailed, GONE),
        (lambda peer: peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), SourceFailed, ODD),
        (lambda peer: peer.send(GREETING.pack(GREETING_MAGIC, 0x420281861253, 0) + bytes(200)), SourceFailed, ODD),
        (haggle(), SourceFailed, GONE),
        (haggle(b"\0" * 20), SourceFailed, ODD),
        (haggle(answer(9, Reply.ACK)), SourceFailed, ODD),
        (haggle(answer(8, Reply.ACK, length=0xFFFFFFFF)), SourceFailed, ODD),
        (haggle(answer(8, 77) * 1001), SourceFailed, ODD),
        (haggle(answer(8, Reply.ERR_TLS_REQD)), AccessDenied, "wants TLS"),
        (haggle(SR, answer(10, Reply.ERR_TLS_REQD)), AccessDenied, "wants TLS"),
        (haggle(SR, meta(0, b"x:other") + answer(10, Reply.ACK)), SourceFailed, ODD),
        (haggle(SR, meta(0, b"base:allocation") * 2 + answer(10, Reply.ACK)), SourceFailed, ODD),
        (haggle(SR, answer(10, Reply.META_CONTEXT, b"abc") + answer(10, Reply.ACK)), SourceFailed, ODD),
        (haggle(SR, answer(10, Reply.SERVER, b"abcdefg") + answer(10, Reply.ACK)), SourceFailed, ODD),
        (haggle(NO_SR, answer(7, Reply.ERR_UNKNOWN, b"never heard")), SourceMissing, "no export named ''"),
        (haggle(NO_SR, answer(7, Reply.ERR_POLICY, b"not on mondays")), SourceFailed, "not on mondays"),
        (haggle(NO_SR, answer(7, Reply.ERR_POLICY, b"\xff\0")), SourceFailed, "refuses"),
        (haggle(NO_SR, answer(7, Reply.ERR_SHUTDOWN)), SourceFailed, "shutting down"),
        (haggle(NO_SR, answer(7, 0x80001234)), SourceFailed, "refuses"),
        (haggle(NO_SR, answer(7, Reply.INFO, b"\0") + answer(7, Reply.ACK)), SourceFailed, ODD),
        (haggle(NO_SR, answer(7, Reply.INFO, b"\0\0abc") + answer(7, Reply.ACK)), SourceFailed, ODD),
        (haggle(NO_SR, answer(7, Reply.INFO, b"\0\3abc") + answer(7, Reply.ACK)), SourceFailed, ODD),
        (haggle(NO_SR, answer(7, Reply.INFO, struct.pack(">HQH", 0, MIB, 0)) + answer(7, 1)), SourceFailed, ODD),
        (haggle(NO_SR, answer(7, Reply.INFO, struct.pack(">HQH", 0, 1 << 63, 1)) + answer(7, 1)), SourceFailed, ODD),
        (haggle(NO_SR, EXPORT + blocks(0, MIB) + answer(7, 1)), SourceFailed, ODD),
        (haggle(NO_SR, EXPORT + blocks(3, MIB) + answer(7, 1)), SourceFailed, ODD),
        (haggle(NO_SR, EXPORT + blocks(1 << 17, MIB) + answer(7, 1)), SourceFailed, ODD),
        (haggle(NO_SR, EXPORT + blocks(4096, 512) + answer(7, 1)), SourceFailed, ODD),
        (haggle(NO_SR, answer(7, Reply.ERR_UNSUP), hello=HELLO), SourceMissing, "hung up"),
        (haggle(hello=GREETING.pack(GREETING_MAGIC, OPTION_MAGIC, 0)), SourceMissing, "hung up"),
    ],
)  # fmt: skip
def test_a_handshake_that_goes_wrong(
    env: Env, tmp_path: Path, behave: Callable[[Peer], None], kind: type[Exception], message: str
) -> None:
    def once(peer: Peer) -> None:
        behave(peer)
        peer.sock.shutdown(1)
        while peer.sock.recv(1 << 16):
            pass

    with answering(tmp_path / "socket", once) as path, pytest.raises(kind, match=message):
        NbdSource(env, path, patience=10).close()


def test_the_old_way_to_choose_an_export(env: Env, tmp_path: Path) -> None:
    def behave(peer: Peer) -> None:
        peer.send(GREETING.pack(GREETING_MAGIC, OPTION_MAGIC, 0))
        assert peer.receive(4) == bytes(4)
        assert OPTION.unpack(peer.receive(OPTION.size)) == (OPTION_MAGIC, 1, 4)
        assert peer.receive(4) == b"name"
        peer.send(struct.pack(">QH", 4096, 1) + bytes(124))
        while True:
            _, _, kind, cookie, _, length = COMMAND.unpack(peer.receive(COMMAND.size))
            if kind == 2:
                return
            peer.send(struct.pack(">IIQ", 0x67446698, 0, cookie) + b"\7" * length)

    with answering(tmp_path / "socket", behave) as path, NbdSource(env, path, "name") as source:
        assert read(source) == b"\7" * 4096
        assert [(extent.length, extent.zero) for extent in source.extents()] == [(4096, False)]


def data(offset: int, payload: bytes) -> bytes:
    return offset.to_bytes(8, "big") + payload


def hole(offset: int, length: int) -> bytes:
    return struct.pack(">QI", offset, length)


def simple(cookie: int, code: int = 0) -> bytes:
    return struct.pack(">IIQ", 0x67446698, code, cookie)


HALF = bytes(2048)
D, H, N, E = Chunk.OFFSET_DATA, Chunk.OFFSET_HOLE, Chunk.NONE, Chunk.ERROR


@pytest.mark.parametrize(
    "reply",
    [
        lambda c: b"\0" * 20,
        lambda c: chunk(N, c + 1, b""),
        lambda c: chunk(N, 0xFFFFFFFFFFFFFFFF, b""),
        lambda c: simple(c) + bytes(4096),
        lambda c: chunk(N, c, b""),
        lambda c: chunk(N, c, b"x"),
        lambda c: chunk(99, c, b"") + bytes(10),
        lambda c: chunk(D, c, data(0, HALF)),
        lambda c: chunk(D, c, data(0, HALF), done=False) + chunk(N, c, b""),
        lambda c: chunk(D, c, data(2048, HALF), done=False) * 2 + chunk(N, c, b""),
        lambda c: chunk(D, c, data(0, HALF), done=False) + chunk(D, c, data(1024, HALF)),
        lambda c: chunk(D, c, data(0, bytes(4096)), done=False) + chunk(H, c, hole(0, 4096)),
        lambda c: chunk(D, c, data(4096, HALF)),
        lambda c: chunk(D, c, data(3000, HALF)),
        lambda c: chunk(D, c, data(0xFFFFFFFFFFFFFFF0, HALF)),
        lambda c: chunk(D, c, data(0, b"")) + bytes(4096),
        lambda c: chunk(D, c, data(0, bytes(8192))),
        lambda c: STRUCTURED_REPLY.pack(STRUCTURED_REPLY_MAGIC, 1, D, c, 0) + bytes(4096),
        lambda c: STRUCTURED_REPLY.pack(STRUCTURED_REPLY_MAGIC, 1, D, c, 0xFFFFFFFF) + bytes(4096),
        lambda c: chunk(H, c, hole(0, 0)),
        lambda c: chunk(H, c, hole(0, 0xFFFFFFFF)),
        lambda c: chunk(H, c, hole(4095, 2)),
        lambda c: chunk(H, c, hole(0, 4096) + b"x"),
        lambda c: chunk(Chunk.BLOCK_STATUS, c, struct.pack(">III", 0, 4096, 0)),
        lambda c: chunk(E, c, b"abc"),
        lambda c: chunk(E, c, struct.pack(">IH", 5, 99) + b"short"),
        lambda c: STRUCTURED_REPLY.pack(STRUCTURED_REPLY_MAGIC, 1, E, c, 0xFFFFFFFF) + bytes(4096),
        lambda c: b"".join(chunk(D, c, data(0, b"x"), done=False) for _ in range(65537)),
    ],
)
def test_a_read_that_is_answered_wrongly(env: Env, tmp_path: Path, reply: Callable[[int], bytes]) -> None:
    def behave(peer: Peer) -> None:
        greet(peer)
        cookie = COMMAND.unpack(peer.receive(COMMAND.size))[3]
        peer.send(reply(cookie))
        while peer.sock.recv(1 << 16):
            pass

    room = memoryview(bytearray(b"\xaa" * 8192))
    with answering(tmp_path / "socket", behave) as path, NbdSource(env, path, patience=10) as source:
        with pytest.raises(SourceFailed, match=ODD):
            source.pread_into(room[:4096], 0)
        with pytest.raises(SourceFailed, match="any more"):
            source.pread_into(room[:4096], 0)
    assert bytes(room[4096:]) == b"\xaa" * 4096  # nothing beside what was asked for


@pytest.mark.parametrize(
    "reply",
    [
        lambda c: chunk(E, c, struct.pack(">IH", 5, 3) + b"bad"),
        lambda c: chunk(E, c, struct.pack(">IH", 5, 0)),
        lambda c: chunk(Chunk.ERROR_OFFSET, c, struct.pack(">IHQ", 5, 0, 4096)),
        lambda c: chunk(0xFFFF, c, struct.pack(">IH", 5, 0) + b"new"),
        lambda c: chunk(D, c, data(0, HALF), done=False) + chunk(E, c, struct.pack(">IH", 5, 0), done=False)
        + chunk(D, c, data(2048, HALF)),
        lambda c: chunk(E, c, struct.pack(">IH", 5, 0), done=False) + chunk(N, c, b""),
        lambda c: simple(c, 5),
    ],
)  # fmt: skip
def test_an_error_is_the_readers_and_the_connection_goes_on(
    env: Env, tmp_path: Path, reply: Callable[[int], bytes]
) -> None:
    def behave(peer: Peer) -> None:
        greet(peer)
        peer.send(reply(COMMAND.unpack(peer.receive(COMMAND.size))[3]))
        cookie = COMMAND.unpack(peer.receive(COMMAND.size))[3]
        # the parts in any order, and holes among them
        peer.send(chunk(D, cookie, data(3000, b"\1" * 1096), done=False))
        peer.send(chunk(H, cookie, hole(1000, 2000), done=False))
        peer.send(chunk(D, cookie, data(0, b"\2" * 1000), done=False) + chunk(N, cookie, b""))
        peer.receive(COMMAND.size)

    with answering(tmp_path / "socket", behave) as path, NbdSource(env, path, patience=10) as source:
        room = memoryview(bytearray(b"\xaa" * 4096))
        with pytest.raises(SourceFailed, match="EIO"):
            source.pread_into(room, 0)
        assert source.pread_into(room, 0) == 4096
        assert bytes(room) == b"\2" * 1000 + bytes(2000) + b"\1" * 1096


@pytest.mark.parametrize("fixed", [True, False])
def test_a_server_that_dies_in_the_middle(env: Env, tmp_path: Path, fixed: bool) -> None:
    def behave(peer: Peer) -> None:
        greet(peer, structured=fixed)
        cookie = COMMAND.unpack(peer.receive(COMMAND.size))[3]
        if fixed:
            peer.send(STRUCTURED_REPLY.pack(STRUCTURED_REPLY_MAGIC, 1, D, cookie, 4104) + data(0, HALF))
        else:
            peer.send(simple(cookie) + HALF)

    with answering(tmp_path / "socket", behave) as path, NbdSource(env, path, patience=10) as source:
        with pytest.raises(SourceFailed, match=GONE):
            read(source, 0, 4096)
        with pytest.raises(SourceFailed, match="any more"):
            read(source, 0, 4096)


@pytest.mark.parametrize(
    "payloads",
    [
        [b""],
        [struct.pack(">I", 0)],
        [struct.pack(">II", 0, 5)],
        [struct.pack(">III", 0, 0, 0)],
        [struct.pack(">III", 7, 4096, 0)],
        [struct.pack(">III", 0, 4096, 0), struct.pack(">III", 0, 4096, 0)],
        [struct.pack(">III", 0, 4096, 0) + b"x"],
        [],
    ],
)
def test_extents_that_are_none(env: Env, tmp_path: Path, payloads: list[bytes]) -> None:
    def behave(peer: Peer) -> None:
        greet(peer)
        cookie = COMMAND.unpack(peer.receive(COMMAND.size))[3]
        for payload in payloads:
            peer.send(chunk(Chunk.BLOCK_STATUS, cookie, payload, done=False))
        peer.send(chunk(N, cookie, b""))
        while peer.sock.recv(1 << 16):
            pass

    with (
        answering(tmp_path / "socket", behave) as path,
        NbdSource(env, path, patience=10) as source,
        pytest.raises(SourceFailed, match=ODD),
    ):
        list(source.extents())


def test_too_many_extents_at_once_and_ends_behind_the_disk(env: Env, tmp_path: Path) -> None:
    def behave(peer: Peer) -> None:
        greet(peer)
        cookie = COMMAND.unpack(peer.receive(COMMAND.size))[3]
        peer.send(chunk(Chunk.BLOCK_STATUS, cookie, struct.pack(">IIIII", 0, 4096, 3, 0xFFFFFFFF, 0)))
        cookie = COMMAND.unpack(peer.receive(COMMAND.size))[3]
        peer.send(STRUCTURED_REPLY.pack(STRUCTURED_REPLY_MAGIC, 1, Chunk.BLOCK_STATUS, cookie, 0xFFFFFFFC))
        while peer.sock.recv(1 << 16):
            pass

    with answering(tmp_path / "socket", behave) as path, NbdSource(env, path, patience=10) as source:
        assert [(e.offset, e.length, e.zero) for e in source.extents()] == [(0, 4096, True), (4096, MIB - 4096, False)]
        with pytest.raises(SourceFailed, match=ODD):
            list(source.extents())


def test_two_contexts_that_go_differently_far(env: Env, tmp_path: Path) -> None:
    def behave(peer: Peer) -> None:
        greet(peer, size=65536)
        asked: list[tuple[int, int]] = []
        while True:
            _, _, kind, cookie, offset, length = COMMAND.unpack(peer.receive(COMMAND.size))
            if kind == 2:
                assert asked == [(0, 65536), (16384, 49152)]
                return
            asked.append((offset, length))
            allocation = (
                struct.pack(">IIIII", 0, 4096, 3, 12288, 0) if not offset else struct.pack(">III", 0, length, 0)
            )
            dirty = struct.pack(">IIIII", 1, 8192, 1, length - 8192, 0)
            peer.send(chunk(Chunk.BLOCK_STATUS, cookie, dirty, done=False))
            peer.send(chunk(Chunk.BLOCK_STATUS, cookie, allocation))

    with answering(tmp_path / "socket", behave) as path, NbdSource(env, path, bitmap="b", patience=10) as source:
        extents = [(extent.offset, extent.length, extent.zero) for extent in source.extents("b")]
        assert extents == [(0, 4096, True), (4096, 4096, False), (16384, 8192, False)]


@pytest.mark.parametrize("trickle", [False, True])
def test_a_server_that_stops_is_not_waited_for(env: Env, tmp_path: Path, trickle: bool) -> None:
    over = threading.Event()

    def behave(peer: Peer) -> None:
        greet(peer)
        cookie = COMMAND.unpack(peer.receive(COMMAND.size))[3]
        reply = chunk(D, cookie, data(0, bytes(4096)))
        for at in range(len(reply)):
            peer.send(reply[at : at + 1])
            if at >= 40 and over.wait(0.05 if trickle else 20):
                return

    with answering(tmp_path / "socket", behave) as path:
        with (
            NbdSource(env, path, patience=0.3) as source,
            pytest.raises(SourceFailed, match=r"went away: .*(answer|long)"),
        ):
            read(source, 0, 4096)
        over.set()


def test_a_further_connection_that_fails_is_done_without(env: Env, tmp_path: Path) -> None:
    """The server says that it takes several, and takes one; or the second one is another disk."""
    served = []

    def behave(peer: Peer) -> None:
        served.append(peer)
        if len(served) == 2:
            return
        greet(peer, flags=1 | 1 << 8, size=MIB if len(served) == 1 else 2 * MIB)
        while True:
            _, _, kind, cookie, offset, length = COMMAND.unpack(peer.receive(COMMAND.size))
            if kind == 2:
                return
            peer.send(chunk(D, cookie, data(offset, b"\1" * length)))

    with answering(tmp_path / "socket", behave) as path, NbdSource(env, path, patience=10) as source:
        barrier = threading.Barrier(4)
        results: list[bytes] = []

        def work() -> None:
            barrier.wait()
            results.extend(read(source, 0, 512) for _ in range(50))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [b"\1" * 512] * 200
        assert len(served) <= 2
