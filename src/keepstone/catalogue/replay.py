# SPDX-License-Identifier: Apache-2.0
"""What the journal of a vault says, read from its beginning to its end: the configuration as its last entry left it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from keepstone.catalogue.journal import Note, decode_entry
from keepstone.catalogue.rows import RECORDS
from keepstone.catalogue.tables import facts, metadata
from keepstone.decoders import known
from keepstone.errors import UnsupportedFormat
from keepstone.store import Journal

__all__ = ["State", "read_state"]

_KINDS = {table.name: kind for kind, table in RECORDS.items()}


@dataclass(frozen=True, slots=True)
class State:
    """`entry`: the number of the last entry, 0 where there is none. `facts`: what the installation was called.
    `records`: by their kind, in no order."""

    entry: int
    facts: dict[str, str]
    records: dict[type[Any], list[Any]]


def read_state(journal: Journal) -> State:
    """Read a journal. `ObjectMissing` for a gap in it and `CorruptObject` for damage; `UnsupportedFormat` for what
    another version has written."""
    rows: dict[str, dict[tuple[str, ...], dict[str, Any]]] = {name: {} for name in (facts.name, *_KINDS)}
    entry = 0
    for entry, body in journal.entries():
        try:
            for note in decode_entry(body):
                _take(rows[note.table], note)
        except (msgspec.MsgspecError, KeyError) as error:
            raise _unknown(entry) from error
    try:
        records = {kind: [_record(kind, row) for row in rows[name].values()] for name, kind in _KINDS.items()}
    except (msgspec.ValidationError, KeyError) as error:
        raise _unknown(entry) from error
    return State(entry, {row["name"]: row["value"] for row in rows[facts.name].values()}, records)


def _take(rows: dict[tuple[str, ...], dict[str, Any]], note: Note) -> None:
    key = tuple(str(note.row[column.name]) for column in metadata.tables[note.table].primary_key)
    if note.present:
        rows[key] = note.row
    else:
        rows.pop(key, None)


def _record(kind: type[Any], row: dict[str, Any]) -> Any:
    """A record of its row. `KeyError` for a column that this version does not have."""
    strange = set(row) - set(kind.__slots__)
    if strange:
        raise KeyError(min(strange))
    return msgspec.convert(row, known(kind))


def _unknown(entry: int) -> UnsupportedFormat:
    return UnsupportedFormat(
        f"the journal is not understood at entry {entry} or before: another version of Keepstone wrote it; use that one"
    )
