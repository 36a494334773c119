# SPDX-License-Identifier: Apache-2.0
"""The progress bar: drawn by rich, several times a second, on stderr."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from keepstone.cli.render import duration, size

if TYPE_CHECKING:
    from keepstone.cli.progress import Meter

__all__ = ["bar"]


class _Figures(ProgressColumn):
    """Everything right of the bar, out of the meter itself, so that counting costs no drawing."""

    def __init__(self, meter: Meter) -> None:
        super().__init__()
        self._meter = meter

    def render(self, task: Task) -> Text:
        meter = self._meter
        files = f"  {meter.files:,} files" if meter.files else ""
        left = f"  {duration(meter.left)} left" if meter.left is not None else ""
        shares = f"  {meter.shares}" if meter.shares else ""
        return Text(f"{size(meter.done)}  {size(meter.rate)}/s{files}{shares}{left}")


class _Drawn(Progress):
    """Takes the state of the meter whenever it draws."""

    def __init__(self, meter: Meter) -> None:
        console = Console(stderr=True)
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            _Figures(meter),
            console=console,
            transient=True,
            redirect_stdout=False,  # may carry a tar stream
        )
        self._meter = meter
        self.add_task(meter.verb, total=None)

    def get_renderables(self) -> Iterable[RenderableType]:
        if self.tasks:
            self.tasks[0].total = self._meter.expected or None
            self.tasks[0].completed = self._meter.done
        yield from super().get_renderables()


@contextlib.contextmanager
def bar(meter: Meter) -> Iterator[None]:
    """Show the bar while the block runs; it leaves nothing behind."""
    with _Drawn(meter):
        yield
