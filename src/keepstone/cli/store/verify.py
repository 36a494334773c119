# SPDX-License-Identifier: Apache-2.0
"""`keepstone store verify`."""

from __future__ import annotations

import click

from keepstone.cli.console import Console
from keepstone.cli.opening import Opening, store_command
from keepstone.cli.progress import metered
from keepstone.cli.render import lines_of, plain, safe

__all__ = ["verify"]


@store_command(name="verify")
@click.option("--deep", is_flag=True, help="Read and check every byte, not only that everything is there.")
def verify(console: Console, opening: Opening, deep: bool) -> int:
    """Check the store: keys, points, manifests, packs, and the signed log of what happened. Damage: exit code 1."""
    store = opening.store()
    with metered(console, "verify") as meter:
        seen = 0

        def tick(done: int, total: int) -> None:
            nonlocal seen
            meter.expect(total)
            meter.advance(done - seen)
            seen = done

        verified = store.verify(deep=deep, tick=tick)
    console.result(
        plain(verified) | {"ok": verified.ok},
        [
            *(f"DAMAGED {finding.object}: {safe(finding.message)}" for finding in verified.findings),
            *(f"recovery point {point} cannot be restored whole" for point in verified.damaged_points),
            *lines_of(verified),
            "the store is whole" if verified.ok else "the store is damaged; restore what is missing from a copy of it",
        ],
    )
    return 0 if verified.ok else 1
