# SPDX-License-Identifier: Apache-2.0
"""`keepstone store reclaim`."""

from __future__ import annotations

from dataclasses import replace

import click

from keepstone.cli.console import Console
from keepstone.cli.opening import Opening, store_command
from keepstone.cli.render import lines_of, plain
from keepstone.cli.store.points import purge_deleted

__all__ = ["reclaim"]


@store_command(name="reclaim")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--purge-now", is_flag=True, help="First remove all deleted points for ever, whatever their date.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask before --purge-now.")
def reclaim(console: Console, opening: Opening, dry_run: bool, purge_now: bool, yes: bool) -> int:
    """Remove deleted points whose date has passed, and give back the space of what no point needs any more.

    Backups and restores may go on meanwhile.
    """
    from keepstone.errors import UsageError

    if dry_run and purge_now:
        raise UsageError("--purge-now cannot be tried without doing it; leave --dry-run out")
    store = opening.store()
    if purge_now:
        deleted = sum(point.deleted_until is not None for point in store.points.list(deleted=True, damaged=[]))
        if deleted:
            console.confirm(f"Remove {deleted} deleted recovery points for ever?", yes)
    purged = purge_deleted(console, store) if purge_now else []
    console.detail = {"purged": purged} if purged else {}
    reclaimed = store.reclaim(dry_run=dry_run)
    reclaimed = replace(reclaimed, points_purged=reclaimed.points_purged + len(purged))
    console.result(plain(reclaimed) | ({"purged": purged} if purge_now else {}), lines_of(reclaimed))
    return console.ending()
