# SPDX-License-Identifier: Apache-2.0
"""Mistakes planted in the product's text, each with the workload that must bring it to light.

`ORDER` are mistakes that only a power loss shows, `HANDLING` mistakes in the face of a fault that is no power loss.
The harmless ones among them are equivalent for the reason given: a tester that called them red would be wrong.
"""

from __future__ import annotations

from typing import Literal

from tests.crash.faults import LOST_SYNC
from tests.crash.mutants import Edit, Mutant

__all__ = ["HANDLING", "ORDER"]

_FOLDER, _DIRECT = "objects/folder.py", "objects/direct.py"
_SESSION, _POINTS, _RECLAIM = "store/session.py", "store/points.py", "store/reclaim.py"
_STORE, _INDEX, _LOOKUP, _LEASES = "store/store.py", "store/index.py", "store/lookup.py", "store/leases.py"


def _mutant(
    name: str,
    file: str,
    edits: dict[str, str],
    reason: str,
    verdict: Literal["red", "clean"] = "red",
    check: Literal["original", "mutated"] = "original",
) -> Mutant:
    return Mutant(name, tuple(Edit(file, old, new) for old, new in edits.items()), verdict, reason, check)


def _swapped(first: str, second: str) -> dict[str, str]:
    """The edit that turns two neighbouring pieces of text round."""
    return {first + second: second + first}


_PUT_WRITTEN = """\
                view = view[self._fs.write(fd, view) :]
"""
_PUT_SYNC = """\
            self._fs.fsync(fd)
"""
_PUT_NAMED = """\
                self._publish(temporary, name)
"""
_PUT_NAME_SYNC = """\
            self._sync_folder(folder_of(name))
"""
_UPLOAD_SYNC = """\
            if sync:
                self._file.fsync()
"""
_NAMES_SYNC = """\
        self._sync_folders(names)

    def _write("""
_PARENT_SYNC = """\
        self._sync_folder(parent)
"""
_DELETE_SYNC = """\
            self._sync_folders(names)

    def clean("""
_PACKS_FINISHED = """\
        for kind in list(self._open):
            self.close_pack(kind)
"""
_BARRIER = """\
        self.context.storage.sync(names)
"""
_CELL = """\
            sealed = self.commits.publish(self.commit_id, record)
"""
_BORROWED = "*(pack_name(self.numbers.ids[number]) for number in sorted(borrowed))"
_HEAD = """\
        sequence, digest = chain.append(event, commit_name(self.commit_id), sealed)
"""
_PURGE_HEAD = """\
        with_reserve(storage, lambda: Chain(self._context).append(event, commit_name(commit), b""))
"""
_PURGE_CELL = """\
        storage.delete(commit_name(commit))
"""
_PURGE_MARKER = """\
        storage.delete(deleted_name(commit))
"""
_MOVE_HEAD = """\
            Chain(context).append("drop-move", commit_name(move), b"")
"""
_MOVE_CELL = """\
            context.storage.delete(commit_name(move))
"""
_KEYS_PUT = """\
        storage.put(keys_name(keyring.sequence), keys_object)
"""
_KEYS_KNOWN = """\
        self.keyring = keyring
        Chain(self.context).append("keys", keys_name(self.keyring.sequence), keys_object)
"""
_KEYS_DROPPED = """\
        storage.delete_many([name for name in names(storage, KEYS) if name < keys_name(self.keyring.sequence)])
"""
_SWEEP = """\
        context.storage.delete_many([pack_name(pack) for pack in swept])
"""
_CONFIRMED = """\
                    if self._packs.chunk_id(ref) == identity:
                        found[identity] = ref
"""
_TOMBS_GONE = """\
        for name in verdicts:
            tombs.remove(name)
"""

