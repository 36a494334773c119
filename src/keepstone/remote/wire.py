# SPDX-License-Identifier: Apache-2.0
"""What a machine and its service say to one another: messages (msgpack) and the records of an upload.

An upload is one sequence of records, numbered from 0 over the whole session; each is a u32 length, a u8 kind and its
content (little-endian). A request carries some of them, in order. What was cut off in the middle is sent again, from
the number that the service says; records that it has already are passed over, so that a repeated request does no harm.

    FRAME   chunks that were compressed together: codec u8, three zero bytes, raw length u32, number of chunks u32,
            their lengths u32 each, their ids of 32 bytes each, the payload
    NODE    a node of the manifest: `NodeRecord`
    HANDLE  a node of the previous point that later records name: which child (u32) of which handle (u32) it is. The
            first one is called 1, and so on

Frames and nodes count separately: "the n-th chunk", "the n-th node" (`places`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Annotated, Any, TypeVar

import msgspec

from keepstone.decoders import from_msgpack
from keepstone.errors import CorruptObject
from keepstone.store import PointRecord
from keepstone.store.frame import MAX_FRAME

__all__ = [
    "CHUNK_HEAD",
    "CORRUPT",
    "CREATE",
    "FRAME",
    "FRAMED",
    "GONE",
    "HANDLE",
    "INTO_GUEST",
    "KEPT_DAYS",
    "KEY",
    "LARGEST_RECORD",
    "LOOK",
    "MISSING",
    "NEAR",
    "NODE",
    "PREFIX",
    "REPLACE",
    "STEPS",
    "TRANSFER",
    "Beat",
    "Begin",
    "Begun",
    "Commit",
    "Committed",
    "End",
    "Fetch",
    "Found",
    "FrameRecord",
    "NodeRecord",
    "Opened",
    "Plan",
    "Progress",
    "Pulse",
    "Pulsed",
    "Register",
    "Registered",
    "Renew",
    "Seen",
    "Step",
    "Told",
    "Wanted",
    "Work",
    "chunk_head",
    "decode",
    "encode",
    "frame_record",
    "handle_record",
    "node_record",
    "parse_chunk_head",
    "parse_frame",
    "parse_handle",
    "parse_zeros",
    "records",
    "whole",
    "zero_runs",
]

PREFIX = "/agent/v1/"
"""Where a service answers machines."""
TRANSFER = "keepstone-transfer/1"
"""The protocol (ALPN, RFC 7301) of connections over which a machine writes or reads points, and does nothing else."""
FRAME, NODE, HANDLE = 0, 1, 2
_HEAD = struct.Struct("<IB")
_FRAME = struct.Struct("<B3xII")
_HANDLE = struct.Struct("<II")
_ID = 32
KEY = 16
LARGEST_RECORD = MAX_FRAME + (1 << 20)
"""Bytes that a record may have."""
_MOST_CHUNKS = 1 << 16  # of a frame

_CHUNK = struct.Struct("<III")
_ZEROS = struct.Struct("<II")
CHUNK_HEAD = _CHUNK.size
FRAMED = 0xFFFFFFFD
"""Instead of the number of a node in the answer to a `Fetch`: a frame with several chunks follows (`framed.py`)."""
CORRUPT, MISSING = 0xFFFFFFFE, 0xFFFFFFFF
"""Instead of the number of a node in a `Fetch`: the rest cannot be read, and why."""

GONE = 0xFFFFFFFF
"""Instead of a chunk's length: it is damaged or gone."""

REPLACE, CREATE, INTO_GUEST = "OriginalLocation", "AlternateLocation", "IntoGuest"
"""The argument `mode` of a restore that puts the disks of a machine back into it, of one that makes a new one, and of
one that puts files of its disks into its guest."""

