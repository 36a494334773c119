# SPDX-License-Identifier: Apache-2.0
"""Chunks that many want: each is fetched once, and damage concerns only who wants what is damaged."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from keepstone.env import Env
from keepstone.errors import CorruptObject, StorageError
from keepstone.store import Node, PointRecord
from keepstone.workloads.chunks import ChunkCache
from keepstone.workloads.recent import Recent

pytestmark = pytest.mark.store

Cookie = TypeVar("Cookie")


class Numbers:
    """A reader whose chunk at each place says that place. `damaged`: places that cannot be read."""

    point: PointRecord

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.damaged: set[int] = set()
        self.failing: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.reached = threading.Event()

    def root(self) -> list[int]:
        raise NotImplementedError

    def node(self, ref: int) -> Node:
        raise NotImplementedError

    def chunk_refs(self, node: Node) -> list[int]:
        raise NotImplementedError

    def child_refs(self, node: Node) -> list[int]:
        raise NotImplementedError

    def chunk_length(self, ref: int) -> int:
        return len(b"%d" % ref)

    def chunk_id(self, ref: int) -> bytes:
        return b"%d" % ref

    def identify(self, chunk: bytes | memoryview) -> bytes:
        return bytes(chunk)

    def fetch(self, requests: Iterable[tuple[int, Cookie]], sink: Callable[[Cookie, memoryview], None]) -> None:
        wanted = list(requests)
        self.asked.append([ref for ref, _ in wanted])
        self.reached.set()
        assert self.gate.wait(30)
        if self.failing is not None:
            raise self.failing
        for ref, cookie in wanted:
            if ref in self.damaged:
                raise CorruptObject(f"chunk {ref} is damaged")
            sink(cookie, memoryview(b"%d" % ref))


@pytest.fixture
def numbers() -> Numbers:
    return Numbers()


def test_what_is_here_is_not_fetched_again(numbers: Numbers) -> None:
    with ChunkCache(Env(threads=1), numbers) as chunks:
        assert chunks.get([3, 1, 3]) == {3: b"3", 1: b"1"}
        assert chunks.get([1, 2]) == {1: b"1", 2: b"2"}
    assert numbers.asked == [[3, 1], [2]]


def test_what_lies_beside_comes_along_only_where_something_is_fetched(numbers: Numbers) -> None:
    with ChunkCache(Env(threads=1), numbers) as chunks:
        assert chunks.get([1], beside=[2, 3]) == {1: b"1"}
        assert chunks.get([2], beside=[4]) == {2: b"2"}
    assert numbers.asked == [[1, 2, 3]]


def test_two_who_want_the_same_share_one_fetch(numbers: Numbers) -> None:
    numbers.gate.clear()
    with ChunkCache(Env(threads=1), numbers) as chunks, ThreadPoolExecutor(2) as pool:
        first = pool.submit(chunks.get, [1, 2])
        assert numbers.reached.wait(30)
        second = pool.submit(chunks.get, [2])
        numbers.gate.set()
        assert first.result(30) == {1: b"1", 2: b"2"}
        assert second.result(30) == {2: b"2"}
    assert [2] not in numbers.asked or numbers.asked[0] == [1, 2]
    assert sum(ref == 2 for asked in numbers.asked for ref in asked) == 1


def test_what_was_begun_ahead_is_waited_for(numbers: Numbers) -> None:
    numbers.gate.clear()
    with ChunkCache(Env(threads=1), numbers) as chunks, ThreadPoolExecutor(1) as pool:
        chunks.ahead([1, 2, 3])
        assert numbers.reached.wait(30)
        wanted = pool.submit(chunks.get, [2])
        numbers.gate.set()
        assert wanted.result(30) == {2: b"2"}
        assert chunks.get([1, 3]) == {1: b"1", 3: b"3"}
    assert numbers.asked == [[1, 2, 3]]


@pytest.mark.parametrize("ahead", [False, True])
def test_damage_concerns_only_who_wants_it(numbers: Numbers, ahead: bool) -> None:
    numbers.damaged = {5, 11}
    with ChunkCache(Env(threads=1), numbers) as chunks:
        if ahead:
            chunks.ahead(range(16))
        else:
            with pytest.raises(CorruptObject, match="chunk 5 "):
                chunks.get(range(16))
        for ref in range(16):
            if ref in numbers.damaged:
                with pytest.raises(CorruptObject, match=f"chunk {ref} "):
                    chunks.get([ref])
            else:
                assert chunks.get([ref]) == {ref: b"%d" % ref}
        numbers.damaged = set()  # as by a copy
        assert chunks.get([5]) == {5: b"5"}


def test_a_storage_that_fails_fails_who_waits_and_nobody_later(numbers: Numbers) -> None:
    numbers.failing = StorageError("the disk is away")
    with ChunkCache(Env(threads=1), numbers) as chunks:
        with pytest.raises(StorageError):
            chunks.get([1, 2])
        numbers.failing = None
        assert chunks.get([1, 2]) == {1: b"1", 2: b"2"}


def test_the_oldest_goes_first() -> None:
    recent: Recent[str, int] = Recent(10)
    for number, name in enumerate("abc"):
        recent.put(name, number, 4)
    assert (recent.get("a"), recent.get("b"), recent.size) == (None, 1, 8)
    recent.put("d", 3, 4)
    assert (recent.get("c"), recent.get("b")) == (None, 1)
    recent.put("huge", 4, 100)
    assert (recent.get("b"), recent.get("huge"), recent.size) == (None, 4, 100)
    recent.put("huge", 5, 1)
    assert (recent.get("huge"), recent.size) == (5, 1)
