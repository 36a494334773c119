# SPDX-License-Identifier: Apache-2.0
"""Both sides of the protocol byte by byte: a client that says anything, and a server that answers as it was told."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from keepstone.disks.nbd.protocol import (
    COMMAND,
    GREETING,
    GREETING_MAGIC,
    OPTION,
    OPTION_MAGIC,
    OPTION_REPLY,
    OPTION_REPLY_MAGIC,
    REQUEST_MAGIC,
    STRUCTURED_REPLY,
    STRUCTURED_REPLY_MAGIC,
    Info,
    Option,
    Reply,
    sized,
)

__all__ = ["Peer", "RawClient", "answering", "chunk", "greet", "select"]


class Peer:
    """A socket that gives exactly what is asked for; `EOFError` at its end."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(20)
        self.sock = sock

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def receive(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            with contextlib.suppress(ConnectionResetError):
                piece = self.sock.recv(count - len(data))
                if piece:
                    data += piece
                    continue
            raise EOFError
        return data

    def ended(self) -> bool:
        """Whether the other side hung up, and said nothing more."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True


class RawClient(Peer):
    """Connected, and greeted with these flags."""

    def __init__(self, path: str, flags: int | None = 3) -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        super().__init__(sock)
        self.greeting = GREETING.unpack(self.receive(GREETING.size))
        if flags is not None:
            self.send(struct.pack(">I", flags))

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def option(self, option: int, data: bytes = b"") -> list[tuple[int, bytes]]:
        """All replies to an option."""
        self.send(OPTION.pack(OPTION_MAGIC, option, len(data)) + data)
        replies = []
        while True:
            magic, answered, kind, length = OPTION_REPLY.unpack(self.receive(OPTION_REPLY.size))
            assert (magic, answered) == (OPTION_REPLY_MAGIC, option)
            replies.append((kind, self.receive(length)))
            if kind == Reply.ACK or kind >> 31:
                return replies

    def go(self, name: bytes = b"", *, structured: bool = True, allocation: bool = True) -> RawClient:
        """Choose an export."""
        if structured:
            assert self.option(Option.STRUCTURED_REPLY) == [(Reply.ACK, b"")]
            if allocation:
                query = sized(name) + struct.pack(">I", 1) + sized(b"base:allocation")
                assert self.option(Option.SET_META_CONTEXT, query)[-1][0] == Reply.ACK
        assert self.option(Option.GO, select(name))[-1] == (Reply.ACK, b"")
        return self

    def command(
        self, command: int, offset: int, length: int, flags: int = 0, cookie: int = 7, data: bytes = b""
    ) -> None:
        self.send(COMMAND.pack(REQUEST_MAGIC, flags, command, cookie, offset, length) + data)

    def chunk(self) -> tuple[int, int, int, bytes]:
        """(flags, type, handle, payload) of a part of a structured reply."""
        magic, flags, kind, cookie, length = STRUCTURED_REPLY.unpack(self.receive(STRUCTURED_REPLY.size))
        assert magic == STRUCTURED_REPLY_MAGIC
        return flags, kind, cookie, self.receive(length)


def select(name: bytes = b"", *infos: int) -> bytes:
    """The data of `Option.GO`."""
    return sized(name) + struct.pack(f">H{len(infos)}H", len(infos), *infos)


def chunk(kind: int, cookie: int, payload: bytes, *, done: bool = True) -> bytes:
    """A part of a structured reply."""
    return STRUCTURED_REPLY.pack(STRUCTURED_REPLY_MAGIC, int(done), kind, cookie, len(payload)) + payload


def greet(peer: Peer, *, size: int = 1 << 20, flags: int = 1, blocks: bytes = b"", structured: bool = True) -> None:
    """Agree with a client on whatever it wants; `blocks`: a reply about block sizes."""
    peer.send(GREETING.pack(GREETING_MAGIC, OPTION_MAGIC, 3))
    peer.receive(4)
    while True:
        _, option, length = OPTION.unpack(peer.receive(OPTION.size))
        data = peer.receive(length)

        def reply(kind: int, data: bytes = b"", option: int = option) -> None:
            peer.send(OPTION_REPLY.pack(OPTION_REPLY_MAGIC, option, kind, len(data)) + data)

        if option == Option.STRUCTURED_REPLY and not structured:
            reply(Reply.ERR_UNSUP)
            continue
        if option == Option.SET_META_CONTEXT:
            (name,) = struct.unpack(">I", data[:4])
            queries = data[4 + name + 4 :]
            number = 0
            while queries:
                (long,) = struct.unpack(">I", queries[:4])
                reply(Reply.META_CONTEXT, struct.pack(">I", number) + queries[4 : 4 + long])
                queries, number = queries[4 + long :], number + 1
        if option == Option.GO:
            reply(Reply.INFO, struct.pack(">HQH", Info.EXPORT, size, flags))
            if blocks:
                reply(Reply.INFO, blocks)
        reply(Reply.ACK)
        if option == Option.GO:
            return


@contextlib.contextmanager
def answering(path: Path, behave: Callable[[Peer], None]) -> Iterator[Path]:
    """A server that does this with each client; it hangs up afterwards. Where a client left, it stops."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    failures: list[BaseException] = []

    def serve(sock: socket.socket) -> None:
        with sock:
            try:
                behave(Peer(sock))
            except (EOFError, ConnectionError):
                pass
            except BaseException as error:
                failures.append(error)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                threads.append(threading.Thread(target=serve, args=(sock,)))
                threads[-1].start()

    threads = [threading.Thread(target=accept)]
    threads[0].start()
    try:
        yield path
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        listener.close()
        path.unlink()
    assert not failures, failures