KEPT_DAYS, NEAR = "snapshots", "near"
"""The argument of a backup that says for how many days a snapshot of its point stays where the machine is, 0 for none;
and that of a restore which says that there is one of its point."""
LOOK = "LookAtSnapshots"
"""The operation of a job whose argument `items` has items (`item`, `name`, `source`) that may have snapshots here;
`stamps` are those that the service knows of, and with `none` all of them go."""

T = TypeVar("T")
Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
"""What a machine says of itself and a database keeps."""


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """A job that the machine holds now. `source`: what is to be backed up; `arguments`: what else the job says; `keys`:
    the item's sealed keys, where its machine has made some; after a blank each the same with earlier passphrases."""

    job: str
    token: int
    operation: str
    attempt: int
    item: str
    name: str
    source: dict[str, Any]
    workload: str
    arguments: dict[str, Any]
    keys: str = ""


STEPS = 100
"""Steps of a job that its log has of a machine."""


class Step(msgspec.Struct, frozen=True):
    """What a job did, for its log. `ago`: milliseconds since."""

    text: str
    ago: Count = 0


class Beat(msgspec.Struct, frozen=True):
    """A sign of life of a job, and how far it is. `target`: where a point is mounted. `steps`: all that it did since
    the machine has it, each time: who hears them knows how many he has."""

    job: str
    token: Count
    done: Count = 0
    expected: Count = 0
    line: str = ""
    target: str = ""
    steps: list[Step] = []


class Told(msgspec.Struct, frozen=True):
    """What the machine is told of a job that it holds: that it was cancelled, or is not its own any more."""

    job: str
    cancelled: bool = False
    lost: bool = False


