# SPDX-License-Identifier: Apache-2.0
"""Verify: is everything there that the store promises, and is every byte of it what was written?

Two levels. *structure*: descriptor, documents, keys, the head chain against what lies there, every record, lease,
tombstone and marker, every pack's header and footer, and every manifest node; so every chunk that any point needs
has a place. *every byte* (`deep`): also each frame of each pack is read, opened and every chunk compared with its
id.

Verify never stops at damage and changes nothing: it collects findings, and says of each point whether it can be
restored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from keepstone.errors import CorruptObject, KeepstoneError, ObjectMissing, RollbackDetected
from keepstone.store.chain import Chain
from keepstone.store.commits import PointRecord
from keepstone.store.descriptor import check_descriptor, decode_descriptor
from keepstone.store.keys import check_keys
from keepstone.store.layout import DELETED, DESCRIPTOR, PACKS, TOMBS, listing, pack_name
from keepstone.store.leases import Leases, Tombs
from keepstone.store.ledger import Ledger
from keepstone.store.memory import Seen, recall, recall_damage, remember, remember_damage
from keepstone.store.scrub import Scrubber
from keepstone.store.store import Store
from keepstone.store.survey import Survey

__all__ = ["Finding", "Verified", "verify"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong: the object, the stable code of the error, and a sentence."""

    object: str
    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """`damaged_points`: ids of points that cannot be restored whole. Bytes are of chunks (`bytes_read` only when
    deep)."""

    deep: bool
    points: int
    packs: int
    chunks: int
    stored_bytes: int
    bytes_read: int
    findings: list[Finding]
    damaged_points: list[str]

    @property
    def ok(self) -> bool:
        return not self.findings


class _Findings:
    def __init__(self) -> None:
        self.found: list[Finding] = []

    def add(self, name: str, error: KeepstoneError) -> None:
        finding = Finding(name, error.code, str(error))
        if finding not in self.found:
            self.found.append(finding)

    def run(self, name: str, check: Callable[[], object]) -> None:
        try:
            check()
        except KeepstoneError as error:
            self.add(name, error)


def verify(store: Store, *, deep: bool = False, tick: Callable[[int, int], None] | None = None) -> Verified:
    """Look at the whole store. `tick(done, all)` tells stored bytes read."""
    findings = _Findings()
    _check_surroundings(store, findings)
    survey = Survey(store.context, findings.add)
    findings.run("heads/", lambda: _check_chain(store, findings))
    scrubbed = _scrub(store, survey, findings, tick) if deep else 0
    records = [
        (commit, record) for commit, record in survey.commits.records(damaged=[]) if isinstance(record, PointRecord)
    ]
    damaged: list[str] = []
    bad_packs = {finding.object for finding in findings.found if finding.object.startswith(PACKS)}
    _remember(store, bad_packs, deep)
    if findings.found:
        damaged = [
            commit
            for commit, record in records
            if survey.damage(record) is not None or any(map(bad_packs.__contains__, survey.packs_of(record)))
        ]
    return Verified(
        deep=deep,
        points=len(records),
        packs=len(survey.sizes),
        chunks=survey.chunks(),
        stored_bytes=sum(survey.sizes.values()),
        bytes_read=scrubbed,
        findings=findings.found,
        damaged_points=damaged,
    )


def _remember(store: Store, bad_packs: set[str], deep: bool) -> None:
    """Note the damaged packs for the backups to come. A look that reads no data says nothing of frames that were found
    damaged before."""
    before = frozenset() if deep else store.damaged | recall_damage(store.cache)
    store.damaged = before | bad_packs
    remember_damage(store.context.env, store.cache, sorted(store.damaged))


def _check_surroundings(store: Store, findings: _Findings) -> None:
    context, storage = store.context, store.context.storage

    def descriptor() -> None:
        data = storage.read(DESCRIPTOR)
        check_descriptor(data, decode_descriptor(data, "the store"), context.keys, context.hashing, "the store")

    def document(name: str, digest: str) -> None:
        if context.hashing.digest(storage.read(name)).hex() != digest:
            raise CorruptObject(f"{name} is not what `init` wrote; take it from another store of the same format")

    findings.run(DESCRIPTOR, descriptor)
    check_keys(storage, store.keyring, findings.add)
    for name, digest in store.descriptor.files.items():
        findings.run(name, partial(document, name, digest))
    for name, error in Leases(context, store.commits).check():
        findings.add(name, error)
    tombs = Tombs(context)
    for tomb in tombs.names():
        for check in (tombs.read, tombs.waits):
            try:
                check(tomb)
            except ObjectMissing:
                continue
            except KeepstoneError as error:
                findings.add(TOMBS + tomb, error)
    for info in listing(storage, DELETED):
        try:
            context.read_sealed("deleted", info.name)
        except ObjectMissing:
            continue
        except KeepstoneError as error:
            findings.add(info.name, error)


def _check_chain(store: Store, findings: _Findings) -> None:
    """Hold the chain against what is there, and against what this machine remembers of it."""
    ledger = Ledger.read(store.context, findings.add)
    findings.run("heads/", lambda: _check_memory(store, ledger))
    ledger.compare(findings.add)
    ledger.returned(findings.add)


def _check_memory(store: Store, ledger: Ledger) -> None:
    seen = recall(store.cache)
    if seen is not None and Chain(store.context).digest(seen.sequence) != seen.digest:
        raise RollbackDetected(
            f"this machine has seen head {seen.sequence} of this store, and it is not there now: the store was "
            "rolled back or replaced. If you restored it from a copy yourself, remove its folder from the cache"
        )
    if ledger.digest:  # else the newest entry cannot be read
        remember(store.context.env, store.cache, Seen(ledger.newest, ledger.digest))


def _scrub(store: Store, survey: Survey, findings: _Findings, tick: Callable[[int, int], None] | None) -> int:
    scrubber = Scrubber(store.context, survey.packs)
    whole = sum(survey.sizes.values())
    done = read = 0
    pool = store.context.env.pool()
    try:
        futures = [(pool.submit(scrubber.scrub, pack, size), pack, size) for pack, size in survey.sizes.items()]
        for future, pack, size in futures:
            try:
                read += future.result()
            except ObjectMissing as error:
                if not survey.is_dead(pack):  # else a collector swept it meanwhile
                    findings.add(pack_name(pack), error)
            except KeepstoneError as error:
                findings.add(pack_name(pack), error)
            done += size
            if tick is not None:
                tick(done, whole)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return read
