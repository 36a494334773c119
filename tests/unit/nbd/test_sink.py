# SPDX-License-Identifier: Apache-2.0
"""Our writing client against qemu-nbd, our own server, and servers that fail or lie."""

from __future__ import annotations

import itertools
import random
import struct
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keepstone.disks.nbd import NbdServer, NbdSink, NbdSource
from keepstone.disks.nbd.protocol import COMMAND, SIMPLE_REPLY, SIMPLE_REPLY_MAGIC, Command, Info
from keepstone.env import Env
from keepstone.errors import SourceMissing, StorageError, StorageFull, UsageError
from tests.unit.nbd.raw import Peer, answering, greet
from tests.unit.nbd.serving import KIB, MIB, Disk, content, needs, qemu_nbd, read

pytestmark = pytest.mark.vm

needs_qemu = needs("qemu-nbd", "qemu-img", "qemu-io")
SIZE = 6 * MIB + 36 * KIB
WRITABLE, FLUSHES, ZEROES = 1, 1 | 1 << 2, 1 | 1 << 2 | 1 << 6


def scribble(sink: NbdSink, before: bytes, unit: int) -> bytes:
    """Write data and zeros by several threads, each place once; what the disk holds then."""
    after = bytearray(before)
    chance = random.Random(3)
    edges = sorted({chance.randrange(0, SIZE, unit) for _ in range(60)} | {SIZE})
    work = list(itertools.pairwise(edges))
    chance.shuffle(work)

    def change(numbered: tuple[int, tuple[int, int]]) -> None:
        number, (begin, end) = numbered
        if number % 3 == 0:
            sink.zero(begin, end - begin)
            after[begin:end] = bytes(end - begin)
        elif number % 3 == 1:
            data = random.Random(number).randbytes(end - begin)
            sink.write(begin, data)
            after[begin:end] = data

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(change, enumerate(work)))
    sink.finish()
    return bytes(after)


@needs_qemu
@pytest.mark.parametrize("shared", [1, 8])
@pytest.mark.parametrize("unit", [4096, 1])
def test_a_raw_image_by_qemu_nbd(env: Env, tmp_path: Path, shared: int, unit: int) -> None:
    image = tmp_path / "image"
    image.write_bytes(content(SIZE))
    with qemu_nbd(image, shared=shared, writable=True) as socket, NbdSink(env, socket) as sink:
        assert (sink.size, sink.changed) == (SIZE, 0)
        expected = scribble(sink, image.read_bytes(), unit)
        assert MIB < sink.changed < SIZE
    assert image.read_bytes() == expected


@needs_qemu
def test_a_qcow2_by_qemu_nbd(env: Env, tmp_path: Path) -> None:
    raw, image = tmp_path / "raw", tmp_path / "image.qcow2"
    raw.write_bytes(content(SIZE))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image], check=True)
    with qemu_nbd(image, form="qcow2", writable=True) as socket, NbdSink(env, socket) as sink:
        expected = scribble(sink, raw.read_bytes(), 4096)
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, raw], check=True)
    assert raw.read_bytes() == expected


@needs_qemu
def test_zeros_take_no_room(env: Env, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"x" * (64 * MIB))
    with qemu_nbd(image, "--discard=unmap", writable=True) as socket, NbdSink(env, socket) as sink:
        sink.zero(0, 63 * MIB)
        sink.finish()
        with NbdSource(env, socket) as source:
            assert sum(extent.length for extent in source.extents() if extent.zero) == 63 * MIB
    assert image.stat().st_blocks * 512 < 2 * MIB