class End(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a job. `status`: one of Azure's; `code`, `message`: of the failure. `found`: the machines of a
    hypervisor, or the one that was made, see `workloads.hypervisors.document_of`; or which snapshots of which items are
    gone, see `control/looks.py`. `kept`: when those snapshots of its item began that are there now; None where nobody
    looked. A backup tells that when it is over already: its point ended it. `near`: how many bytes a restore took from
    one; None where there was none. `steps`: as in a `Beat`."""

    job: str
    token: Count
    status: str
    code: str = ""
    message: str = ""
    done: Count = 0
    expected: Count = 0
    files: Count = 0
    target: str = ""
    warnings: list[str] = []
    found: list[dict[str, Any]] = []
    kept: list[Count] | None = None
    near: Count | None = None
    steps: list[Step] = []


class Pulse(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent says again and again. `room`: how many more jobs it would take; `wait`: how many seconds it
    is ready to wait for one. `plan`: whether it wants to know when its items are due."""

    version: str
    beats: list[Beat] = []
    room: int = 1
    wait: float = 0.0
    plan: bool = False


class Plan(msgspec.Struct, frozen=True):
    """When an item is due next, for times when the service cannot be reached: seconds since 1970."""

    item: str
    name: str
    due: float


class Pulsed(msgspec.Struct, frozen=True, kw_only=True):
    """The answer: jobs for it, what it is told of those it has, and its plan where it asked for that."""

    work: list[Work] = []
    told: list[Told] = []
    plan: list[Plan] | None = None


class Begin(msgspec.Struct, frozen=True, kw_only=True):
    """Begin a session for a job that the machine holds. `kind`: of the workload. `sealed`: the service is not to read
    it; `keys`: the sealed keys that its machine does so by. `clock`: what the machine's own clock says, nanoseconds
    since 1970: which files were written after this moment it alone can tell."""

    job: str
    token: Count
    kind: str
    clock: Count = 0
    sealed: bool = False
    keys: str = ""


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """`id_key`, `hashing`: how chunks are named. `parent`: the previous point, where there is one, without what tells
    of others; `parent_id`: its id; `keys`: of its roots, as in `Seen`. `whole`: all of its chunks and nodes may be
    named again."""

    session: str
    id_key: bytes
    hashing: str
    level: int
    parent: PointRecord | None = None
    parent_id: str = ""
    keys: bytes = b""
    whole: bool = True


class Wanted(msgspec.Struct, frozen=True):
    """Nodes of a point, each by its path: which child of which child of the point it is; with `deep` also what is
    below them, as far as one answer goes."""

    paths: list[list[int]]
    deep: bool = False


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """A node of a point. `chunks`: how many it has. `keys`: 16 bytes for each child; a node with the same key is the
    same node, in any point of this item. `stale`, `stale_children`: those that no new point may name. `shareable`: a
    new point may name it as it stands. `zeros`: runs of chunks that are all zeros, the first and how many, u32 each.
    `error`: why it cannot be read, and then it has nothing else."""

    path: list[int]
    kind: str
    chunks: int
    keys: bytes
    body: bytes
    shareable: bool = True
    stale: list[int] = []
    stale_children: list[int] = []
    zeros: bytes = b""
    error: str = ""

    @property
    def children(self) -> int:
        """How many child nodes it has."""
        return len(self.keys) // KEY


class Found(msgspec.Struct, frozen=True):
    """Which of the ids that were asked for the previous point has, and the number of the first of them."""

    first: int
    indexes: list[int]


class NodeRecord(msgspec.Struct, frozen=True, array_like=True):
    """`chunks`, `children`: places."""

    kind: str
    chunks: bytes
    children: bytes
    body: bytes


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """What the workload says of its point (`store.Outcome`). `records`: how many were sent; all of them have to be
    there. `root`: places."""

    records: int
    root: bytes
    detail: bytes
    source: bytes
    logical: Count
    read: Count
    files: Count
    warnings: Count
    messages: list[str] = []


class Committed(msgspec.Struct, frozen=True):
    """The point's id in the store."""

    point: str


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """A point that is to be read. `frames`: its chunks may be asked for in frames."""

    point: PointRecord
    keys: bytes
    id_key: bytes
    hashing: str
    frames: bool = False


class Fetch(msgspec.Struct, frozen=True):
    """Chunks of a point: for each of some nodes its path and which of its chunks, u32 each. `frames`: they may come in
    frames (`framed.py`), and whoever asks compares them with their ids."""

    nodes: list[tuple[list[int], bytes]]
    frames: bool = False


class Register(msgspec.Struct, frozen=True, kw_only=True):
    """A machine that has vault credentials asks for a certificate. `thumbprint`: of the credentials' certificate;
    `request`: a certificate signing request, DER; `signature`: over it, by the credentials' key."""

    thumbprint: str
    request: bytes
    signature: bytes
    name: str
    version: str
    system: dict[str, Any] = {}


class Renew(msgspec.Struct, frozen=True, kw_only=True):
    """A machine asks for its next certificate. `key`: the public key that it has now (SubjectPublicKeyInfo, DER);
    `signature`: over the request, by that key."""

    key: bytes
    request: bytes
    signature: bytes


class Registered(msgspec.Struct, frozen=True, kw_only=True):
    """`certificates`: PEM, the machine's and those that vouch for it. `until`: seconds since 1970."""

    certificates: str
    container: str
    vault: str
    until: float


class Progress(msgspec.Struct, frozen=True):
    """How many records the service has."""

    next: int


class FrameRecord(msgspec.Struct, frozen=True):
    """A frame as it came. `ids`: 32 bytes each."""

    codec: int
    raw_length: int
    lengths: list[int]
    ids: list[bytes]
    payload: memoryview


def encode(message: msgspec.Struct | Sequence[Any] | dict[str, str]) -> bytes:
    """A message for the wire."""
    return msgspec.msgpack.encode(message)


def decode(data: bytes | memoryview, kind: type[T]) -> T:
    """A message from the wire; `CorruptObject` where it is not of this kind."""
    try:
        return from_msgpack(kind).decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptObject(f"a message is not what it has to be: {error}") from error


def frame_record(
    codec: int, raw_length: int, lengths: Sequence[int], ids: Sequence[bytes], payload: bytes
) -> list[bytes]:
    """A frame as a record, in pieces that are sent one after the other."""
    count = len(lengths)
    head = b"".join((_FRAME.pack(codec, raw_length, count), struct.pack(f"<{count}I", *lengths), *ids))
    return [_HEAD.pack(len(head) + len(payload), FRAME) + head, payload]


def node_record(node: NodeRecord) -> bytes:
    """A node as a record."""
    data = encode(node)
    return _HEAD.pack(len(data), NODE) + data


def handle_record(above: int, index: int) -> bytes:
    """A handle as a record."""
    return _HEAD.pack(_HANDLE.size, HANDLE) + _HANDLE.pack(above, index)


def records(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(kind, content) of each whole record at the beginning of `data`. `CorruptObject` for one that cannot be."""
    at = 0
    while len(data) - at >= _HEAD.size:
        length, kind = _HEAD.unpack_from(data, at)
        if length > LARGEST_RECORD or kind > HANDLE:
            raise CorruptObject("an upload has a record that cannot be")
        at += _HEAD.size
        if at + length > len(data):
            return
        yield kind, data[at : at + length]
        at += length


def whole(data: memoryview) -> tuple[int, int]:
    """(bytes, number) of the whole records at the beginning of `data`. `CorruptObject` for one that cannot be."""
    lengths = [_HEAD.size + len(content) for _, content in records(data)]
    return sum(lengths), len(lengths)


def zero_runs(zeros: Sequence[bool]) -> bytes:
    """Where there are any, as `Seen` has them."""
    runs = b""
    at = 0
    for zero, run in groupby(zeros) if any(zeros) else ():
        count = sum(1 for _ in run)
        if zero:
            runs += _ZEROS.pack(at, count)
        at += count
    return runs


def parse_zeros(runs: bytes) -> Iterator[tuple[int, int]]:
    """(the first, how many) of each run. `CorruptObject` where it is none."""
    if len(runs) % _ZEROS.size:
        raise CorruptObject("runs of zeros have a broken length")
    yield from _ZEROS.iter_unpack(runs)


def parse_frame(data: memoryview) -> FrameRecord:
    """`CorruptObject` where its parts do not agree with one another."""
    if len(data) < _FRAME.size:
        raise CorruptObject("a frame is shorter than its head")
    codec, raw_length, count = _FRAME.unpack_from(data)
    at = _FRAME.size
    begin = at + (4 + _ID) * count
    if not 0 < count <= _MOST_CHUNKS or begin > len(data) or not 0 < raw_length <= MAX_FRAME:
        raise CorruptObject("a frame says of itself what cannot be")
    lengths = list(struct.unpack_from(f"<{count}I", data, at))
    at += 4 * count
    if sum(lengths) != raw_length or not all(lengths):
        raise CorruptObject("a frame has another length than its chunks")
    ids = bytes(data[at:begin])
    return FrameRecord(codec, raw_length, lengths, [ids[_ID * n : _ID * n + _ID] for n in range(count)], data[begin:])


def chunk_head(node: int, index: int, length: int) -> bytes:
    """What stands before each chunk of an answer to `Fetch`: of which node it is, which of those asked for, and its
    length. The chunks come in the order in which they were asked for, without those that cannot be read."""
    return _CHUNK.pack(node, index, length)


def parse_chunk_head(data: bytes | memoryview) -> tuple[int, int, int]:
    """(node, index, length)."""
    node, index, length = _CHUNK.unpack(data)
    if length > LARGEST_RECORD:
        raise CorruptObject("a chunk says a length that cannot be")
    return node, index, length


def parse_handle(data: memoryview) -> tuple[int, int]:
    """(the handle above, which child of it)."""
    if len(data) != _HANDLE.size:
        raise CorruptObject("a handle has a broken length")
    above, index = _HANDLE.unpack(data)
    return above, index