ORDER: list[tuple[str, Mutant]] = [
    ("backup", _mutant(
        "object without fsync", _FOLDER, {_PUT_WRITTEN + _PUT_SYNC: _PUT_WRITTEN}, "a commit cell without its bytes",
    )),
    ("backup", _mutant(
        "object's name without fsync", _FOLDER, {_PUT_NAMED + _PUT_NAME_SYNC: _PUT_NAMED},
        "an acknowledged cell without its name",
    )),
    ("backup", _mutant("pack without fsync", _DIRECT, {_UPLOAD_SYNC: ""}, "a point whose packs are empty")),
    ("backup", _mutant(
        "names of packs without fsync", _FOLDER, {_NAMES_SYNC: "\n    def _write("},
        "a point whose packs have no names",
    )),
    ("backup", _mutant(
        "new folder without fsync of its parent", _FOLDER, {_PARENT_SYNC: ""}, "a pack in a folder that is not there",
    )),
    ("delete", _mutant(
        "delete without fsync", _FOLDER, {_DELETE_SYNC: "            pass\n\n    def clean("},
        "a purged point comes back",
    )),
    ("backup", _mutant("no barrier before the cell", _SESSION, {_BARRIER: ""}, "a point whose packs have no names")),
    ("borrowing", _mutant(
        "borrowed packs not in the barrier", _SESSION, {_BORROWED: "*()"}, "a point that needs another writer's pack",
    )),
    ("backup", _mutant(
        "cell before its packs", _SESSION,
        {_PACKS_FINISHED: _CELL[4:] + _PACKS_FINISHED, _CELL: "            pass\n"},
        "a point shows before its packs are there",
    )),
    ("backup", _mutant(
        "head before its cell", _SESSION,
        {
            _BARRIER: _BARRIER + '        Chain(self.context).append(event, commit_name(self.commit_id), b"")\n',
            _HEAD: '        sequence, digest = chain.last()\n',
        },
        "the chain says that a point was there which never was",
    )),
    ("delete", _mutant(
        "purge before its head", _POINTS, {_PURGE_HEAD + _PURGE_CELL: _PURGE_CELL + _PURGE_HEAD},
        "a point is gone that nobody deleted",
    )),
    ("delete", _mutant(
        "marker goes before the cell", _POINTS, _swapped(_PURGE_CELL, _PURGE_MARKER),
        "a purge that was cut off leaves a point that looks undeleted",
    )),
    ("reclaim", _mutant(
        "move record goes before its head", _RECLAIM, _swapped(_MOVE_HEAD, _MOVE_CELL),
        "a move record is gone that nobody dropped",
    )),
    ("reclaim", _mutant(
        "old packs go before the moves are known", "store/compact.py",
        {'        return session.publish(MoveRecord(moves=moves), set(), "move")\n':
         "        context.storage.delete_many([pack_name(move.pack) for move in moves])\n"
         '        return session.publish(MoveRecord(moves=moves), set(), "move")\n',
         "from keepstone.store.layout import MOVES_TAG\n": "from keepstone.store.layout import MOVES_TAG, pack_name\n"},
        "chunks that were moved to where nobody looks",
    )),
    ("rekey", _mutant(
        "old key goes before the new one", _STORE,
        {_KEYS_PUT: "", _KEYS_KNOWN + _KEYS_DROPPED: "        self.keyring = keyring\n" + _KEYS_DROPPED + _KEYS_PUT
         + _KEYS_KNOWN.splitlines(keepends=True)[1]},
        "a store that no key opens",
    )),
    ("init", _mutant(
        "descriptor first", _STORE,
        {"            storage.put(keys_name(1), keys_object)\n":
         "            storage.put(DESCRIPTOR, encode_descriptor(descriptor, keyring.keys, profile))\n"
         "            storage.put(keys_name(1), keys_object)\n",
         "            storage.put(DESCRIPTOR, encoded)\n": ""},
        "a store without keys",
    )),
    ("index", Mutant(
        "packs believed because the cache names them", (
            Edit(_INDEX, "            return self._segments, self._there\n",
                 "            return self._segments, {pack for segment in self._segments for pack in segment.packs}\n"),
            Edit(_INDEX, "not there.intersection(segment.packs) or ", ""),
            Edit(_LOOKUP, _CONFIRMED, "                    found[identity] = ref\n"),
        ), "red", "a new point refers to packs that the power loss took", "mutated",
    )),
    ("reclaim", _mutant(
        "tombstones go before the packs", _RECLAIM,
        {_SWEEP: _TOMBS_GONE.replace(" name ", " early ").replace("(name)", "(early)") + _SWEEP,
         _TOMBS_GONE + "    tombs.sweep_leftovers()": "    tombs.sweep_leftovers()"},
        "nobody needs the packs, so the next round condemns them again", "clean",
    )),
    ("index", _mutant(
        "index segment without fsync", "store/segment.py", {"        env.fs.fsync(fd)\n": ""},
        "a segment is a hint: every hit is compared with a footer", "clean",
    )),
]  # fmt: skip
"""(workload, mistake)."""

HANDLING: list[tuple[str, Mutant, str]] = [
    ("backup", _mutant(
        "one write call for an object", _FOLDER,
        {_PUT_WRITTEN: "                self._fs.write(fd, view)\n                view = view[len(view) :]\n"},
        "half a commit cell",
    ), "short write"),
    ("backup", _mutant(
        "one write call for a pack", _DIRECT,
        {"            offset += count\n            view = view[count:]\n": "            return\n"},
        "half a pack",
    ), "short write"),
    ("backup", _mutant(
        "error of an upload ignored", _SESSION,
        {"            writer.abort()\n            raise\n        del self._unfinished":
         "            writer.abort()\n        del self._unfinished"},
        "a point whose pack was never written",
    ), "EIO once"),
    ("backup", _mutant(
        "fsync tried again", _DIRECT,
        {"        self._fs.fsync(self._plain)\n        with":
         "        try:\n            self._fs.fsync(self._plain)\n        except OSError:\n"
         "            self._fs.fsync(self._plain)\n        with"},
        "the second fsync says that all is well, and nothing is",
    ), LOST_SYNC),
]  # fmt: skip
"""(workload, mistake, the fault that must show it)."""
