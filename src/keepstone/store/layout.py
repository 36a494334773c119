# SPDX-License-Identifier: Apache-2.0
"""Names of the objects in a store; docs/FORMAT.md describes what is in each.

    keepstone.json          descriptor: format, store id, algorithms (clear, authenticated)
    FORMAT.md, rescue.py    how to restore without Keepstone
    keys/<sequence>         wrapped keys; the highest sequence counts
    leases/<commit>         a running writer's claim; removed when it ends
    packs/<xx>/<pack>       frames of chunks, encrypted footer
    commits/<commit>        the commit cell of a lease: a point, a move record, or "aborted"
    deleted/<commit>        marker: this point is soft-deleted
    heads/<sequence>        signed, hash-chained log of what happened to points
    journal/<sequence>      what a service knows beside the points
    tombs/<tomb>            packs condemned by reclaim; tombs/<tomb>.waits: the leases it waits for,
                            tombs/<tomb>.verdict: what of it goes

A pack's id is 32 random bytes, a commit's id is `<tag>-<32 hex>`: the tag is a keyed hash of the item (16 hex), or
`moves` for a compaction, so that one item's points are found by one listing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from keepstone.objects import ObjectInfo, ObjectStorage

__all__ = [
    "COMMITS",
    "DELETED",
    "DESCRIPTOR",
    "HEADS",
    "JOURNAL",
    "KEYS",
    "LEASES",
    "MOVES_TAG",
    "PACKS",
    "TOMBS",
    "commit_name",
    "deleted_name",
    "head_name",
    "journal_name",
    "keys_name",
    "lease_name",
    "listing",
    "names",
    "pack_id",
    "pack_name",
    "tomb_name",
]

DESCRIPTOR = "keepstone.json"
KEYS = "keys/"
LEASES = "leases/"
PACKS = "packs/"
COMMITS = "commits/"
DELETED = "deleted/"
HEADS = "heads/"
JOURNAL = "journal/"
TOMBS = "tombs/"
MOVES_TAG = "moves"


_COMMIT = r"[0-9a-z]+-[0-9a-f]{32}"
_NAMES = {
    KEYS: re.compile(r"keys/[0-9]{8}"),
    LEASES: re.compile(rf"leases/{_COMMIT}"),
    PACKS: re.compile(r"packs/[0-9a-f]{2}/[0-9a-f]{64}"),
    COMMITS: re.compile(rf"commits/{_COMMIT}"),
    DELETED: re.compile(rf"deleted/{_COMMIT}"),
    HEADS: re.compile(r"heads/[0-9]{12}"),
    JOURNAL: re.compile(r"journal/[0-9]{16}"),
    TOMBS: re.compile(r"tombs/[0-9a-f]{32}(\.waits|\.verdict)?"),
}


def listing(storage: ObjectStorage, folder: str, start: str = "") -> Iterator[ObjectInfo]:
    """The objects of one kind, named by its folder; `start` limits them to ids that begin so.

    Whatever else lies there is none of the store's and is not listed.
    """
    pattern = _NAMES[folder]
    return (info for info in storage.list(folder + start) if pattern.fullmatch(info.name))


def names(storage: ObjectStorage, folder: str, start: str = "") -> Iterator[str]:
    """As `listing`, the names alone, for less."""
    return filter(_NAMES[folder].fullmatch, storage.names(folder + start))


def pack_name(pack: bytes) -> str:
    """Where the pack with this id lies; 256 folders keep each one short."""
    name = pack.hex()
    return f"packs/{name[:2]}/{name}"


def pack_id(name: str) -> bytes:
    """The inverse of `pack_name`."""
    return bytes.fromhex(name.rsplit("/", 1)[1])


def commit_name(commit: str) -> str:
    return COMMITS + commit


def lease_name(commit: str) -> str:
    return LEASES + commit


def deleted_name(commit: str) -> str:
    return DELETED + commit


def tomb_name(tomb: str) -> str:
    return TOMBS + tomb


def head_name(sequence: int) -> str:
    return f"{HEADS}{sequence:012d}"


def journal_name(sequence: int) -> str:
    return f"{JOURNAL}{sequence:016d}"


def keys_name(sequence: int) -> str:
    return f"{KEYS}{sequence:08d}"
