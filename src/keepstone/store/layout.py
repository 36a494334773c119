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
    tombs/<tomb>            packs condemned by reclaim; tombs/<tomb>.waits: the leases it waits for

A pack's id is 32 random bytes, a commit's id is `<tag>-<32 hex>`: the tag is a keyed hash of the item (16 hex), or
`moves` for a compaction, so that one item's points are found by one listing.
"""

from __future__ import annotations

__all__ = [
    "COMMITS",
    "DELETED",
    "DESCRIPTOR",
    "HEADS",
    "KEYS",
    "LEASES",
    "MOVES_TAG",
    "PACKS",
    "TOMBS",
    "commit_name",
    "deleted_name",
    "head_name",
    "keys_name",
    "lease_name",
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
TOMBS = "tombs/"
MOVES_TAG = "moves"


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


def keys_name(sequence: int) -> str:
    return f"{KEYS}{sequence:08d}"
