# SPDX-License-Identifier: Apache-2.0
"""`keepstone store stat` and `rebuild-index`."""

from __future__ import annotations

from keepstone.cli.console import Console
from keepstone.cli.opening import Opening, store_command
from keepstone.cli.render import lines_of, plain, safe

__all__ = ["rebuild_index", "stat"]


@store_command(name="stat")
def stat(console: Console, opening: Opening) -> int:
    """Show how much the store holds, and what deduplication and compression make of it."""
    statistics = opening.store().stat()
    for sentence in statistics.damage:
        console.warn(safe(sentence))
    ratio = round(statistics.deduplication, 3)
    console.result(
        plain(statistics) | {"deduplication": ratio}, lines_of(statistics, deduplication=f"{ratio:.3g} times")
    )
    return console.ending()


@store_command(name="rebuild-index")
def rebuild_index(console: Console, opening: Opening) -> None:
    """Throw this machine's chunk index away and make it anew from the packs; it only makes backups faster."""
    chunks = opening.store().rebuild_index()
    console.result({"chunks": chunks}, [f"the index holds {chunks:,} chunks"])
