# SPDX-License-Identifier: Apache-2.0
"""How a server agrees with a client on an export. Everything that a client may say is bounded.

Sources: doc/proto.md, "Newstyle negotiation", "Fixed newstyle negotiation", "TLS support" (the server forces TLS, or
has none), "Option types", "Option reply types", "Metadata querying".
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass

from keepstone.disks.nbd.channel import Channel
from keepstone.disks.nbd.export import Export
from keepstone.disks.nbd.protocol import (
    ALLOCATION,
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
    SHORT,
    Handshake,
    Info,
    Option,
    Reply,
    Transmission,
    sized,
)
from keepstone.disks.nbd.violation import Violation
from keepstone.env import Env

__all__ = ["ALLOCATION_NUMBER", "LARGEST", "Agreed", "Negotiation"]

LARGEST = 32 << 20
"""Bytes of one request at most; what clients that do not ask expect ("Block size constraints")."""
ALLOCATION_NUMBER = 1
"""The number of the one metadata context that there is."""
_PREFERRED = 256 << 10
_LONGEST_OPTION = 64 << 10
_PATIENCE = 60.0  # seconds until a client has to have chosen
_OLD_TAIL = 124


@dataclass(frozen=True, slots=True)
class Agreed:
    """What the client chose. `allocation`: it may ask for block status."""

    export: Export
    structured: bool
    allocation: bool


class _Refusal(Exception):
    """An option that gets an error for an answer, and nothing else happens."""

    def __init__(self, kind: Reply, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Negotiation:
    """With one client. With `tls` nothing is told to anybody before it is there."""

    def __init__(self, env: Env, channel: Channel, exports: Mapping[str, Export], tls: ssl.SSLContext | None) -> None:
        self._env = env
        self._channel = channel
        self._exports = exports
        self._tls = tls
        self._secured = False
        self._zeros = True
        self._structured = False
        self._context: str | None = None  # the export that allocation was chosen for

    def run(self) -> Agreed | None:
        """What was agreed on; None where the client left. `Violation` and `OSError` end the connection."""
        flags = Handshake.FIXED_NEWSTYLE | Handshake.NO_ZEROES
        self._channel.send(GREETING.pack(GREETING_MAGIC, OPTION_MAGIC, flags))
        (answer,) = CLIENT_FLAGS.unpack(self._channel.receive(CLIENT_FLAGS.size))
        if answer & ~int(flags):  # the complement of a flag has known bits only
            raise Violation("it wants what was not offered")
        self._zeros = not answer & Handshake.NO_ZEROES
        begun = self._env.boot_time()
        while self._env.boot_time() - begun < _PATIENCE * 1e9:
            magic, option, length = OPTION.unpack(self._channel.receive(OPTION.size))
            if magic != OPTION_MAGIC or length > _LONGEST_OPTION:
                raise Violation("it sent no sound option")
            data = self._channel.receive(length)
            if option == Option.EXPORT_NAME:
                return self._by_name(data)
            if option == Option.ABORT:
                self._reply(option, Reply.ACK)
                return None
            try:
                agreed = self._answer(option, data)
            except _Refusal as error:
                self._reply(option, error.kind, str(error).encode())
                continue
            self._reply(option, Reply.ACK)
            if agreed is not None:
                return agreed
            if option == Option.STARTTLS:
                assert self._tls is not None
                self._channel.secure(self._tls, server=True)
                self._secured = True
        raise Violation("it does not come to an end")

    def _answer(self, option: int, data: bytes) -> Agreed | None:
        """Everything but the last reply, which says yes; what was agreed on by it."""
        if option == Option.STARTTLS:
            self._may_start_tls(data)
        elif self._tls is not None and not self._secured:
            raise _Refusal(Reply.ERR_TLS_REQD, "TLS has to come first")
        elif option == Option.LIST:
            self._nothing(data)
            for name in self._exports:
                self._reply(option, Reply.SERVER, sized(name.encode()))
        elif option == Option.STRUCTURED_REPLY:
            self._nothing(data)
            self._structured = True
        elif option in (Option.INFO, Option.GO):
            agreed = self._described(option, data)
            return agreed if option == Option.GO else None
        elif option in (Option.LIST_META_CONTEXT, Option.SET_META_CONTEXT):
            self._contexts(option, data)
        else:
            raise _Refusal(Reply.ERR_UNSUP, "there is no such option here")
        return None

    def _may_start_tls(self, data: bytes) -> None:
        self._nothing(data)
        if self._tls is None:
            raise _Refusal(Reply.ERR_POLICY, "this server has no certificates")
        if self._secured:
            raise _Refusal(Reply.ERR_INVALID, "TLS is there already")

    def _by_name(self, data: bytes) -> Agreed:
        """The old way, which knows no refusal but to hang up."""
        if self._tls is not None and not self._secured:
            raise Violation("it wants an export without TLS")
        try:
            agreed = self._agreed(data)
        except _Refusal as error:
            raise Violation(str(error)) from error
        head = INFO_EXPORT.pack(Info.EXPORT, agreed.export.size, self._flags(agreed.export))[SHORT.size :]
        self._channel.send(head, bytes(_OLD_TAIL if self._zeros else 0))
        return agreed

    def _described(self, option: int, data: bytes) -> Agreed:
        name, rest = _text(data)
        if len(rest) < SHORT.size or len(rest) != SHORT.size + SHORT.size * SHORT.unpack_from(rest)[0]:
            raise _Refusal(Reply.ERR_INVALID, "the questions are not as many as they should be")
        agreed = self._agreed(name)
        wanted = {number for (number,) in SHORT.iter_unpack(rest[SHORT.size :])}
        export = agreed.export
        self._reply(option, Reply.INFO, INFO_EXPORT.pack(Info.EXPORT, export.size, self._flags(export)))
        if Info.NAME in wanted:
            self._reply(option, Reply.INFO, SHORT.pack(Info.NAME) + export.name.encode())
        self._reply(option, Reply.INFO, INFO_BLOCK_SIZE.pack(Info.BLOCK_SIZE, 1, _PREFERRED, LARGEST))
        return agreed

    def _contexts(self, option: int, data: bytes) -> None:
        if not self._structured:
            raise _Refusal(Reply.ERR_INVALID, "structured replies have to come first")
        name, rest = _text(data)
        if len(rest) < LENGTH.size:
            raise _Refusal(Reply.ERR_INVALID, "the number of questions is missing")
        (count,) = LENGTH.unpack_from(rest)
        rest = rest[LENGTH.size :]
        queries: list[bytes] = []
        while rest and len(queries) < count:
            query, rest = _text(rest)
            queries.append(query)
        if rest or len(queries) != count:
            raise _Refusal(Reply.ERR_INVALID, "the questions are not as many as they should be")
        export = self._found(name)
        known = {ALLOCATION.encode()}
        if option == Option.LIST_META_CONTEXT:
            chosen = not queries or not known.union((b"base:",)).isdisjoint(queries)
        else:
            chosen = not known.isdisjoint(queries)
            self._context = export.name if chosen else None
        if chosen:
            self._reply(option, Reply.META_CONTEXT, LENGTH.pack(ALLOCATION_NUMBER) + ALLOCATION.encode())

    def _agreed(self, name: bytes) -> Agreed:
        export = self._found(name)
        return Agreed(export, self._structured, self._context == export.name)

    def _found(self, name: bytes) -> Export:
        """The export of this name; where there is but one, it is also the one without name."""
        try:
            export = self._exports.get(name.decode())
        except UnicodeDecodeError as error:
            raise _Refusal(Reply.ERR_INVALID, "names are UTF-8") from error
        if export is None and not name and len(self._exports) == 1:
            export = next(iter(self._exports.values()))
        if export is None:
            raise _Refusal(Reply.ERR_UNKNOWN, "there is no export of this name")
        return export

    def _flags(self, export: Export) -> int:
        return export.flags | (Transmission.SEND_DF if self._structured else 0)

    def _nothing(self, data: bytes) -> None:
        if data:
            raise _Refusal(Reply.ERR_INVALID, "this option has no data")

    def _reply(self, option: int, kind: Reply, data: bytes = b"") -> None:
        self._channel.send(OPTION_REPLY.pack(OPTION_REPLY_MAGIC, option, kind, len(data)) + data)


def _text(data: bytes) -> tuple[bytes, bytes]:
    """(the string at the beginning, what is behind it)."""
    if len(data) < LENGTH.size:
        raise _Refusal(Reply.ERR_INVALID, "a length is missing")
    (length,) = LENGTH.unpack_from(data)
    if length > LONGEST_TEXT:
        raise _Refusal(Reply.ERR_TOO_BIG, f"a string has at most {LONGEST_TEXT} bytes")
    if length > len(data) - LENGTH.size:
        raise _Refusal(Reply.ERR_INVALID, "a string is longer than what there is of it")
    return data[LENGTH.size : LENGTH.size + length], data[LENGTH.size + length :]
