# SPDX-License-Identifier: Apache-2.0
"""What is at a path of a guest."""

from __future__ import annotations

import stat
from typing import NamedTuple

from keepstone.workloads.files import Entry
from keepstone.workloads.inside.guest import Inside
from keepstone.workloads.machines.stillness import AgentFailed

__all__ = ["SECOND", "UNFINISHED", "Seen", "seen"]

SECOND = 10**9
UNFINISHED = 0o1700
"""The mode of a folder while a restore fills it: nobody has a reason to make one like that."""


class Seen(NamedTuple):
    """`time`: of change, seconds since 1970; `owner`: user and group."""

    mode: int
    size: int
    time: int
    owner: tuple[int, int]

    @property
    def is_folder(self) -> bool:
        """Whether it is one, and no link to one."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_unfinished(self) -> bool:
        """Whether it is a folder that a restore before this one has begun."""
        return self.is_folder and stat.S_IMODE(self.mode) == UNFINISHED

    def is_like(self, entry: Entry, mode: int) -> bool:
        """Whether it is of the kind of this entry, and has its size, time and owner, and this mode. Links have none."""
        is_link = stat.S_ISLNK(entry.mode)
        size = len(entry.extra.target) if is_link else entry.size
        if stat.S_IFMT(self.mode) != stat.S_IFMT(entry.mode) or not (is_link or stat.S_IMODE(self.mode) == mode):
            return False
        return (self.size, self.time, self.owner) == (size, entry.mtime // SECOND, (entry.uid, entry.gid))


def seen(inside: Inside, path: str, *, follow: bool = False) -> Seen | None:
    """None where nothing is there. `follow`: what a link leads to. `AgentFailed`."""
    code, said = inside.run("stat", *(["-L"] if follow else []), "-c", "%f %s %Y %u %g", "--", path)
    if code:
        return None
    try:
        mode, size, time, uid, gid = said.split()
        return Seen(int(mode, 16), int(size), int(time), (int(uid), int(gid)))
    except ValueError as error:
        raise AgentFailed(f"stat says {said[:100]!r} in the guest, which is not what it was asked for") from error
