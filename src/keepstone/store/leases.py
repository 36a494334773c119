# SPDX-License-Identifier: Apache-2.0
"""Leases and tombstones: how writers and reclaim keep out of each other's way without waiting.

A writer publishes `leases/<commit>` first, and only then lists the tombstones; packs condemned there count as
absent for it. A collector publishes a tombstone first, and only then lists the leases; it waits for (or aborts
through their commit cells) all that it sees. So each lease and each tombstone know of one another in at least one
direction, and that is all the safety needs:
* a writer that did not see the tombstone is one that the collector waits for, and the second mark sees what it
  committed;
* a writer that the collector did not see has seen the tombstone and refers to none of its packs.
Several collectors may finish one tombstone, and what one of them still needs another may not. So what goes is settled
once, by put-if-absent, before anything is deleted: a pack that is pardoned is pardoned by all of them, and a writer
that begins when the tombstone is gone may refer to it.
The explorer in tests/explore shows it over the real code, and that each omitted step loses data.
"""

from __future__ import annotations

import msgspec

from keepstone.env import Process
from keepstone.errors import CorruptObject, KeepstoneError, ObjectExists, ObjectMissing
from keepstone.store.chain import Chain
from keepstone.store.commits import ABORTED, Commits
from keepstone.store.context import Context
from keepstone.store.decoding import decode
from keepstone.store.layout import LEASES, MOVES_TAG, TOMBS, commit_name, lease_name, names, tomb_name

__all__ = ["Leases", "Tomb", "Tombs"]

_WAITS = ".waits"
_VERDICT = ".verdict"


class _Lease(msgspec.Struct, frozen=True):
    host: str
    boot: str
    pid: int
    started: int
    time: int


class Tomb(msgspec.Struct, frozen=True, kw_only=True):
    """Condemned `packs` (ids) and `moves` (commits of move records that nobody needs any more); as a verdict those of
    them that go."""

    packs: list[bytes]
    moves: list[str]


_lease = msgspec.msgpack.Decoder(_Lease)
_tomb = msgspec.msgpack.Decoder(Tomb)
_waits = msgspec.msgpack.Decoder(list[str])


class Leases:
    """The claims of running writers."""

    def __init__(self, context: Context, commits: Commits) -> None:
        self._context = context
        self._commits = commits

    def publish(self, commit: str) -> None:
        """Announce a writer; `ObjectExists` where the id was used before."""
        process = self._context.env.process()
        lease = _Lease(process.host, process.boot, process.pid, process.started, self._context.env.wall_time())
        self._context.put_sealed("lease", lease_name(commit), msgspec.msgpack.encode(lease))

    def release(self, commit: str) -> None:
        """The writer ended, one way or the other."""
        self._context.storage.delete(lease_name(commit))

    def names(self) -> list[str]:
        """The commits whose lease is there."""
        return sorted(name[len(LEASES) :] for name in names(self._context.storage, LEASES))

    def drain(self, commits: list[str], *, abort_after: int) -> list[str]:
        """End these leases where that hurts nobody; those that are still open.

        A lease is over when its cell is decided or it is gone. One whose process is dead, or that is older than
        `abort_after` ns by the wall clock, is aborted through its cell: that is safe at any moment, for the writer
        then loses and says so.
        """
        waiting = []
        for commit in commits:
            process = self._read(commit)
            if process is None:
                continue  # released
            alive = self._context.env.is_running(process[0]) is not False
            if self._commits.decided(commit):
                if not alive:
                    self._finish(commit)
            elif not alive or self._context.env.wall_time() - process[1] > abort_after:
                if not self._commits.abort(commit) and not alive:
                    self._finish(commit)
                else:
                    self.release(commit)
            else:
                waiting.append(commit)
        return waiting

    def _finish(self, commit: str) -> None:
        """Do what a writer that died after its commit did not come to: enter the commit in the chain, release the
        lease."""
        name = commit_name(commit)
        try:
            data = self._context.storage.read(name)
        except ObjectMissing:
            data = ABORTED  # purged since
        if data != ABORTED:
            Chain(self._context).append("move" if commit.startswith(MOVES_TAG) else "commit", name, data)
        self.release(commit)

    def _read(self, commit: str) -> tuple[Process, int] | None:
        """(process, wall clock) of a lease; None where it is gone. A damaged one counts as nobody's."""
        try:
            data = self._context.read_sealed("lease", lease_name(commit))
            lease = decode(_lease, data, lease_name(commit))
        except ObjectMissing:
            return None
        except CorruptObject:
            return Process(self._context.env.process().host, "", 0, 0), 0
        return Process(lease.host, lease.boot, lease.pid, lease.started), lease.time

    def check(self) -> list[tuple[str, KeepstoneError]]:
        """Open every lease; those that are damaged."""
        damaged: list[tuple[str, KeepstoneError]] = []
        for commit in self.names():
            try:
                self._context.read_sealed("lease", lease_name(commit))
            except ObjectMissing:
                continue
            except KeepstoneError as error:
                damaged.append((lease_name(commit), error))
        return damaged


