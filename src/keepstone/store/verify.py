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

from keepstone.crypto import KitProvider, open_keyring
from keepstone.errors import CorruptObject, KeepstoneError, ObjectMissing, RollbackDetected
from keepstone.store.chain import Chain, Head
from keepstone.store.commits import Commits, PointRecord
from keepstone.store.descriptor import check_descriptor, decode_descriptor
from keepstone.store.layout import COMMITS, DELETED, DESCRIPTOR, KEYS, TOMBS, keys_name, listing, pack_name
from keepstone.store.leases import Leases, Tombs
from keepstone.store.memory import Seen, recall, remember
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
    findings.run("heads/", lambda: _check_chain(store, survey.commits, findings))
    scrubbed = _scrub(store, survey, findings, tick) if deep else 0
    records = [
        (commit, record) for commit, record in survey.commits.records(damaged=[]) if isinstance(record, PointRecord)
    ]
    damaged: list[str] = []
    if findings.found:
        bad_packs = {finding.object for finding in findings.found if finding.object.startswith("packs/")}
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


def _check_surroundings(store: Store, findings: _Findings) -> None:
    context, storage = store.context, store.context.storage

    def descriptor() -> None:
        data = storage.read(DESCRIPTOR)
        check_descriptor(data, decode_descriptor(data, "the store"), context.keys, context.hashing, "the store")

    def keys(name: str) -> None:
        keyring = open_keyring(storage.read(name), context.store_id, [KitProvider(store.keyring.vault_key)])
        if keys_name(keyring.sequence) != name:
            raise CorruptObject(f"{name} is a copy of another keys object; remove it")

    def document(name: str, digest: str) -> None:
        if context.hashing.digest(storage.read(name)).hex() != digest:
            raise CorruptObject(f"{name} is not what `init` wrote; take it from another store of the same format")

    findings.run(DESCRIPTOR, descriptor)
    if keys_name(store.keyring.sequence) not in {info.name for info in listing(storage, KEYS)}:
        findings.add(
            KEYS,
            CorruptObject("the keys object that opened the store is gone; restore it from a copy, or rotate the keys"),
        )
    for info in listing(storage, KEYS):
        findings.run(info.name, partial(keys, info.name))
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
            except CorruptObject as error:
                findings.add(TOMBS + tomb, error)
    for info in listing(storage, DELETED):
        try:
            context.read_sealed("deleted", info.name)
        except ObjectMissing:
            continue
        except CorruptObject as error:
            findings.add(info.name, error)


def _check_chain(store: Store, commits: Commits, findings: _Findings) -> None:
    """Replay the chain and compare what it says with what is there."""
    context = store.context
    chain = Chain(context)
    heads, newest, digest = chain.entries(findings.add)
    seen = recall(store.cache)
    if seen is not None:
        remembered = chain.digest(seen.sequence) if seen.sequence <= newest else None
        if remembered != seen.digest:
            raise RollbackDetected(
                f"this machine has seen head {seen.sequence} of this store, and it is not there now: the store was "
                "rolled back or replaced. If you restored it from a copy yourself, remove its folder from the cache"
            )
    present: dict[str, Head] = {}  # what must be there, and as which entry left it
    purged: set[str] = set()
    for head in heads:
        if head.event == "keys":  # an older keys object went when this one came
            present = {name: other for name, other in present.items() if other.event != "keys"}
        if head.event in ("init", "keys", "commit", "move", "forget"):
            present[head.object] = head
        elif head.event == "undelete":
            present.pop(head.object, None)
        elif head.event in ("purge", "drop-move"):
            present.pop(head.object, None)
            present.pop(DELETED + head.object.removeprefix(COMMITS), None)
            purged.add(head.object)
    markers = {info.name for info in listing(context.storage, DELETED)}
    for name, head in present.items():
        findings.run(name, partial(_compare, store, name, head))
    for name in purged & {COMMITS + commit for commit in commits.names()}:
        if DELETED + name.removeprefix(COMMITS) not in markers and not name.startswith(COMMITS + "moves-"):
            findings.add(
                name,
                RollbackDetected(f"{name} was purged and is there again; delete it, or restore the store from a copy"),
            )
    if newest:
        remember(context.env, store.cache, Seen(newest, digest))


def _compare(store: Store, name: str, head: Head) -> None:
    try:
        data = store.context.storage.read(name)
    except ObjectMissing:
        if Chain(store.context).explains(name, head.sequence):
            return  # purged or undeleted while we looked
        raise ObjectMissing(
            f"{name} is gone, and nobody deleted it (head {head.sequence}); restore it from a copy"
        ) from None
    if store.context.hashing.digest(data).hex() != head.digest:
        raise CorruptObject(f"{name} is not what was committed (head {head.sequence}); restore it from a copy")


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
