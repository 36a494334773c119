# SPDX-License-Identifier: Apache-2.0
"""A lease with packs under way: what a backup and a compaction have in common.

A session is announced before it lists what is condemned, and published by its commit cell: the order, and what it
promises, stand in `writer.py`. Packs are finished beside the next ones.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import Future
from pathlib import Path

from keepstone.errors import KeepstoneError, LeaseLost, StorageFull
from keepstone.store.chain import Chain
from keepstone.store.commits import Commits, MoveRecord, Record
from keepstone.store.context import Context
from keepstone.store.frame import Frame
from keepstone.store.layout import MOVES_TAG, commit_name, pack_name
from keepstone.store.leases import Leases, Tombs
from keepstone.store.memory import Seen, recall, remember
from keepstone.store.moves import Moves
from keepstone.store.pack import PackWriter
from keepstone.store.packs import Packs
from keepstone.store.refs import PackNumbers

__all__ = ["Session"]

_FINISHING = 2  # packs whose last bytes are on their way to the disk beside the next one


class Session:
    """A lease with packs under way: what a backup and a compaction have in common."""

    def __init__(self, context: Context, tag: str, *, level: int, check: bool, cache: Path | None = None) -> None:
        self._cache = cache
        self.context = context
        self.commit_id = f"{tag}-{context.env.random(16).hex()}"
        self.numbers = PackNumbers()
        self.packs = Packs(context, self.numbers)
        self.commits = Commits(context)
        self.leases = Leases(context, self.commits)
        self.level = level
        self._check = check
        self._open: dict[int, PackWriter] = {}
        self._finishing: list[Future[None]] = []
        self._finisher = context.env.pool()
        self.own: dict[int, str] = {}
        self._unfinished: dict[int, PackWriter] = {}
        self._over = False
        self._publishing = False
        announced = False
        try:
            self.leases.publish(self.commit_id)
            announced = True
            self.condemned = Tombs(context).condemned()
            self.moves = Moves(
                self.numbers,
                (record for _, record in self.commits.records(MOVES_TAG, damaged=[]) if isinstance(record, MoveRecord)),
            )
        except BaseException as error:
            if announced or not isinstance(error, KeepstoneError):  # else the lease of that name may be another one's
                self.close()
            raise

    def pack(self, kind: int) -> PackWriter:
        """The open pack of this kind."""
        writer = self._open.get(kind)
        if writer is None:
            env = self.context.env
            seed = env.random(32) + self.commit_id.encode() + env.boot_time().to_bytes(8, "little")
            pack = self.context.hashing.digest(seed + len(self.own).to_bytes(8, "little"))
            writer = PackWriter(self.context, kind, self.numbers.number(pack), pack, self._check)
            self._open[kind] = writer
            self._unfinished[writer.number] = writer
            self.own[writer.number] = writer.name
        return writer

    def append(self, kind: int, frame: Frame) -> int:
        """Store a frame; the place of its first chunk."""
        writer = self.pack(kind)
        ref = writer.append(frame)
        if writer.full:
            self.close_pack(kind)
        return ref

    def close_pack(self, kind: int) -> None:
        """Finish the open pack of this kind beside other work."""
        writer = self._open.get(kind)
        if writer is None:
            return
        while len(self._finishing) >= _FINISHING:
            self._finishing.pop(0).result()
        del self._open[kind]
        self._finishing.append(self._finisher.submit(self._finish, writer))

    def _finish(self, writer: PackWriter) -> None:
        try:
            writer.finish()
        except BaseException:
            writer.abort()
            raise
        del self._unfinished[writer.number]

    def chunk_id(self, ref: int) -> bytes | None:
        """The id of a chunk in a pack of the store or in one under way."""
        writer = self._unfinished.get(ref >> 32)
        return writer.id(ref & 0xFFFFFFFF) if writer is not None else self.packs.chunk_id(ref)

    def publish(self, record: Record, borrowed: set[int], event: str) -> str:
        """Barrier, commit cell, head entry, end of the lease; the commit's id."""
        for kind in list(self._open):
            self.close_pack(kind)
        while self._finishing:
            self._finishing.pop(0).result()
        names = [*self.own.values(), *(pack_name(self.numbers.ids[number]) for number in sorted(borrowed))]
        self.context.storage.sync(names)
        self._publishing = True
        try:
            sealed = self.commits.publish(self.commit_id, record)
        except Exception as error:
            self._publishing = not self._is_not_published(error)
            raise
        chain = Chain(self.context)
        sequence, digest = chain.append(event, commit_name(self.commit_id), sealed)
        self._publishing = False
        with contextlib.suppress(KeepstoneError):  # the point is there whether or not an older entry can be read
            seen = recall(self.context.env, self._cache)
            if seen is None or chain.digest(seen.sequence) == seen.digest:  # else verify is to tell of the rollback
                remember(self.context.env, self._cache, Seen(sequence, digest))
        self.close()
        return self.commit_id

    def _is_not_published(self, error: Exception) -> bool:
        """Whether the cell does not hold the record, and never will: an error of the storage alone does not say so."""
        if isinstance(error, LeaseLost | StorageFull):
            return True
        try:
            return self.commits.abort(self.commit_id)
        except KeepstoneError:
            return False

    def close(self) -> None:
        """End the session: drop what is unfinished, release the lease. Never raises for the storage's sake."""
        if self._over:
            return
        self._finisher.shutdown(wait=True, cancel_futures=True)
        for writer in list(self._unfinished.values()):
            writer.abort()
        if not self._publishing:  # else the point may be there without its head entry: who finds the lease completes it
            with contextlib.suppress(KeepstoneError):  # else a collector finds it and sees that its process is gone
                self.leases.release(self.commit_id)
        self._over = True
