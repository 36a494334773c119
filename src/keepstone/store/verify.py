# SPDX-License-Identifier: Apache-2.0
"""Verify: is everything there that the store promises, and is every byte of it what was written?

Two levels. *structure*: descriptor, documents, keys, the head chain against what lies there, every record, lease,
tombstone, marker and entry of the journal, every pack's header and footer, and every manifest node; so every chunk that
any point needs has a place. *every byte* (`deep`): also each frame of each pack is read, opened and every chunk
compared with its id; then it is known chunk by chunk what is lost, and of which points.

Verify never stops at damage and changes nothing: it collects findings, and says of each point whether it can be
restored. What it found in packs this machine remembers: a later look that reads no data says so again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec
import numpy as np
import numpy.typing as npt

from keepstone.errors import CorruptObject, KeepstoneError, ObjectMissing, RollbackDetected
from keepstone.store.chain import Chain
from keepstone.store.commits import PointRecord
from keepstone.store.descriptor import check_descriptor, decode_descriptor
from keepstone.store.keys import check_keys
from keepstone.store.layout import DELETED, DESCRIPTOR, PACKS, TOMBS, names, pack_name
from keepstone.store.leases import Leases, Tombs
from keepstone.store.ledger import Ledger
from keepstone.store.memory import Seen, recall, recall_damage, remember, remember_damage
from keepstone.store.scrub import Scrubbed, scrub
from keepstone.store.store import Store
from keepstone.store.survey import Survey

__all__ = ["Finding", "Verified", "verify"]


class Finding(msgspec.Struct, frozen=True):
    """Something that is wrong: the object, the stable code of the error, and a sentence."""

    object: str
    code: str
    message: str


class Verified(msgspec.Struct, frozen=True, kw_only=True):
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
    scrubbed, lost = _scrub(store, survey, findings, tick) if deep else (0, {})
    records = [
        (commit, record) for commit, record in survey.commits.records(damaged=[]) if isinstance(record, PointRecord)
    ]
    _remember(store, survey, findings, deep)
    damaged: list[str] = []
    if findings.found:
        damaged = [commit for commit, record in records if survey.damage(record, lost) is not None]
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


def _remember(store: Store, survey: Survey, findings: _Findings, deep: bool) -> None:
    """Note the damaged packs for the backups to come. A look that reads no data says nothing of what was found before
    in packs that are still there, but that it was."""
    bad = {finding.object for finding in findings.found if finding.object.startswith(PACKS)}
    before = frozenset() if deep else store.damaged | recall_damage(store.context.env, store.cache)
    store.damaged = before | bad
    remember_damage(store.context.env, store.cache, sorted(store.damaged))
    for name in sorted((before - bad) & {pack_name(pack) for pack in survey.sizes}):
        findings.add(
            name,
            CorruptObject(
                f"an earlier verify found damage in {name}, and its data has not been read since; "
                "`keepstone store verify --deep` says whether it is still there, and which points it hit"
            ),
        )


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
    for name, error in [*Leases(context, store.commits).check(), *store.journal.check()]:
        findings.add(name, error)
    tombs = Tombs(context)
    for tomb in tombs.names():
        for check in (tombs.read, tombs.waits, tombs.verdict):
            try:
                check(tomb)
            except ObjectMissing:
                continue
            except KeepstoneError as error:
                findings.add(TOMBS + tomb, error)
    for name in names(storage, DELETED):
        try:
            context.read_sealed("deleted", name)
        except ObjectMissing:
            continue
        except KeepstoneError as error:
            findings.add(name, error)


def _check_chain(store: Store, findings: _Findings) -> None:
    """Hold the chain against what is there, and against what this machine remembers of it."""
    ledger = Ledger.read(store.context, findings.add)
    findings.run("heads/", lambda: _check_memory(store, ledger))
    ledger.compare(findings.add)
    ledger.returned(findings.add)


def _check_memory(store: Store, ledger: Ledger) -> None:
    seen = recall(store.context.env, store.cache)
    if seen is not None and Chain(store.context).digest(seen.sequence) != seen.digest:
        raise RollbackDetected(
            f"this machine has seen head {seen.sequence} of this store, and it is not there now: the store was "
            "rolled back or replaced. If you restored it from a copy yourself, remove its folder from the cache"
        )
    if ledger.digest:  # else the newest entry cannot be read
        remember(store.context.env, store.cache, Seen(ledger.newest, ledger.digest))


def _scrub(
    store: Store, survey: Survey, findings: _Findings, tick: Callable[[int, int], None] | None
) -> tuple[int, dict[bytes, npt.NDArray[np.bool_]]]:
    """Read every pack. (Bytes of chunks that were read, which chunks of damaged packs are lost.)"""
    read = 0
    lost: dict[bytes, npt.NDArray[np.bool_]] = {}
    for scrubbed in scrub(store.context, survey.packs, survey.sizes, tick):
        if isinstance(scrubbed.error, ObjectMissing) and survey.is_dead(scrubbed.pack):
            continue  # it was swept meanwhile
        read += scrubbed.read
        if scrubbed.lost is not None:
            lost[scrubbed.pack] = scrubbed.lost
        if scrubbed.error is not None:
            findings.add(pack_name(scrubbed.pack), _described(scrubbed.error, scrubbed))
    return read, lost


def _described(error: KeepstoneError, scrubbed: Scrubbed) -> KeepstoneError:
    """One sentence for a pack: the first thing that is wrong with it, and how much of it is lost."""
    if scrubbed.lost is None or not scrubbed.chunks:
        return error
    return type(error)(f"{error}; {int(scrubbed.lost.sum()):,} of its {scrubbed.chunks:,} chunks are lost")
