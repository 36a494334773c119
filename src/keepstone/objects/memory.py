# SPDX-License-Identifier: Apache-2.0
"""Object storage in a dict: for simulation, tests and short-lived stores.

Several instances over one dict are several actors in front of one storage. `fail(operation, name)` may return the
error that the storage is to raise. It is asked before each operation acts ("put", "finish", "delete" …), and again
after those that change something ("put reply", "finish reply" …): an error there is a lost reply, the change stands.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar

from keepstone.env import Env
from keepstone.errors import ObjectExists, ObjectMissing, UsageError
from keepstone.objects.direct import ROOM
from keepstone.objects.names import check_name, check_prefix
from keepstone.objects.port import Buffer, ObjectInfo

__all__ = ["MemoryStorage"]

Fail = Callable[[str, str], Exception | None]


class MemoryStorage:
    """See the module; `objects` holds name → content and may be changed under its feet."""

    _claim: ClassVar = threading.Lock()  # of all instances, because they may share a dict

    def __init__(self, env: Env, *, objects: dict[str, bytes] | None = None, fail: Fail | None = None) -> None:
        self.objects = {} if objects is None else objects
        self._env = env
        self._fail = fail

    def _begin(self, operation: str, name: str) -> None:
        self._env.step(f"{operation} {name}")
        self._ask(operation, name)

    def _ask(self, operation: str, name: str) -> None:
        error = self._fail(operation, name) if self._fail else None
        if error is not None:
            raise error

    def _store(self, operation: str, name: str, data: Buffer) -> None:
        self._begin(operation, name)
        with self._claim:
            if name in self.objects:
                raise ObjectExists(f"{name} exists in memory; it was left as it is, take another name")
            self.objects[name] = bytes(data)
        self._ask(f"{operation} reply", name)

    def _content(self, name: str) -> bytes:
        try:
            return self.objects[name]
        except KeyError:
            raise ObjectMissing(f"{name} is not in memory; run `keepstone store verify` to see what needs it") from None

    def put(self, name: str, data: Buffer) -> None:
        self._store("put", check_name(name), data)

    def create(self, name: str) -> MemoryUpload:
        self._begin("create", check_name(name))
        return MemoryUpload(lambda data: self._store("finish", name, data))

    def sync(self, names: Iterable[str]) -> None:
        self._begin("sync", " ".join(check_name(name) for name in names))

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if length is not None and length < 0:
            raise UsageError(f"cannot read {length} bytes of object {name}; ask for none or more")
        self._begin("read", check_name(name))
        content = self._content(name)
        start = offset if offset >= 0 else max(0, len(content) + offset)
        return content[start:] if length is None else content[start : start + length]

    def read_into(self, name: str, offset: int, buffer: memoryview) -> int:
        if offset < 0:
            raise UsageError(f"cannot fill a buffer from offset {offset} of object {name}; count from its start")
        self._begin("read_into", check_name(name))
        piece = self._content(name)[offset : offset + len(buffer)]
        buffer[: len(piece)] = piece
        return len(piece)

    def size(self, name: str) -> int:
        self._begin("size", check_name(name))
        return len(self._content(name))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        self._begin("list", prefix)
        return self._listing(prefix)

    def names(self, prefix: str = "") -> Iterator[str]:
        return (info.name for info in self.list(prefix))

    def _listing(self, prefix: str) -> Iterator[ObjectInfo]:
        for name in tuple(self.objects):
            content = self.objects.get(name) if name.startswith(prefix) else None
            if content is not None:
                yield ObjectInfo(name, len(content))

    def anything(self) -> str | None:
        self._begin("list", "")
        return next(iter(self.objects), None)

    def delete(self, name: str) -> None:
        self._begin("delete", check_name(name))
        self.objects.pop(name, None)
        self._ask("delete reply", name)

    def delete_many(self, names: Iterable[str]) -> None:
        names = [check_name(name) for name in names]
        self._ask("delete_many", " ".join(names))
        for name in names:
            self._env.step(f"delete_many {name}")
            self.objects.pop(name, None)
        self._ask("delete_many reply", " ".join(names))

    def clean(self) -> int:
        """Nothing unfinished outlives its writer in memory."""
        self._env.step("clean")
        return 0

    def keep_reserve(self) -> None:
        """Memory has no room to hold back."""

    def spend_reserve(self) -> bool:
        return False


class MemoryUpload:
    """An upload into a `MemoryStorage`."""

    def __init__(self, store: Callable[[bytearray], None]) -> None:
        self._store = store
        self._data = bytearray()
        self._room = memoryview(b"")
        self._open = True

    def write(self, data: Buffer) -> None:
        self._check_open()
        self._data += data

    def room(self, count: int) -> memoryview:
        self._check_open()
        if not 0 <= count <= ROOM:
            raise UsageError(f"room for {count} bytes cannot be had at once: ask for at most {ROOM}")
        self._room = memoryview(bytearray(count))  # of its own: while a view of it lives, a bytearray cannot grow
        return self._room[:]

    def advance(self, count: int) -> None:
        self._check_open()
        if not 0 <= count <= len(self._room):
            raise UsageError(f"{count} bytes were never written into the room; ask for room first")
        self._data += self._room[:count]
        self._room = memoryview(b"")

    def finish(self) -> None:
        self._check_open()
        self._open = False
        self._store(self._data)

    def abort(self) -> None:
        self._open = False

    def _check_open(self) -> None:
        if not self._open:
            raise UsageError("this upload is over; begin another one")
