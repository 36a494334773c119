# SPDX-License-Identifier: Apache-2.0
"""How a client agrees with a server on an export, and what they agree on.

Sources: doc/proto.md, "Newstyle negotiation", "Fixed newstyle negotiation", "TLS support", "Metadata querying",
"Option types", "Option reply types", "Block size constraints".
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from keepstone.disks.nbd.address import Address
from keepstone.disks.nbd.channel import Channel
from keepstone.disks.nbd.protocol import (
    CLIENT_FLAGS,
    GREETING,
    GREETING_MAGIC,
    INFO_BLOCK_SIZE,
    INFO_EXPORT,
    LENGTH,
    LONGEST_TEXT,
    OPTION,
    OPTION_MAGIC,
    OPTION_REPLY,
    OPTION_REPLY_MAGIC,
    REPLY_ERROR_BIT,
    SHORT,
    Handshake,
    Info,
    Option,
    Reply,
    Transmission,
    sized,
)
from keepstone.disks.nbd.violation import Violation
from keepstone.errors import AccessDenied, SourceFailed, SourceMissing

__all__ = ["Agreement", "agree"]

_LONGEST_REPLY = LONGEST_TEXT + 64
_REPLIES = 1000  # to one option
_OLD_TAIL = 124  # zeros behind the answer to EXPORT_NAME
_LARGEST_SIZE = 1 << 62


@dataclass(slots=True)
class Agreement:
    """`size` in bytes; `smallest` and `largest`: lengths of a request, the first also its alignment.

    `writable`: it takes writes; `zeroes`, `flushes`: and can be told to write zeros, and to make durable what it has.
    `contexts`: the names of those that the server has, by their numbers.
    """

    size: int = 0
    multiple: bool = False
    writable: bool = False
    zeroes: bool = False
    flushes: bool = False
    structured: bool = False
    smallest: int = 1
    largest: int = 32 << 20
    contexts: dict[int, str] = field(default_factory=dict)


class _Refused(Exception):
    """The server says no to an option."""

    def __init__(self, kind: int, text: str) -> None:
        self.kind = kind
        names: dict[int, str] = {Reply.ERR_POLICY: "its policy forbids it", Reply.ERR_SHUTDOWN: "it is shutting down"}
        super().__init__(text or names.get(kind) or f"it refuses ({kind & ~REPLY_ERROR_BIT})")


def agree(channel: Channel, address: Address, contexts: Sequence[str], tls: ssl.SSLContext | None) -> Agreement:
    """Come to terms on the export that the address names, with as many of the metadata contexts as there are.

    `SourceMissing` where it has no such export, `AccessDenied` where TLS is wanted and not to be had, `SourceFailed`
    where it refuses; `Violation`; `OSError` where the connection breaks.
    """
    return _Agreeing(channel, address, tls).run(contexts)


class _Agreeing:
    def __init__(self, channel: Channel, address: Address, tls: ssl.SSLContext | None) -> None:
        self._channel = channel
        self._address = address
        self._tls = tls
        self._name = address.export.encode()
        self._zeros = True
        self._agreed = Agreement()

    def run(self, contexts: Sequence[str]) -> Agreement:
        fixed = self._greeting()
        if self._tls is not None:
            self._start_tls(self._tls, fixed)
        try:
            if not fixed:
                self._by_name()
            else:
                self._options(contexts)
        except _Refused as error:
            if error.kind == Reply.ERR_TLS_REQD:
                raise AccessDenied(f"{self._address}: the server wants TLS; give it certificates") from error
            if error.kind == Reply.ERR_UNKNOWN:
                raise SourceMissing(
                    f"{self._address}: the server has no export named {self._address.export!r}; check the name"
                ) from error
            raise SourceFailed(f"{self._address}: the server refuses the export: {error}; see its log") from error
        return self._checked()

    def _greeting(self) -> bool:
        magic, kind, flags = GREETING.unpack(self._channel.receive(GREETING.size))
        if magic != GREETING_MAGIC or kind != OPTION_MAGIC:
            raise Violation("it does not greet as an NBD server of the newstyle protocol does")
        agreed = Handshake(flags & (Handshake.FIXED_NEWSTYLE | Handshake.NO_ZEROES))
        self._zeros = Handshake.NO_ZEROES not in agreed
        self._channel.send(CLIENT_FLAGS.pack(agreed))
        return Handshake.FIXED_NEWSTYLE in agreed

    def _start_tls(self, tls: ssl.SSLContext, fixed: bool) -> None:
        try:
            if not fixed:
                raise _Refused(Reply.ERR_UNSUP, "")
            self._ask(Option.STARTTLS, b"")
        except _Refused as error:
            raise AccessDenied(f"{self._address}: the server has no TLS; nothing is read without") from error
        self._channel.secure(tls, server=False, hostname=self._address.hostname or self._address.host or "localhost")

    def _options(self, contexts: Sequence[str]) -> None:
        try:
            self._ask(Option.STRUCTURED_REPLY, b"")
            self._agreed.structured = True
        except _Refused as error:
            if error.kind == Reply.ERR_TLS_REQD:
                raise
        if self._agreed.structured and contexts:
            self._choose(contexts)
        wanted = sized(self._name) + SHORT.pack(1) + SHORT.pack(Info.BLOCK_SIZE)
        try:
            for kind, data in self._ask(Option.GO, wanted):
                self._info(kind, data)
        except _Refused as error:
            if error.kind != Reply.ERR_UNSUP:
                raise
            self._by_name()

    def _choose(self, contexts: Sequence[str]) -> None:
        """Ask for metadata contexts; that there are none is no failure."""
        queries = b"".join(sized(name.encode()) for name in contexts)
        try:
            replies = self._ask(Option.SET_META_CONTEXT, sized(self._name) + LENGTH.pack(len(contexts)) + queries)
        except _Refused as error:
            if error.kind in (Reply.ERR_TLS_REQD, Reply.ERR_UNKNOWN):
                raise
            return
        for kind, data in replies:
            if kind != Reply.META_CONTEXT or len(data) < LENGTH.size:
                raise Violation("it answered a question for metadata contexts otherwise than by one")
            name = data[LENGTH.size :].decode("utf-8", "replace")
            (number,) = LENGTH.unpack_from(data)
            if name not in contexts or number in self._agreed.contexts or name in self._agreed.contexts.values():
                raise Violation("it gave a metadata context that nobody asked for, or twice")
            self._agreed.contexts[number] = name

    def _info(self, kind: int, data: bytes) -> None:
        if kind != Reply.INFO or len(data) < SHORT.size:
            raise Violation("it described its export in another form")
        (what,) = SHORT.unpack_from(data)
        if what == Info.EXPORT:
            if len(data) != INFO_EXPORT.size:
                raise Violation("it described its export in another form")
            _, size, flags = INFO_EXPORT.unpack(data)
            self._found(size, flags)
        elif what == Info.BLOCK_SIZE:
            if len(data) != INFO_BLOCK_SIZE.size:
                raise Violation("it described its blocks in another form")
            _, self._agreed.smallest, _, self._agreed.largest = INFO_BLOCK_SIZE.unpack(data)

    def _found(self, size: int, flags: int) -> None:
        self._agreed.size = size
        known = Transmission(flags & sum(Transmission))
        if Transmission.HAS_FLAGS not in known:
            raise Violation("it described its export in another form")
        self._agreed.multiple = Transmission.CAN_MULTI_CONN in known
        self._agreed.writable = Transmission.READ_ONLY not in known
        self._agreed.zeroes = Transmission.SEND_WRITE_ZEROES in known
        self._agreed.flushes = Transmission.SEND_FLUSH in known

    def _by_name(self) -> None:
        """As servers before `Option.GO` want it; they have no way to say no but to hang up."""
        self._channel.send(OPTION.pack(OPTION_MAGIC, Option.EXPORT_NAME, len(self._name)) + self._name)
        length = INFO_EXPORT.size - SHORT.size
        try:
            data = self._channel.receive(length + (_OLD_TAIL if self._zeros else 0))
        except ConnectionError as error:
            raise SourceMissing(
                f"{self._address}: the server hung up when it was asked for export {self._address.export!r}; check its "
                "name"
            ) from error
        _, size, flags = INFO_EXPORT.unpack(SHORT.pack(Info.EXPORT) + data[:length])
        self._found(size, flags)

    def _ask(self, option: Option, data: bytes) -> list[tuple[int, bytes]]:
        """The replies to an option but for the last one, which says yes. `_Refused` where it says no."""
        self._channel.send(OPTION.pack(OPTION_MAGIC, option, len(data)) + data)
        return list(self._replies(option))

    def _replies(self, option: Option) -> Iterator[tuple[int, bytes]]:
        for _ in range(_REPLIES):
            magic, answered, kind, length = OPTION_REPLY.unpack(self._channel.receive(OPTION_REPLY.size))
            if magic != OPTION_REPLY_MAGIC or answered != option:
                raise Violation("it answered what nobody asked")
            if length > _LONGEST_REPLY:
                raise Violation("it says too much at once")
            data = self._channel.receive(length)
            if kind & REPLY_ERROR_BIT:
                raise _Refused(kind, data.decode("utf-8", "replace"))
            if kind == Reply.ACK:
                return
            yield kind, data
        raise Violation("it does not come to an end")

    def _checked(self) -> Agreement:
        agreed = self._agreed
        if agreed.size > _LARGEST_SIZE:
            raise Violation(f"it claims to have {agreed.size} bytes")
        smallest, largest = agreed.smallest, agreed.largest
        if not 0 < smallest <= 1 << 16 or smallest & smallest - 1 or largest < smallest:
            raise Violation(f"it takes requests of {smallest} to {largest} bytes")
        if agreed.size % smallest:
            raise Violation(f"its {agreed.size} bytes do not end on one of its blocks of {smallest}")
        return agreed
