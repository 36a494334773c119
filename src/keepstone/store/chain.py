# SPDX-License-Identifier: Apache-2.0
"""The head chain: a signed log of what happened to the store's points, one object an entry.

An entry names an event, the object it concerns and the digest of that object's bytes, and carries the digest of the
entry before; all of it is signed with Ed25519. Entries are canonical JSON in clear, because they tell nothing that
a listing of the storage does not, and anybody with the public key can audit them.

What it is for: order (a point without an entry is the newest), and evidence. A point that the chain has and the
storage lacks, without a purge, is lost or taken away; a chain shorter than this machine remembers means that the
store was rolled back.

Order of writing: a commit cell, then its entry. A purge or an undelete: the entry, then the deletion. So a crash
between the two leaves at most one step that the next run repeats, and never an unexplained absence.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from keepstone.crypto import sign, verify
from keepstone.errors import CorruptObject, KeepstoneError, ObjectExists, ObjectMissing, StorageError
from keepstone.store.context import Context
from keepstone.store.layout import DELETED, HEADS, commit_name, head_name, names

__all__ = ["EVENTS", "Chain", "Head"]

EVENTS = ("init", "keys", "commit", "move", "forget", "undelete", "undeleted", "purge", "drop-move")


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """One entry. `previous` and `digest` are hex; `time` is what the writer's wall clock said (ns), for people only."""

    sequence: int
    previous: str
    event: str
    object: str
    digest: str
    time: int
    store: str


class _Signed(msgspec.Struct, frozen=True):
    head: msgspec.Raw
    signature: str


_encoder = msgspec.json.Encoder(order="deterministic")
_signed = msgspec.json.Decoder(_Signed)
_head = msgspec.json.Decoder(Head)


class Chain:
    """Reads and extends the chain. Concurrent writers race for a sequence number; the loser takes the next."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._last: tuple[int, str] | None = None  # (sequence, digest of the entry's bytes)

    def read(self, sequence: int) -> tuple[Head, str]:
        """(entry, digest of its bytes); `ObjectMissing` past the end, `CorruptObject` where the signature does not
        hold."""
        name = head_name(sequence)
        data = self._context.storage.read(name)
        try:
            signed = _signed.decode(data)
            head = _head.decode(signed.head)
            signature = bytes.fromhex(signed.signature)
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            raise CorruptObject(f"{name} is damaged; run `keepstone store verify`") from error
        if bytes(data) != _encode(head, signature.hex()) or not verify(
            self._context.verify_key, b"keepstone-head/v1" + bytes(signed.head), signature
        ):
            raise CorruptObject(f"{name} has a wrong signature; it was damaged or forged; run `keepstone store verify`")
        if head.sequence != sequence or head.store != self._context.store_id.hex():
            raise CorruptObject(f"{name} is another entry or of another store; run `keepstone store verify`")
        return head, self._context.hashing.digest(data).hex()

    def digest(self, sequence: int) -> str | None:
        """The digest of an entry's bytes, sound or not; None where there is none."""
        try:
            return self._context.hashing.digest(self._context.storage.read(head_name(sequence))).hex()
        except ObjectMissing:
            return None

    def _link(self, sequence: int) -> str:
        """What the entry after this one carries of it: its digest, or nothing where the storage cannot read it."""
        try:
            return self.digest(sequence) or ""
        except StorageError:
            return ""

    def last(self) -> tuple[int, str]:
        """(sequence, digest) of the newest entry; (0, "") where there is none.

        The entry is not checked: writing goes on behind one that is damaged or cannot be read, and verify says which
        it is.
        """
        if self._last is None:
            newest = self._count()
            self._last = newest, self._link(newest)
        sequence, digest = self._last
        while (following := self.digest(sequence + 1)) is not None:
            sequence, digest = sequence + 1, following
        self._last = sequence, digest
        return self._last

    def _count(self) -> int:
        return max((int(name[len(HEADS) :]) for name in names(self._context.storage, HEADS)), default=0)

    def append(self, event: str, name: str, data: bytes) -> tuple[int, str]:
        """Add an entry about the object `name` with these bytes; (sequence, digest) when it is durable."""
        context = self._context
        while True:
            sequence, previous = self.last()
            head = Head(
                sequence=sequence + 1,
                previous=previous,
                event=event,
                object=name,
                digest=context.hashing.digest(data).hex(),
                time=context.env.wall_time(),
                store=context.store_id.hex(),
            )
            signature = sign(context.keys.signing_seed, b"keepstone-head/v1" + _encoder.encode(head))
            entry = _encode(head, signature.hex())
            try:
                context.storage.put(head_name(sequence + 1), entry)
            except ObjectExists:
                continue
            self._last = sequence + 1, context.hashing.digest(entry).hex()
            return self._last

    def explains(self, name: str, after: int) -> bool:
        """Whether an entry younger than `after` says that the object `name` was taken away."""
        sequence, _ = self.last()
        explanations = {("purge", name), ("drop-move", name), ("undelete", name)}
        if name.startswith(DELETED):
            explanations.add(("purge", commit_name(name[len(DELETED) :])))
        return any(
            (head.event, head.object) in explanations
            for head in (self.read(number)[0] for number in range(after + 1, sequence + 1))
        )

    def newest_about(self, name: str) -> Head | None:
        """The newest sound entry about this object; None where there is none."""
        for sequence in range(self.last()[0], 0, -1):
            try:
                head, _ = self.read(sequence)
            except KeepstoneError:
                continue
            if head.object == name:
                return head
        return None

    def entries(self, problem: Callable[[str, KeepstoneError], None]) -> tuple[list[Head], int, str]:
        """(entries that are sound, sequence and digest of the newest one). What is missing, damaged or does not
        continue the entry before it is told to `problem`, and the rest is read all the same."""
        heads = []
        count, previous = self._count(), ""
        for sequence in range(1, count + 1):
            name = head_name(sequence)
            try:
                head, digest = self.read(sequence)
                heads.append(head)
                if head.previous != previous:
                    problem(name, _broken_link(name, head))
            except KeepstoneError as error:
                problem(name, error)
                digest = self._link(sequence)
            previous = digest
        return heads, count, previous


def _broken_link(name: str, head: Head) -> CorruptObject:
    if head.previous or head.sequence == 1:
        return CorruptObject(f"{name} does not continue the entry before it; restore it from a copy")
    return CorruptObject(
        f"{name} does not name the entry before it, which could not be read at that time; compare that one with a copy"
    )


def _encode(head: Head, signature: str) -> bytes:
    return _encoder.encode(_Signed(msgspec.Raw(_encoder.encode(head)), signature))
