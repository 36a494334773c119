# SPDX-License-Identifier: Apache-2.0
"""What is wanted of a restore."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from keepstone.errors import UsageError

__all__ = ["Conflict", "RestoreOptions"]


class Conflict(StrEnum):
    """What becomes of an existing entry that differs from the point's: it is replaced, left alone, or left beside the
    other.
    """

    OVERWRITE = "overwrite"
    SKIP = "skip"
    KEEP_BOTH = "keep-both"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOptions:
    """`paths`: relative to the source, with everything below them; none: the whole point.

    `in_place`: the target may exist and hold something; only what differs is written. Without it the target must not
    exist, or be an empty directory. The following are for `in_place` only. `conflict`: see there. `compare_content`:
    existing files of the same size and time are read and compared as well. `delete`: what is in a restored directory
    and not in the point is removed.

    `numeric_ids`: owners by number, not by name. `xattrs`: extended attributes, among them ACLs. `capabilities`: those
    of files. `setuid`: setuid and setgid bits of files. `devices`: device nodes.
    """

    paths: tuple[bytes, ...] = ()
    in_place: bool = False
    conflict: Conflict = Conflict.OVERWRITE
    compare_content: bool = False
    delete: bool = False
    numeric_ids: bool = False
    xattrs: bool = True
    capabilities: bool = True
    setuid: bool = True
    devices: bool = True

    def __post_init__(self) -> None:
        if not self.in_place and (self.delete or self.compare_content or self.conflict is not Conflict.OVERWRITE):
            raise UsageError("delete, compare-content and conflict are for a restore in place; ask for that as well")
