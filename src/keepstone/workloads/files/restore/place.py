# SPDX-License-Identifier: Apache-2.0
"""Where an entry of a restore comes into being."""

from __future__ import annotations

from dataclasses import dataclass

from keepstone.workloads.files.page import Entry
from keepstone.workloads.files.restore.beneath import Directory

__all__ = ["Place"]


@dataclass(slots=True)
class Place:
    """The entry that is at `path` of the point is made under `name` in an open directory.

    `final`: the name of an existing entry that it replaces when it is complete; None: nothing is there. `done`: True
    when it is made, False when it was given up.
    """

    directory: Directory
    name: bytes
    path: bytes
    entry: Entry
    final: bytes | None = None
    done: bool | None = None

    @property
    def lasting(self) -> bytes:
        """The path beneath the target that it has in the end."""
        return self.directory.child(self.final or self.name)
