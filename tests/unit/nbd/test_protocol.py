# SPDX-License-Identifier: Apache-2.0
"""Our server, byte by byte: each option and command, and what it does about those that make no sense."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepstone.disks.nbd import NbdServer
from keepstone.disks.nbd.protocol import (
    COMMAND,
    GREETING_MAGIC,
    OPTION,
    OPTION_MAGIC,
    REQUEST_MAGIC,
    Chunk,
    Command,
    CommandFlag,
    Failure,
    Info,
    Option,
    Reply,
    Transmission,
    sized,
)
from keepstone.env import Env
from tests.unit.nbd.raw import RawClient, select
from tests.unit.nbd.serving import MIB, Disk, content

pytestmark = pytest.mark.vm

DATA = content(3 * MIB + 512)
READ_ONLY = Transmission.HAS_FLAGS | Transmission.READ_ONLY | Transmission.SEND_FLUSH | Transmission.CAN_MULTI_CONN
ALLOCATION = (Reply.META_CONTEXT, struct.pack(">I", 1) + b"base:allocation")
ACK = (Reply.ACK, b"")


@pytest.fixture
def path(env: Env, tmp_path: Path) -> Iterator[str]:
    """A server of one export."""
    with NbdServer(env, {"disk": Disk(DATA)}, tmp_path / "socket"):
        yield str(tmp_path / "socket")


@pytest.fixture
def writable(env: Env, tmp_path: Path) -> Iterator[str]:
    """The same with an overlay."""
    with NbdServer(env, {"disk": Disk(DATA)}, tmp_path / "writable", overlay=tmp_path):
        yield str(tmp_path / "writable")


def error(client: RawClient) -> Failure:
    flags, kind, cookie, payload = client.chunk()
    assert (flags, kind, cookie) == (1, Chunk.ERROR, 7)
    code, length = struct.unpack(">IH", payload[:6])
    assert 0 < length == len(payload) - 6
    return Failure(code)


def test_the_greeting(path: str) -> None:
    with RawClient(path) as client:
        assert client.greeting == (GREETING_MAGIC, OPTION_MAGIC, 3)


def test_every_option(path: str) -> None:
    with RawClient(path) as client:
        assert client.option(Option.LIST) == [(Reply.SERVER, sized(b"disk")), ACK]
        [(kind, _)] = client.option(Option.SET_META_CONTEXT, sized(b"") + struct.pack(">I", 0))
        assert kind == Reply.ERR_INVALID  # before structured replies
        export = struct.pack(">HQH", Info.EXPORT, len(DATA), READ_ONLY)
        blocks = struct.pack(">HIII", Info.BLOCK_SIZE, 1, 256 << 10, 32 * MIB)
        assert client.option(Option.INFO, select(b"disk")) == [(Reply.INFO, export), (Reply.INFO, blocks), ACK]
        assert client.option(Option.STRUCTURED_REPLY) == [ACK]
        export = struct.pack(">HQH", Info.EXPORT, len(DATA), READ_ONLY | Transmission.SEND_DF)
        name = struct.pack(">H", Info.NAME) + b"disk"
        wanted = select(b"", Info.NAME, Info.DESCRIPTION, 77)
        assert client.option(Option.INFO, wanted) == [(Reply.INFO, data) for data in (export, name, blocks)] + [ACK]
        assert client.option(Option.STARTTLS)[0][0] == Reply.ERR_POLICY
        for unknown in (0, 4, 11, 99, 0xFFFFFFFF):
            assert client.option(unknown, b"whatever")[0][0] == Reply.ERR_UNSUP
        assert client.option(Option.GO, select(b"none"))[0][0] == Reply.ERR_UNKNOWN
        assert client.option(Option.ABORT) == [ACK]
        assert client.ended()


def test_metadata_contexts(path: str) -> None:
    def ask(option: int, *queries: bytes, name: bytes = b"disk") -> list[tuple[int, bytes]]:
        return client.option(option, sized(name) + struct.pack(">I", len(queries)) + b"".join(map(sized, queries)))

    with RawClient(path) as client:
        client.option(Option.STRUCTURED_REPLY)
        for queries in ((), (b"base:",), (b"x-other:", b"base:allocation")):
            assert ask(Option.LIST_META_CONTEXT, *queries) == [ALLOCATION, ACK]
        assert ask(Option.LIST_META_CONTEXT, b"qemu:") == [ACK]
        assert ask(Option.LIST_META_CONTEXT, name=b"none")[0][0] == Reply.ERR_UNKNOWN
        for queries in ((), (b"base:",), (b"qemu:dirty-bitmap:b",)):
            assert ask(Option.SET_META_CONTEXT, *queries) == [ACK]
        assert ask(Option.SET_META_CONTEXT, b"qemu:", b"base:allocation") == [ALLOCATION, ACK]
        assert ask(Option.SET_META_CONTEXT) == [ACK]  # takes it back
        client.option(Option.GO, select(b"disk"))
        client.command(Command.BLOCK_STATUS, 0, 512)
        assert error(client) == Failure.EINVAL


@pytest.mark.parametrize(
    ("option", "data", "kind"),
    [
        (Option.LIST, b"x", Reply.ERR_INVALID),
        (Option.STRUCTURED_REPLY, b"x", Reply.ERR_INVALID),
        (Option.STARTTLS, b"x", Reply.ERR_INVALID),
        (Option.GO, b"", Reply.ERR_INVALID),
        (Option.GO, b"\0\0\0", Reply.ERR_INVALID),
        (Option.GO, sized(b"disk"), Reply.ERR_INVALID),
        (Option.GO, sized(b"disk") + b"\0", Reply.ERR_INVALID),
        (Option.GO, sized(b"disk") + struct.pack(">HH", 2, 3), Reply.ERR_INVALID),
        (Option.GO, select(b"disk") + b"x", Reply.ERR_INVALID),
        (Option.GO, struct.pack(">I", 5) + b"disk", Reply.ERR_INVALID),
        (Option.GO, struct.pack(">I", 0xFFFFFFFF) + b"disk", Reply.ERR_TOO_BIG),
        (Option.INFO, select(b"d" * 4097), Reply.ERR_TOO_BIG),
        (Option.GO, select(b"\xff"), Reply.ERR_INVALID),
        (Option.LIST_META_CONTEXT, sized(b"disk"), Reply.ERR_INVALID),
        (Option.LIST_META_CONTEXT, sized(b"disk") + struct.pack(">I", 1), Reply.ERR_INVALID),
        (Option.LIST_META_CONTEXT, sized(b"disk") + struct.pack(">I", 0) + b"x", Reply.ERR_INVALID),
        (Option.SET_META_CONTEXT, sized(b"disk") + struct.pack(">II", 1, 99) + b"base:", Reply.ERR_INVALID),
        (Option.SET_META_CONTEXT, sized(b"disk") + struct.pack(">I", 0xFFFFFFFF), Reply.ERR_INVALID),
    ],
)
def test_options_that_make_no_sense(path: str, option: int, data: bytes, kind: int) -> None:
    with RawClient(path) as client:
        if option != Option.STRUCTURED_REPLY:
            client.option(Option.STRUCTURED_REPLY)
        assert [reply for reply, _ in client.option(option, data)] == [kind]
        client.go(b"disk", structured=False)  # nothing is lost by it
        client.command(Command.DISC, 0, 0)
        assert client.ended()


def test_what_ends_a_handshake(path: str) -> None:
    with RawClient(path, flags=4) as client:
        assert client.ended()
    with RawClient(path, flags=0xFFFFFFFF) as client:
        assert client.ended()
    for data in (
        bytes(16),
        OPTION.pack(OPTION_MAGIC, Option.LIST, 0xFFFFFFFF),
        OPTION.pack(OPTION_MAGIC, 99, (64 << 10) + 1),
        OPTION.pack(OPTION_MAGIC, Option.EXPORT_NAME, 4) + b"none",
        OPTION.pack(OPTION_MAGIC, Option.EXPORT_NAME, 1) + b"\xff",
    ):
        with RawClient(path) as client:
            client.send(data)
            assert client.ended()


@pytest.mark.parametrize(("flags", "zeros"), [(0, 124), (1, 124), (2, 0), (3, 0)])
def test_the_old_way_to_choose_an_export(path: str, flags: int, zeros: int) -> None:
    with RawClient(path, flags) as client:
        client.send(OPTION.pack(OPTION_MAGIC, Option.EXPORT_NAME, 4) + b"disk")
        assert client.receive(10 + zeros) == struct.pack(">QH", len(DATA), READ_ONLY) + bytes(zeros)
        client.command(Command.READ, 512, 2 * MIB + 5)
        assert client.receive(16) == struct.pack(">IIQ", 0x67446698, 0, 7)
        assert client.receive(2 * MIB + 5) == DATA[512 : 512 + 2 * MIB + 5]
        client.command(Command.READ, len(DATA), 1)
        assert client.receive(16) == struct.pack(">IIQ", 0x67446698, Failure.EINVAL, 7)
        client.command(Command.FLUSH, 0, 0)
        assert client.receive(16) == struct.pack(">IIQ", 0x67446698, 0, 7)


def test_structured_reads(path: str) -> None:
    with RawClient(path).go(b"disk") as client:
        client.command(Command.READ, 5, 2 * MIB + 9)
        got: dict[int, bytes] = {}
        last = 0
        while not last:
            last, kind, cookie, payload = client.chunk()
            assert (kind, cookie) == (Chunk.OFFSET_DATA, 7)
            got[int.from_bytes(payload[:8], "big")] = payload[8:]
        assert b"".join(got[offset] for offset in sorted(got)) == DATA[5 : 5 + 2 * MIB + 9]
        client.command(Command.READ, 0, MIB, CommandFlag.DF)
        assert client.chunk() == (1, Chunk.OFFSET_DATA, 7, bytes(8) + DATA[:MIB])
        client.command(Command.READ, 0, 0)
        assert client.chunk() == (1, Chunk.NONE, 7, b"")
        client.command(Command.FLUSH, 0, 0)
        assert client.chunk() == (1, Chunk.NONE, 7, b"")


@pytest.mark.parametrize(
    ("command", "offset", "length", "flags", "code"),
    [
        (Command.READ, len(DATA), 1, 0, Failure.EINVAL),
        (Command.READ, 0xFFFFFFFFFFFFFFFF, 0xFFFFFFFF, 0, Failure.EINVAL),
        (Command.READ, 0, 0xFFFFFFFF, 0, Failure.EINVAL),
        (Command.READ, 0, 512, CommandFlag.REQ_ONE, Failure.EINVAL),
        (Command.READ, 0, 512, 0x8000, Failure.EINVAL),
        (Command.READ, 0, MIB + 1, CommandFlag.DF, Failure.EOVERFLOW),
        (Command.TRIM, 0, 512, 0, Failure.EPERM),
        (Command.WRITE_ZEROES, 0, 0xFFFFFFFF, 0, Failure.EPERM),
        (Command.CACHE, 0, 512, 0, Failure.EINVAL),
        (99, 0, 0xFFFFFFFF, 0, Failure.EINVAL),
        (Command.BLOCK_STATUS, 0, 0, 0, Failure.EINVAL),
        (Command.BLOCK_STATUS, 512, len(DATA), 0, Failure.EINVAL),
    ],
)
def test_commands_that_make_no_sense(
    path: str, command: int, offset: int, length: int, flags: int, code: Failure
) -> None:
    with RawClient(path).go(b"disk") as client:
        client.command(command, offset, length, flags)
        assert error(client) == code
        client.command(Command.READ, 0, 512)
        assert client.chunk()[3][8:] == DATA[:512]


def test_writes_are_refused_and_what_was_sent_with_them_skipped(path: str) -> None:
    with RawClient(path).go(b"disk") as client:
        client.command(Command.WRITE, 0, 3 * MIB, data=bytes(3 * MIB))
        assert error(client) == Failure.EPERM
        client.command(Command.READ, 0, 512)
        assert client.chunk()[3][8:] == DATA[:512]


def test_a_write_that_is_too_long_ends_the_connection(path: str) -> None:
    with RawClient(path).go(b"disk") as client:
        client.command(Command.WRITE, 0, 32 * MIB + 1)
        assert client.ended()


def test_no_request_at_all_ends_the_connection(path: str) -> None:
    with RawClient(path).go(b"disk") as client:
        client.send(COMMAND.pack(REQUEST_MAGIC + 1, 0, Command.READ, 7, 0, 512))
        assert client.ended()


def test_block_status(path: str) -> None:
    with RawClient(path).go(b"disk") as client:
        client.command(Command.BLOCK_STATUS, 100, len(DATA) - 100)
        flags, kind, cookie, payload = client.chunk()
        assert (flags, kind, cookie, payload[:4]) == (1, Chunk.BLOCK_STATUS, 7, struct.pack(">I", 1))
        runs = list(struct.iter_unpack(">II", payload[4:]))
        at = 100
        for length, state in runs:
            assert state in (0, 3)
            assert (state == 3) == (not any(DATA[at : at + length]))
            at += length
        assert at == len(DATA)
        assert all(one[1] != two[1] for one, two in itertools.pairwise(runs))
        client.command(Command.BLOCK_STATUS, 100, len(DATA) - 100, CommandFlag.REQ_ONE)
        assert list(struct.iter_unpack(">II", client.chunk()[3][4:])) == runs[:1]


def test_metadata_of_another_export_does_not_count(env: Env, tmp_path: Path) -> None:
    with (
        NbdServer(env, {"a": Disk(DATA), "b": Disk(DATA)}, tmp_path / "socket"),
        RawClient(str(tmp_path / "socket")) as client,
    ):
        client.option(Option.STRUCTURED_REPLY)
        client.option(Option.SET_META_CONTEXT, sized(b"a") + struct.pack(">I", 1) + sized(b"base:allocation"))
        client.option(Option.GO, select(b"b"))
        client.command(Command.BLOCK_STATUS, 0, 512)
        assert error(client) == Failure.EINVAL


def test_many_requests_at_once(path: str) -> None:
    with RawClient(path).go(b"disk") as client:
        for cookie in range(40):
            client.command(Command.READ, cookie * 4096, 4096, cookie=cookie)
        client.command(Command.DISC, 0, 0)
        seen = set()
        for _ in range(40):
            flags, kind, cookie, payload = client.chunk()
            assert (flags, kind, payload[8:]) == (1, Chunk.OFFSET_DATA, DATA[cookie * 4096 :][:4096])
            seen.add(cookie)
        assert len(seen) == 40
        assert client.ended()


def test_writes(writable: str) -> None:
    with RawClient(writable).go(b"disk") as client, RawClient(writable).go(b"disk", structured=False) as other:
        piece = b"\7" * (2 * MIB + 300)
        client.command(Command.WRITE, 700, len(piece), CommandFlag.FUA, data=piece)
        assert client.chunk() == (1, Chunk.NONE, 7, b"")
        client.command(Command.WRITE_ZEROES, 5000, 50000, CommandFlag.NO_HOLE)
        assert client.chunk() == (1, Chunk.NONE, 7, b"")
        client.command(Command.TRIM, 0, 512)
        assert client.chunk() == (1, Chunk.NONE, 7, b"")
        expected = bytearray(DATA)
        expected[700 : 700 + len(piece)] = piece
        expected[5000:55000] = bytes(50000)
        other.command(Command.READ, 0, len(DATA))
        assert other.receive(16) == struct.pack(">IIQ", 0x67446698, 0, 7)
        assert other.receive(len(DATA)) == expected
        for command, offset in ((Command.WRITE, len(DATA) - 5), (Command.WRITE_ZEROES, len(DATA) - 5)):
            client.command(command, offset, 6, data=b"x" * 6 if command == Command.WRITE else b"")
            assert error(client) == Failure.ENOSPC
        client.command(Command.TRIM, 0, 0xFFFFFFFF)
        assert error(client) == Failure.EINVAL
        other.command(Command.WRITE, 0, 1, data=b"y")
        assert other.receive(16) == struct.pack(">IIQ", 0x67446698, 0, 7)


def test_a_client_that_leaves_in_the_middle_costs_nothing(env: Env, path: str, writable: str) -> None:
    for where in (path, writable):
        for begun in (b"", b"\0", COMMAND.pack(REQUEST_MAGIC, 0, Command.WRITE, 1, 0, MIB) + bytes(1000)):
            with RawClient(where).go(b"disk") as client:
                for cookie in range(20):
                    client.command(Command.READ, 0, 3 * MIB, cookie=cookie)
                client.send(begun)
        with RawClient(where).go(b"disk") as client:
            client.command(Command.READ, 0, 512)
            assert client.chunk()[3][8:] == DATA[:512]
