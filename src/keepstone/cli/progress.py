# SPDX-License-Identifier: Apache-2.0
"""How far a run is: a bar where somebody watches, a line every ten seconds otherwise, events for programs."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import click

from keepstone.cli.console import Console
from keepstone.cli.render import duration, escaped, safe, size

__all__ = ["Meter", "metered"]

_LINE_EVERY = 10.0  # seconds
_EVENT_EVERY = 1.0


class Meter:
    """`Progress` that counts; several threads may call it. `new` tells the bytes that the store did not have."""

    def __init__(self, console: Console, verb: str) -> None:
        self._console = console
        self._lock = threading.Lock()
        self.verb = verb
        self.started = time.monotonic()
        self.expected = 0
        self.done = 0
        self.files = 0
        self.new: Callable[[], int] | None = None
        self._unchanged = 0

    def expect(self, size: int) -> None:
        with self._lock:
            self.expected = size

    def advance(self, size: int, files: int = 0, reused: int = 0) -> None:
        with self._lock:
            self.done += size
            self.files += files
            self._unchanged += reused

    def warn(self, path: bytes, message: str) -> None:
        with self._lock:
            self._console.warn(safe(message), escaped(path))

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return time.monotonic() - self.started

    @property
    def rate(self) -> float:
        """Bytes a second."""
        return self.done / max(self.seconds, 0.001)

    @property
    def left(self) -> float | None:
        """Seconds that it will still take; None while nobody knows."""
        rest = self.expected - self.done
        return rest / self.rate if self.done and rest > 0 else None

    @property
    def reused(self) -> int:
        """Bytes that were there already."""
        return self._unchanged if self.new is None else max(0, self.done - self.new())

    @property
    def shares(self) -> str:
        """How much of it was new, and how much was there already."""
        if self.new is not None:
            return f"{size(self.new())} new, {size(self.reused)} reused"
        return f"{size(self.reused)} unchanged" if self.reused else ""

    def sentence(self) -> str:
        """All of it in one line."""
        parts = [size(self.done) + (f" of {size(self.expected)}" if self.expected else "")]
        if self.expected:
            parts[0] += f" ({min(100, 100 * self.done // max(1, self.expected))} %)"
        parts.append(f"{size(self.rate)}/s")
        if self.files:
            parts.append(f"{self.files:,} files")
        if self.shares:
            parts.append(self.shares)
        if self.left is not None:
            parts.append(f"{duration(self.left)} left")
        return f"{self.verb}: {', '.join(parts)}"

    def event(self) -> None:
        """Tell a program."""
        self._console.event(
            "progress",
            verb=self.verb,
            seconds=round(self.seconds, 3),
            expected_bytes=self.expected,
            done_bytes=self.done,
            reused_bytes=self.reused,
            files=self.files,
        )


@contextlib.contextmanager
def metered(console: Console, verb: str) -> Iterator[Meter]:
    """A meter that is shown while the block runs."""
    meter = Meter(console, verb)
    if console.events:
        shown: contextlib.AbstractContextManager[None] = _ticking(meter.event, _EVENT_EVERY)
    elif console.quiet:
        shown = contextlib.nullcontext()
    elif console.terminal:
        from keepstone.cli.bar import bar

        shown = bar(meter)
    else:
        shown = _ticking(lambda: click.echo(meter.sentence(), err=True), _LINE_EVERY)
    with shown:
        yield meter
    if console.events:
        meter.event()


@contextlib.contextmanager
def _ticking(show: Callable[[], None], every: float) -> Iterator[None]:
    """Call `show` again and again from a thread of its own."""
    over = threading.Event()

    def tick() -> None:
        while not over.wait(every):
            show()

    thread = threading.Thread(target=tick, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
