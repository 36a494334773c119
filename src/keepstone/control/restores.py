# SPDX-License-Identifier: Apache-2.0
"""Asking for a restore."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from uuid import UUID

from keepstone.control import items
from keepstone.control.plane import Change
from keepstone.control.work.restore import RESTORE
from keepstone.vault import Container, Item, RecoveryPoint, Vault

__all__ = ["Wanted", "restore"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """`target`: a path of this machine; None for where the point came from. `paths`: what of it, all where there are
    none. `conflict`, `delete`: see `workloads.files.RestoreOptions`."""

    target: str | None = None
    paths: tuple[str, ...] = ()
    conflict: str | None = None
    delete: bool = False


def restore(
    change: Change, vault: Vault, held: Container, item: Item, point: RecoveryPoint, wanted: Wanted, activity: str
) -> UUID:
    """Ask a worker to restore a point; the job. A soft-deleted item can be restored from, too."""
    about = asdict(wanted) | {"paths": list(wanted.paths), "point": point.name, "user": True}
    return items.work(change, vault, held, item, RESTORE, activity, about)