@needs_qemu
def test_ranges_that_are_no_whole_blocks_of_the_server(env: Env, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(content(SIZE))
    with qemu_nbd(image, writable=True, align=4096) as socket, NbdSink(env, socket) as sink:
        expected = scribble(sink, image.read_bytes(), 1)
    assert image.read_bytes() == expected


@needs_qemu
def test_what_cannot_be_written(env: Env, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(MIB))
    with qemu_nbd(image) as socket, pytest.raises(UsageError, match="is read-only"):
        NbdSink(env, socket)
    with qemu_nbd(image, writable=True) as socket, NbdSink(env, socket) as sink:
        with pytest.raises(UsageError, match="are not in"):
            sink.write(MIB - 1, b"ab")
        for offset, length in ((-1, 2), (0, MIB + 1)):
            with pytest.raises(UsageError, match="are not in"):
                sink.zero(offset, length)
    with pytest.raises(SourceMissing):
        NbdSink(env, tmp_path / "none")


def test_our_own_server(env: Env, tmp_path: Path) -> None:
    """Its client reads back what it wrote, beside the sink and after it."""
    data = content(SIZE)
    place = tmp_path / "socket"
    with (
        NbdServer(env, {"vda": Disk(data)}, place, overlay=tmp_path),
        NbdSink(env, place, "vda") as sink,
        NbdSource(env, place, "vda") as source,
    ):
        expected = scribble(sink, data, 512)
        assert read(source) == expected
        with pytest.raises(UsageError, match="it is closed"):
            sink.write(0, b"x" * 4096)


def simple(cookie: int, code: int = 0) -> bytes:
    return SIMPLE_REPLY.pack(SIMPLE_REPLY_MAGIC, code, cookie)


def server(
    flags: int, answer: Callable[[Peer, int, int], None], *, blocks: bytes = b"", size: int = MIB
) -> tuple[Callable[[Peer], None], list[tuple[int, int, int]]]:
    """What a server does that answers (command, handle) so, and what it was asked: (flags, command, length)."""
    asked: list[tuple[int, int, int]] = []
    lock = threading.Lock()

    def behave(peer: Peer) -> None:
        greet(peer, flags=flags, blocks=blocks, size=size)
        while True:
            _, given, command, cookie, _, length = COMMAND.unpack(peer.receive(COMMAND.size))
            if command == Command.DISC:
                return
            if command == Command.WRITE:
                peer.receive(length)
            with lock:
                asked.append((given, command, length))
            answer(peer, command, cookie)

    return behave, asked


def fine(peer: Peer, command: int, cookie: int) -> None:
    peer.send(simple(cookie))


def another(peer: Peer, command: int, cookie: int) -> None:
    peer.send(simple(cookie + 1))


def cut(peer: Peer, command: int, cookie: int) -> None:
    peer.send(simple(cookie)[:7])
    raise EOFError


def nothing(peer: Peer, command: int, cookie: int) -> None: ...


def test_what_is_asked(env: Env, tmp_path: Path) -> None:
    """Zeros may become holes, and everything is made durable once, at the end."""
    behave, asked = server(ZEROES, fine)
    with answering(tmp_path / "socket", behave) as path, NbdSink(env, path) as sink:
        sink.zero(0, 512 * KIB)
        sink.write(512 * KIB, bytes(4096))
        sink.finish()
    assert asked == [(0, Command.WRITE_ZEROES, 512 * KIB), (0, Command.WRITE, 4096), (0, Command.FLUSH, 0)]


def test_a_server_without_zeros_and_flush(env: Env, tmp_path: Path) -> None:
    """And with small requests."""
    behave, asked = server(WRITABLE, fine, blocks=struct.pack(">HIII", Info.BLOCK_SIZE, 512, 4096, 65536 + 512))
    with answering(tmp_path / "socket", behave) as path, NbdSink(env, path) as sink:
        sink.zero(0, 128 * KIB)
        sink.finish()
    assert asked == [(0, Command.WRITE, 65536 + 512), (0, Command.WRITE, 65536 - 512)]


@pytest.mark.parametrize(("code", "kind"), [(28, StorageFull), (5, StorageError)])
def test_a_write_that_fails(env: Env, tmp_path: Path, code: int, kind: type[StorageError]) -> None:
    """What is under way is waited for, nothing more is sent, and the connection is still good."""

    def refuse(peer: Peer, command: int, cookie: int) -> None:
        peer.send(simple(cookie, code if command == Command.WRITE else 0))

    behave, asked = server(FLUSHES, refuse, size=32 * MIB)
    with answering(tmp_path / "socket", behave) as path, NbdSink(env, path) as sink:
        with pytest.raises(StorageError, match="bytes 0 to 33554432 cannot be written: error") as caught:
            sink.write(0, bytes(32 * MIB))
        assert type(caught.value) is kind
        sink.finish()
    assert [command for _, command, _ in asked] == [Command.WRITE] * 16 + [Command.FLUSH]


def test_a_flush_that_fails(env: Env, tmp_path: Path) -> None:
    behave, _ = server(FLUSHES, lambda peer, command, cookie: peer.send(simple(cookie, 5)))
    with (
        answering(tmp_path / "socket", behave) as path,
        NbdSink(env, path) as sink,
        pytest.raises(StorageError, match="EIO"),
    ):
        sink.finish()


@pytest.mark.parametrize(("answer", "said"), [(another, "is not sound"), (cut, "went away"), (nothing, "went away")])
def test_a_server_that_is_not_sound(
    env: Env, tmp_path: Path, answer: Callable[[Peer, int, int], None], said: str
) -> None:
    behave, _ = server(FLUSHES, answer)
    with answering(tmp_path / "socket", behave) as path, NbdSink(env, path, patience=0.3) as sink:
        with pytest.raises(StorageError, match=said):
            sink.write(0, bytes(4096))
        with pytest.raises(StorageError, match="any more"):
            sink.write(0, bytes(4096))
        with pytest.raises(StorageError, match="any more"):
            sink.finish()
