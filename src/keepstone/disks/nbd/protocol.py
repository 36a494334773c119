# SPDX-License-Identifier: Apache-2.0
"""Numbers and layouts of the Network Block Device protocol, as both sides of it need them.

Source: https://github.com/NetworkBlockDevice/nbd, doc/proto.md; the sections are named beside what comes from them.
All integers are in network byte order ("Conventions").
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from struct import Struct

__all__ = [
    "ALLOCATION",
    "CLIENT_FLAGS",
    "COMMAND",
    "DATA_HEAD",
    "DESCRIPTOR",
    "DIRTY_BITMAP",
    "GREETING",
    "GREETING_MAGIC",
    "HOLE_HEAD",
    "INFO_BLOCK_SIZE",
    "INFO_EXPORT",
    "LENGTH",
    "LONGEST_TEXT",
    "OPTION",
    "OPTION_MAGIC",
    "OPTION_REPLY",
    "OPTION_REPLY_MAGIC",
    "PORT",
    "REPLY_ERROR_BIT",
    "REQUEST_MAGIC",
    "SHORT",
    "SIMPLE_REPLY",
    "SIMPLE_REPLY_MAGIC",
    "STRUCTURED_REPLY",
    "STRUCTURED_REPLY_MAGIC",
    "Chunk",
    "Command",
    "CommandFlag",
    "Dirty",
    "Failure",
    "Handshake",
    "Info",
    "Option",
    "Reply",
    "State",
    "Transmission",
    "sized",
]

PORT = 10809
"""The one that IANA reserved ("Newstyle negotiation")."""

# "Newstyle negotiation"
GREETING = Struct(">QQH")
"""NBDMAGIC, IHAVEOPT, handshake flags."""
GREETING_MAGIC = 0x4E42444D41474943
OPTION_MAGIC = 0x49484156454F5054
CLIENT_FLAGS = Struct(">I")
OPTION = Struct(">QII")
"""IHAVEOPT, option, length of its data."""

# "Fixed newstyle negotiation"
OPTION_REPLY = Struct(">QIII")
"""Magic, option, type, length of its data."""
OPTION_REPLY_MAGIC = 0x3E889045565A9
REPLY_ERROR_BIT = 1 << 31

# "Request message", "Simple reply message", "Structured reply chunk message"
COMMAND = Struct(">IHHQQI")
"""Magic, flags, type, handle, offset, length."""
REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY = Struct(">IIQ")
"""Magic, error, handle."""
SIMPLE_REPLY_MAGIC = 0x67446698
STRUCTURED_REPLY = Struct(">IHHQI")
"""Magic, flags, type, handle, length of its payload."""
STRUCTURED_REPLY_MAGIC = 0x668E33EF

LENGTH = Struct(">I")
SHORT = Struct(">H")
INFO_EXPORT = Struct(">HQH")
"""`Info.EXPORT`, size, transmission flags."""
INFO_BLOCK_SIZE = Struct(">HIII")
"""`Info.BLOCK_SIZE`; smallest, preferred and largest length of a request."""
DATA_HEAD = Struct(">IQ")
"""Length of the payload, and the offset that it begins with."""
HOLE_HEAD = Struct(">IQI")
"""Length of the payload, offset, length of the hole."""
DESCRIPTOR = Struct(">II")
"""Length and flags of an extent."""

LONGEST_TEXT = 4096
"""Bytes of a name or message at most ("Conventions")."""

ALLOCATION = "base:allocation"
"""The metadata context that says where there is data ("Metadata contexts")."""
DIRTY_BITMAP = "qemu:dirty-bitmap:"
"""What the contexts of QEMU's bitmaps begin with (QEMU, docs/interop/nbd.txt)."""


class Handshake(IntFlag):
    """ "Handshake flags" and "Client flags"."""

    FIXED_NEWSTYLE = 1
    NO_ZEROES = 2


class Transmission(IntFlag):
    """ "Transmission flags"."""

    HAS_FLAGS = 1 << 0
    READ_ONLY = 1 << 1
    SEND_FLUSH = 1 << 2
    SEND_FUA = 1 << 3
    SEND_TRIM = 1 << 5
    SEND_WRITE_ZEROES = 1 << 6
    SEND_DF = 1 << 7
    CAN_MULTI_CONN = 1 << 8


class Option(IntEnum):
    """ "Option types"."""

    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10


class Info(IntEnum):
    """Kinds of `Reply.INFO` ("Option reply types", NBD_REP_INFO)."""

    EXPORT = 0
    NAME = 1
    DESCRIPTION = 2
    BLOCK_SIZE = 3


class Reply(IntEnum):
    """ "Option reply types"."""

    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    ERR_UNSUP = REPLY_ERROR_BIT + 1
    ERR_POLICY = REPLY_ERROR_BIT + 2
    ERR_INVALID = REPLY_ERROR_BIT + 3
    ERR_PLATFORM = REPLY_ERROR_BIT + 4
    ERR_TLS_REQD = REPLY_ERROR_BIT + 5
    ERR_UNKNOWN = REPLY_ERROR_BIT + 6
    ERR_SHUTDOWN = REPLY_ERROR_BIT + 7
    ERR_BLOCK_SIZE_REQD = REPLY_ERROR_BIT + 8
    ERR_TOO_BIG = REPLY_ERROR_BIT + 9


class Command(IntEnum):
    """ "Request types"."""

    READ = 0
    WRITE = 1
    DISC = 2
    FLUSH = 3
    TRIM = 4
    CACHE = 5
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7


class CommandFlag(IntFlag):
    """ "Command flags"."""

    FUA = 1 << 0
    NO_HOLE = 1 << 1
    DF = 1 << 2
    REQ_ONE = 1 << 3


class Chunk(IntEnum):
    """ "Structured reply types"."""

    NONE = 0
    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5
    ERROR = (1 << 15) + 1
    ERROR_OFFSET = (1 << 15) + 2


class State(IntFlag):
    """Flags of an extent in `ALLOCATION` ("Metadata contexts")."""

    HOLE = 1
    ZERO = 2


class Dirty(IntFlag):
    """Flags of an extent in a bitmap of QEMU (docs/interop/nbd.txt)."""

    DIRTY = 1


class Failure(IntEnum):
    """ "Error values": those of Linux, whatever the systems are."""

    EPERM = 1
    EIO = 5
    ENOMEM = 12
    EINVAL = 22
    ENOSPC = 28
    EOVERFLOW = 75
    ENOTSUP = 95
    ESHUTDOWN = 108


def sized(text: bytes) -> bytes:
    """A string behind its length, as options carry it."""
    return LENGTH.pack(len(text)) + text
