# SPDX-License-Identifier: Apache-2.0
"""Reclaim: give back the space of what no recovery point needs, while writers and readers go on.

    purge      soft-deleted points whose date has passed (durable before anything else)
    mark       everything that a visible point needs
    compact    packs of which less than `1 - threshold` is needed: copy the rest, publish the moves
    condemn    a tombstone with the packs that nobody needs, and move records that nobody needs (durable)
    drain      the leases that were there when the tombstone became visible: decided, dead, or still running
    re-mark    what was committed since; a pack that is needed again is pardoned
    decide     the verdict, which of them go (durable): the first collector's holds for all
    sweep      delete the condemned packs, then the tombstone

Invariants: a pack is deleted only if (a) a tombstone that names it is durable, (b) every lease listed after that is
over, (c) a mark over the commits listed after (b) does not need it, and (d) the tombstone's verdict names it. No step
takes a clock's word for it: an old lease is ended through its commit cell.

A running writer makes a round end early: what it may refer to stays condemned and is swept by a later round.
`leases.py` says why this is safe.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from keepstone.errors import CorruptObject, KeepstoneError, LeaseLost, ObjectMissing, StorageFull
from keepstone.store.chain import Chain
from keepstone.store.commits import Commits
from keepstone.store.compact import compact
from keepstone.store.context import Context
from keepstone.store.fulldisk import with_reserve
from keepstone.store.layout import COMMITS, commit_name, pack_name
from keepstone.store.leases import Leases, Tomb, Tombs
from keepstone.store.ledger import Ledger
from keepstone.store.points import Points
from keepstone.store.survey import Survey

__all__ = ["COMPACT_BELOW", "Reclaimed", "reclaim"]

COMPACT_BELOW = 0.75
"""A pack with less than this share of needed bytes is compacted."""
_ABORT_AFTER = 7 * 86_400 * 10**9  # ns; a backup that runs longer than a week is taken for dead, and told so
_COMPACT_PACKS = 64  # packs of one move record


@dataclass(frozen=True, slots=True, kw_only=True)
class Reclaimed:
    """What a round did. `condemned`: packs waiting for running backups to end; `waiting`: those backups."""

    points_purged: int = 0
    packs_deleted: int = 0
    bytes_freed: int = 0
    packs_compacted: int = 0
    bytes_dead: int = 0
    packs_condemned: int = 0
    waiting: list[str]
    dry_run: bool = False


def reclaim(
    context: Context, points: Points, *, level: int, compact_below: float = COMPACT_BELOW, dry_run: bool = False
) -> Reclaimed:
    """One round. Damage that the mark meets stops it before anything is deleted: `CorruptObject`, `ObjectMissing`."""
    purged = points.due() if dry_run else points.purge_due()
    if not dry_run:
        context.storage.clean()
        leases = Leases(context, Commits(context))
        leases.drain(leases.names(), abort_after=_ABORT_AFTER)
    survey = Survey(context, without=frozenset(point.id for point in purged))
    tombs = Tombs(context)
    condemned = tombs.condemned()
    sparse = _sparse(survey, condemned, compact_below)
    dead = [pack for pack in survey.dead() if pack not in condemned]
    bytes_dead = sum(survey.sizes[pack] for pack in dead) + sum(wasted for _, wasted in sparse)
    if dry_run:
        return Reclaimed(
            points_purged=len(purged),
            packs_condemned=len(dead),
            packs_compacted=len(sparse),
            bytes_dead=bytes_dead,
            waiting=[],
            dry_run=True,
        )
    compacted = _compact(context, survey, [pack for pack, _ in sparse], level)
    if sparse:
        survey.refresh()
        dead = [pack for pack in survey.dead() if pack not in condemned]
    unneeded = survey.unneeded_moves()
    if dead or unneeded:
        tomb = Tomb(packs=[*dead, *survey.old_packs(unneeded)], moves=unneeded)
        with_reserve(context.storage, lambda: tombs.publish(tomb))
    reclaimed = _finish(context, survey, tombs, len(purged), compacted, bytes_dead)
    context.storage.keep_reserve()
    return reclaimed


def _sparse(survey: Survey, condemned: frozenset[bytes], below: float) -> list[tuple[bytes, int]]:
    """(pack, wasted bytes) of the packs that are worth compacting, however much of them is needed where they keep dead
    copies: one that was compacted and then pardoned, for the sake of a backup that came late, would do so for good."""
    found = []
    for pack, size in survey.sizes.items():
        share = survey.needed_share(pack)
        if share and pack not in condemned and (share < below or (below and survey.keeps_copies(pack))):
            found.append((pack, int(size * (1 - share))))
    return found


def _compact(context: Context, survey: Survey, sparse: list[bytes], level: int) -> int:
    """Compact these packs, some at a time; how many were. Where another collector is quicker, it is left to it."""
    done = 0
    for at in range(0, len(sparse), _COMPACT_PACKS):
        batch = sparse[at : at + _COMPACT_PACKS]
        try:
            done += _copy(context, survey, batch, level)
        except LeaseLost:
            continue  # taken for dead; a later round compacts them
        except StorageFull:
            break  # no room for copies now; what is wholly dead goes first
        except ObjectMissing:
            survey.refresh()
            if survey.sizes.keys() >= set(batch):
                raise
    return done


def _copy(context: Context, survey: Survey, packs: list[bytes], level: int) -> int:
    """Compact these packs in one session, or where one is damaged each in its own; how many were compacted."""
    try:
        compact(context, survey.packs, ((survey.packs.footer(pack), survey.needed(pack)) for pack in packs), level)
    except CorruptObject:
        if len(packs) == 1:
            return 0  # it stays as it is; verify says what is wrong with it
        return sum(_copy(context, survey, [pack], level) for pack in packs)
    return len(packs)


def _ask_ledger(context: Context) -> Ledger:
    """Nothing is deleted while a point is missing that nobody purged: its cell may come back from a copy."""

    def refuse(name: str, error: KeepstoneError) -> None:
        raise error

    ledger = Ledger.read(context, lambda name, error: None)
    ledger.compare(refuse, COMMITS)
    return ledger


def _mark_again(survey: Survey) -> None:
    """The second mark: only now, after the leases are over, nothing can refer to the condemned without being seen."""
    survey.refresh()


def _decide(context: Context, survey: Survey, tombs: Tombs, ready: list[tuple[str, Tomb]]) -> dict[str, Tomb]:
    """The verdicts on these tombstones; those that another collector finished meanwhile are left out."""
    unneeded = set(survey.unneeded_moves())
    verdicts = {}
    for name, tomb in ready:
        mine = Tomb(packs=survey.removable(tomb.packs), moves=sorted(unneeded.intersection(tomb.moves)))
        verdict = with_reserve(context.storage, partial(tombs.decide, name, mine))
        if verdict is not None:
            verdicts[name] = verdict
    return verdicts


def _finish(context: Context, survey: Survey, tombs: Tombs, purged: int, compacted: int, bytes_dead: int) -> Reclaimed:
    """Drain, mark again, sweep: for every tombstone there is, whoever published it."""
    leases = Leases(context, survey.commits)
    ready: list[tuple[str, Tomb]] = []
    waiting: set[str] = set()
    held = 0
    for name in tombs.names():
        try:
            tomb = tombs.read(name)
            waits = tombs.waits(name)
        except ObjectMissing:
            continue  # another collector finished it
        if waits is None:
            listed = leases.names()
            waits = with_reserve(context.storage, partial(tombs.wait_for, name, listed))
        open_leases = leases.drain(waits, abort_after=_ABORT_AFTER)
        if open_leases:
            waiting.update(open_leases)
            held += len(tomb.packs)
        else:
            ready.append((name, tomb))
    deleted = freed = 0
    if ready:
        _mark_again(survey)
        ledger = _ask_ledger(context)
        verdicts = _decide(context, survey, tombs, ready)
        swept = sorted({pack for verdict in verdicts.values() for pack in verdict.packs} & survey.sizes.keys())
        freed = sum(survey.sizes[pack] for pack in swept)
        deleted = len(swept)
        context.storage.delete_many([pack_name(pack) for pack in swept])
        for move in sorted({move for verdict in verdicts.values() for move in verdict.moves} & survey.moves_there()):
            Chain(context).append("drop-move", commit_name(move), b"")
            context.storage.delete(commit_name(move))
        context.storage.delete_many(ledger.leftovers())
        for name in verdicts:
            tombs.remove(name)
    tombs.sweep_leftovers()
    return Reclaimed(
        points_purged=purged,
        packs_deleted=deleted,
        bytes_freed=freed,
        packs_compacted=compacted,
        bytes_dead=bytes_dead,
        packs_condemned=held,
        waiting=sorted(waiting),
    )
