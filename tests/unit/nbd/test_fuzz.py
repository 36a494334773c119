# SPDX-License-Identifier: Apache-2.0
"""Bytes that nobody meant, to our server and to our client, by seeds: `KEEPSTONE_NBD_FUZZ` says how many."""

from __future__ import annotations

import os
import random
import socket
import struct
import threading
import time
from pathlib import Path

import pytest

from keepstone.disks.nbd import NbdServer, NbdSource
from keepstone.disks.nbd.protocol import (
    COMMAND,
    GREETING,
    GREETING_MAGIC,
    OPTION,
    OPTION_MAGIC,
    OPTION_REPLY,
    OPTION_REPLY_MAGIC,
    REQUEST_MAGIC,
    Chunk,
    Command,
    CommandFlag,
    Info,
    Option,
    Reply,
    sized,
)
from keepstone.env import Env
from keepstone.errors import KeepstoneError
from tests.unit.nbd.raw import Peer, RawClient, answering, chunk, select
from tests.unit.nbd.serving import KIB, Disk, content, read

pytestmark = pytest.mark.vm

ROUNDS = int(os.environ.get("KEEPSTONE_NBD_FUZZ", "300"))
SIZE = 256 * KIB
DATA = content(SIZE)
ODD = (b"\0", b"\xff", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\0\x10\x01")


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Bytes changed, left out, doubled, put in; and perhaps the end is missing."""
    result = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        at = chance.randrange(len(result) + 1)
        kind = chance.randrange(5)
        if kind == 0 and at < len(result):
            result[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            piece = chance.choice(ODD)
            result[at : at + len(piece)] = piece
        elif kind == 2:
            del result[at : at + chance.randrange(1, 30)]
        elif kind == 3:
            result[at:at] = result[max(0, at - chance.randrange(1, 60)) : at]
        else:
            result[at:at] = chance.randbytes(chance.randrange(1, 20))
    return bytes(result[: chance.randrange(len(result) + 1)] if chance.random() < 0.1 else result)


def option(number: int, data: bytes = b"") -> bytes:
    return OPTION.pack(OPTION_MAGIC, number, len(data)) + data


def command(number: int, offset: int, length: int, flags: int = 0, data: bytes = b"") -> bytes:
    return COMMAND.pack(REQUEST_MAGIC, flags, number, offset ^ 5, offset, length) + data


CONTEXT = sized(b"disk") + struct.pack(">I", 1) + sized(b"base:allocation")
COMMANDS = (
    command(Command.READ, 0, 4096)
    + command(Command.READ, 100, 70_000, CommandFlag.DF)
    + command(Command.BLOCK_STATUS, 0, SIZE)
    + command(Command.WRITE, 5000, 3000, CommandFlag.FUA, bytes(3000))
    + command(Command.WRITE_ZEROES, 9000, 30_000)
    + command(Command.TRIM, 0, 4096)
    + command(Command.FLUSH, 0, 0)
    + command(Command.BLOCK_STATUS, 0, SIZE, CommandFlag.REQ_ONE)
    + command(Command.DISC, 0, 0)
)
SAID_TO_SERVERS = (
    struct.pack(">I", 3)
    + option(Option.LIST)
    + option(Option.STRUCTURED_REPLY)
    + option(Option.LIST_META_CONTEXT, CONTEXT)
    + option(Option.SET_META_CONTEXT, CONTEXT)
    + option(Option.INFO, select(b"disk", Info.NAME, Info.BLOCK_SIZE))
    + option(Option.GO, select(b"disk"))
    + COMMANDS,
    struct.pack(">I", 0) + option(Option.EXPORT_NAME, b"disk") + COMMANDS,
)


@pytest.mark.parametrize("writable", [False, True])
def test_whatever_a_client_sends(env: Env, tmp_path: Path, writable: bool) -> None:
    disk = Disk(DATA)
    path = str(tmp_path / "socket")
    with NbdServer(env, {"disk": disk}, path, overlay=tmp_path if writable else None) as server:
        for seed in range(ROUNDS):
            chance = random.Random(seed)
            said = mutated(chance.choice(SAID_TO_SERVERS), chance)
            with RawClient(path, flags=None) as client:
                listener = threading.Thread(target=_listen, args=(client,))
                listener.start()
                try:
                    client.send(said)
                    client.sock.shutdown(socket.SHUT_WR)
                except OSError:
                    pass  # it has hung up already
                listener.join()
        deadline = time.monotonic() + 20
        while server.clients:
            assert time.monotonic() < deadline, "somebody is still served"
            time.sleep(0.001)
        with NbdSource(env, server.address) as source:
            assert len(read(source)) == SIZE
            assert writable or read(source) == DATA
    assert disk.data == DATA


def _listen(client: RawClient) -> None:
    try:
        while client.sock.recv(1 << 16):
            pass
    except ConnectionResetError:
        pass


def _answers() -> list[bytes]:
    """What a server says to a client that reads its extents and its first 64 KiB, message by message."""

    def reply(option: int, kind: int, data: bytes = b"") -> bytes:
        return OPTION_REPLY.pack(OPTION_REPLY_MAGIC, option, kind, len(data)) + data

    flags = struct.pack(">HQH", Info.EXPORT, SIZE, 1)
    blocks = struct.pack(">HIII", Info.BLOCK_SIZE, 1, 4096, 1 << 20)
    extents = struct.pack(">IIIIIII", 0, 4096, 3, 8192, 0, SIZE - 12288, 3)
    first, second = DATA[:30_000], DATA[40_000:65536]
    return [
        GREETING.pack(GREETING_MAGIC, OPTION_MAGIC, 3),
        reply(Option.STRUCTURED_REPLY, Reply.ACK),
        reply(Option.SET_META_CONTEXT, Reply.META_CONTEXT, struct.pack(">I", 0) + b"base:allocation"),
        reply(Option.SET_META_CONTEXT, Reply.ACK),
        reply(Option.GO, Reply.INFO, flags) + reply(Option.GO, Reply.INFO, blocks) + reply(Option.GO, Reply.ACK),
        chunk(Chunk.BLOCK_STATUS, 1, extents),
        chunk(Chunk.OFFSET_DATA, 2, bytes(8) + first, done=False),
        chunk(Chunk.OFFSET_DATA, 2, struct.pack(">Q", 40_000) + second, done=False),
        chunk(Chunk.OFFSET_HOLE, 2, struct.pack(">QI", 30_000, 10_000), done=False),
        chunk(Chunk.NONE, 2, b""),
        chunk(Chunk.ERROR, 3, struct.pack(">IH", 5, 4) + b"lost"),
    ]


def test_whatever_a_server_answers(tmp_path: Path) -> None:
    env = Env(threads=1)
    chance = random.Random()
    sound = 0

    def behave(peer: Peer) -> None:
        listener = threading.Thread(target=_swallow, args=(peer,))
        listener.start()
        try:
            peer.send(said)
            peer.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        listener.join()

    with answering(tmp_path / "socket", behave) as path:
        for seed in range(ROUNDS + 1):
            chance.seed(seed)
            answers = _answers()
            for _ in range(chance.choice((1, 1, 2)) if seed else 0):
                place = chance.randrange(len(answers))
                answers[place] = mutated(answers[place][:60], chance) + answers[place][60:]  # not only the bulk of it
            said = b"".join(answers)
            room = memoryview(bytearray(b"\xaa" * 70_000))
            try:
                with NbdSource(env, path, patience=20) as source:
                    listed = sum(extent.length for extent in source.extents())
                    assert listed == source.size
                    count = source.pread_into(room[: 64 * KIB], 0)
                    assert count == min(64 * KIB, source.size)
                    sound += 1
                    read(source, 0, 1)
            except KeepstoneError as error:
                assert str(path) in str(error)
            if not seed:
                assert sound == 1
                assert bytes(room[: 64 * KIB]) == DATA[:30_000] + bytes(10_000) + DATA[40_000:65536]
            assert bytes(room[64 * KIB :]) == b"\xaa" * (70_000 - 64 * KIB)
    assert sound > 1


def _swallow(peer: Peer) -> None:
    try:
        while peer.sock.recv(1 << 16):
            pass
    except OSError:
        pass