class Tombs:
    """The tombstones: what is condemned, which leases each waits for, and what goes in the end."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def publish(self, tomb: Tomb) -> str:
        """Condemn; the tombstone's name."""
        name = self._context.env.random(16).hex()
        self._context.put_sealed("tomb", tomb_name(name), msgspec.msgpack.encode(tomb))
        return name

    def names(self) -> list[str]:
        return sorted(name[len(TOMBS) :] for name in names(self._context.storage, TOMBS) if "." not in name)

    def read(self, name: str) -> Tomb:
        """`ObjectMissing` where another collector has finished it; `CorruptObject`."""
        data = self._context.read_sealed("tomb", tomb_name(name))
        return decode(_tomb, data, tomb_name(name))

    def condemned(self) -> frozenset[bytes]:
        """The packs that count as absent for a writer which begins now.

        Raises `CorruptObject`: a writer must not go on without knowing.
        """
        packs: set[bytes] = set()
        for name in self.names():
            try:
                packs.update(self.read(name).packs)
            except ObjectMissing:
                continue
        return frozenset(packs)

    def waits(self, name: str) -> list[str] | None:
        """The leases that this tombstone waits for; None where nobody has said yet."""
        try:
            data = self._context.read_sealed("waits", tomb_name(name) + _WAITS)
        except ObjectMissing:
            return None
        return decode(_waits, data, tomb_name(name) + _WAITS)

    def wait_for(self, name: str, leases: list[str]) -> list[str]:
        """Settle which leases the tombstone waits for: those listed after it was published, by whichever collector
        is first."""
        try:
            self._context.put_sealed("waits", tomb_name(name) + _WAITS, msgspec.msgpack.encode(leases))
        except ObjectExists:
            settled = self.waits(name)
            return leases if settled is None else settled
        return leases

    def verdict(self, name: str) -> Tomb | None:
        """What of this tombstone goes; None where nobody has said yet."""
        try:
            data = self._context.read_sealed("verdict", tomb_name(name) + _VERDICT)
        except ObjectMissing:
            return None
        return decode(_tomb, data, tomb_name(name) + _VERDICT)

    def decide(self, name: str, verdict: Tomb) -> Tomb | None:
        """Settle what of this tombstone goes, by whichever collector is first; None where it was finished meanwhile.

        A verdict outlives its tombstone, so while that is there the verdict is the only one that there ever was.
        """
        settled: Tomb | None = verdict
        try:
            self._context.put_sealed("verdict", tomb_name(name) + _VERDICT, msgspec.msgpack.encode(verdict))
        except ObjectExists:
            settled = self.verdict(name)
        return settled if self._is_there(name) else None

    def _is_there(self, name: str) -> bool:
        try:
            self._context.storage.size(tomb_name(name))
        except ObjectMissing:
            return False
        return True

    def sweep_leftovers(self) -> None:
        """Remove what is left of tombstones that are gone: a collector died while it removed one, or found it finished
        by another one."""
        for name in list(names(self._context.storage, TOMBS)):
            tomb, dot, _ = name[len(TOMBS) :].partition(".")
            if dot and not self._is_there(tomb):
                self._context.storage.delete(name)

    def remove(self, name: str) -> None:
        """What was condemned is gone or pardoned."""
        for suffix in ("", _WAITS, _VERDICT):  # in this order: see `decide`
            self._context.storage.delete(tomb_name(name) + suffix)
