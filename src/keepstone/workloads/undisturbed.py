# SPDX-License-Identifier: Apache-2.0
"""Work that no signal interrupts between making a thing and knowing that it is there.

A signal strikes between any two steps of the main thread, for example when a file has been made and its descriptor is
not noted yet, or when other threads still write into files that would be closed now. So a restore runs on a thread of
its own. An interrupt ends it where it tells of its progress, and then it lets go of what it has in its usual order.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from keepstone.env import Env
from keepstone.workloads.progress import Progress

__all__ = ["undisturbed"]

T = TypeVar("T")


def undisturbed(env: Env, progress: Progress, work: Callable[[Progress], T]) -> T:
    """Call `work` with a progress to tell, and wait for it.

    When the caller is interrupted, `advance` of this progress raises `KeyboardInterrupt`; so does this function, as
    soon as the work has ended, and not before however often it is interrupted. An `Env` without threads runs the work
    on the caller's own.
    """
    told = _Stoppable(progress)
    pool = env.pool()
    outcome: Future[T] = Future()  # ours: a `submit` that is interrupted may have begun the work, and tells nobody
    try:
        pool.submit(_run, outcome, work, told)
        return outcome.result()
    finally:
        told.stopped = True
        if not outcome.cancel():
            _await(outcome)
        pool.shutdown()


def _run(outcome: Future[T], work: Callable[[Progress], T], told: Progress) -> None:
    if outcome.set_running_or_notify_cancel():
        try:
            outcome.set_result(work(told))
        except BaseException as error:
            outcome.set_exception(error)


def _await(future: Future[T]) -> None:
    """The work itself: a `join` that was interrupted takes a thread for dead that still runs (CPython 3.11)."""
    while True:
        try:
            wait([future])
        except KeyboardInterrupt:  # the first one is on its way
            continue
        return


class _Stoppable:
    """A `Progress` that can end the work that tells it."""

    def __init__(self, progress: Progress) -> None:
        self.expect = progress.expect
        self.warn = progress.warn
        self._advance = progress.advance
        self.stopped = False

    def advance(self, size: int, files: int = 0, reused: int = 0) -> None:
        if self.stopped:
            raise KeyboardInterrupt
        self._advance(size, files, reused)
