# SPDX-License-Identifier: Apache-2.0
"""The store: recovery points in an object storage, deduplicated, compressed, encrypted, crash-safe."""

from __future__ import annotations

from keepstone.store.chunking import DISK_CHUNK, SMALL_FILE, Cut, cut_file, cut_fixed
from keepstone.store.commits import SEALED, PointRecord
from keepstone.store.fingerprints import DiskMemory, Fingerprints
from keepstone.store.journal import Journal
from keepstone.store.lane import Lane
from keepstone.store.node import Node
from keepstone.store.pipeline import SEGMENT, Chunks, Scratch
from keepstone.store.points import Point
from keepstone.store.reader import LocalReader, Reader, Roomy, StoredFrame, TakingTurns, Turn, no_turn, turn_of
from keepstone.store.refs import ZERO_REF
from keepstone.store.store import Store
from keepstone.store.writer import LocalWriter, Outcome, Writer

__all__ = [
    "DISK_CHUNK",
    "SEALED",
    "SEGMENT",
    "SMALL_FILE",
    "ZERO_REF",
    "Chunks",
    "Cut",
    "DiskMemory",
    "Fingerprints",
    "Journal",
    "Lane",
    "LocalReader",
    "LocalWriter",
    "Node",
    "Outcome",
    "Point",
    "PointRecord",
    "Reader",
    "Roomy",
    "Scratch",
    "Store",
    "StoredFrame",
    "TakingTurns",
    "Turn",
    "Writer",
    "cut_file",
    "cut_fixed",
    "no_turn",
    "turn_of",
]
