# SPDX-License-Identifier: Apache-2.0
"""The mistakes that the tests plant in the toy, and who must find each."""

from __future__ import annotations

from typing import Literal

from tests.crash.faults import LOST_SYNC
from tests.crash.mutants import Edit, Mutant

__all__ = ["ACK_EARLY", "FORGET_UNSYNCED", "HANDLING", "NO_TIDYING", "ORDER", "mutant"]

_PUT = """\
        self._put_all(self.packs, {hashlib.sha256(chunk).hexdigest(): chunk for chunk in chunks})
"""
_COMMIT = """\
        self._put_all(self.manifests, {name: hashlib.sha256(manifest).hexdigest().encode() + manifest})
"""
_PROMISE = """\
        promise()
"""
_MOVE = """\
                _write(self.tmp / name, data)
                _rename(self.tmp / name, directory / name)
"""
_SYNC_MOVED = """\
        _sync(directory)
"""
_FORGET = """\
        (self.manifests / name).unlink()
"""
_SYNC_FORGOTTEN = """\
        _sync(self.manifests)
"""
_TIDY = """\
        for leftover in self.tmp.iterdir():
            leftover.unlink()
"""
_LOOP = """\
            view = view[os.write(fd, view) :]
"""
_SYNC_WRITTEN = """\
        os.fsync(fd)
"""
_SYNC_TWICE = """\
        try:
            os.fsync(fd)
        except OSError:
            os.fsync(fd)
"""
_IGNORE = """\
    except OSError:
        pass
"""


def mutant(
    name: str,
    old: str,
    new: str,
    reason: str,
    verdict: Literal["red", "clean"] = "red",
    check: Literal["original", "mutated"] = "original",
) -> Mutant:
    return Mutant(name, (Edit("__init__.py", old, new),), verdict, reason, check)


ACK_EARLY = mutant("ack early", _COMMIT + _PROMISE, _PROMISE + _COMMIT, "promised before it is durable")
FORGET_UNSYNCED = mutant(
    "forget without fsync", _FORGET + _SYNC_FORGOTTEN, _FORGET, "a forgotten point comes back without its chunks"
)
NO_TIDYING = mutant("tmp is not emptied", _TIDY, "", "leftovers are overwritten by the next of their name", "clean")

ORDER: list[tuple[Mutant, set[str]]] = [
    (mutant("no fsync of file", _LOOP + _SYNC_WRITTEN, _LOOP, "names without their bytes"), {"posix", "ext4"}),
    (mutant("no fsync of dir", _MOVE + _SYNC_MOVED, _MOVE, "points without their names"), {"posix", "ext4"}),
    (
        Mutant(
            "manifest before pack",
            (Edit("__init__.py", _PUT, ""), Edit("__init__.py", _COMMIT, _COMMIT + _PUT)),
            "red",
            "a point shows before its chunks are there",
        ),
        {"kill", "posix", "ext4"},
    ),
    (ACK_EARLY, {"kill", "posix", "ext4"}),
    (FORGET_UNSYNCED, {"posix", "ext4"}),
    (
        mutant(
            "recovery empties packs", _TIDY, _TIDY.replace("tmp", "packs"), "it removes what is needed", check="mutated"
        ),
        {"kill", "posix", "ext4"},
    ),
    (NO_TIDYING, set()),
]
"""Mistakes of order, and which of kill -9, strict POSIX and an ordered journal find them: kills are not enough."""

HANDLING: list[tuple[Mutant, str, str]] = [
    (
        mutant(
            "one write call",
            _LOOP,
            _LOOP.replace("os.write(fd, view)", "os.write(fd, view) and len(view)"),
            "half a chunk",
        ),
        "short write",
        "BROKEN",
    ),
    (
        mutant(
            "error ignored", _LOOP + _SYNC_WRITTEN, _LOOP + _SYNC_WRITTEN + _IGNORE, "a chunk that was never written"
        ),
        "ENOSPC once",
        "BROKEN",
    ),
    (
        mutant("fsync tried again", _LOOP + _SYNC_WRITTEN, _LOOP + _SYNC_TWICE, "it reports what it did not do"),
        LOST_SYNC,
        "BROKEN",
    ),
    (
        mutant(
            "chunks in place",
            _MOVE,
            _MOVE[: _MOVE.index("\n") + 1].replace("self.tmp", "directory"),
            "a torn chunk is known",
        ),
        "SIGKILL mid-write",
        "AFTERWARDS",
    ),
]
"""Mistakes in the face of a fault, the fault, and how the violation's name begins."""
