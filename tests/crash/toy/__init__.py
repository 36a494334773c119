# SPDX-License-Identifier: Apache-2.0
"""A toy store, to test the tester: chunks in `packs/`, points in `manifests/`, both by way of `tmp/`.

It writes as the product's folder does: a new file under `tmp`, fsync, a rename that replaces nothing, fsync of the
directory; a manifest's presence is the commit point. The tests plant their mistakes in this text.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

_CHUNK = 4096
_libc = ctypes.CDLL(None, use_errno=True)


class Toy:
    def __init__(self, root: Path) -> None:
        self.packs, self.manifests, self.tmp = (root / name for name in ("packs", "manifests", "tmp"))
        for directory in (self.packs, self.manifests, self.tmp):
            directory.mkdir(exist_ok=True)
        _sync(root)
        for leftover in self.tmp.iterdir():
            leftover.unlink()

    def backup(self, name: str, data: bytes, promise: Callable[[], None]) -> None:
        chunks = [data[at : at + _CHUNK] for at in range(0, len(data), _CHUNK)]
        self._put_all(self.packs, {hashlib.sha256(chunk).hexdigest(): chunk for chunk in chunks})
        manifest = json.dumps([hashlib.sha256(chunk).hexdigest() for chunk in chunks]).encode()
        self._put_all(self.manifests, {name: hashlib.sha256(manifest).hexdigest().encode() + manifest})
        promise()

    def forget(self, name: str) -> None:
        (self.manifests / name).unlink()
        _sync(self.manifests)

    def reclaim(self) -> None:
        live = {chunk for name in self.points() for chunk in self._chunks(name)}
        for pack in self.packs.iterdir():
            if pack.name not in live:
                pack.unlink()
        _sync(self.packs)

    def points(self) -> list[str]:
        return sorted(path.name for path in self.manifests.iterdir())

    def restore(self, name: str) -> bytes:
        chunks = {chunk: (self.packs / chunk).read_bytes() for chunk in self._chunks(name)}
        if any(hashlib.sha256(data).hexdigest() != chunk for chunk, data in chunks.items()):
            raise ValueError(f"a chunk of {name} is damaged")
        return b"".join(chunks[chunk] for chunk in self._chunks(name))

    def _chunks(self, name: str) -> list[str]:
        text = (self.manifests / name).read_bytes()
        if hashlib.sha256(text[64:]).hexdigest().encode() != text[:64]:
            raise ValueError(f"manifest {name} is damaged")
        return list(json.loads(text[64:]))

    def _put_all(self, directory: Path, objects: dict[str, bytes]) -> None:
        for name, data in objects.items():
            if not (directory / name).exists():
                _write(self.tmp / name, data)
                _rename(self.tmp / name, directory / name)
        _sync(directory)


def _write(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def _rename(source: Path, target: Path) -> None:
    if _libc.renameat2(-100, os.fsencode(source), -100, os.fsencode(target), 1):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(target))


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
