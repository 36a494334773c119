# SPDX-License-Identifier: Apache-2.0
"""What a backup has seen so far, and what was wrong with it."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field

from keepstone.errors import KeepstoneError
from keepstone.workloads.files.backup.folders import Folder
from keepstone.workloads.progress import Progress

__all__ = ["Tally", "is_fatal", "is_gone"]

_FATAL = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_GONE = {errno.ENOENT, errno.ESTALE}
_OTHER_KIND = {errno.ELOOP, errno.ENOTDIR, errno.ENXIO}


def is_fatal(error: OSError) -> bool:
    """Whether this says something about the machine, not about the entry: the backup cannot go on."""
    return error.errno in _FATAL


def is_gone(error: OSError) -> bool:
    """Whether the entry is not there any more, or is of another kind."""
    return error.errno in _GONE or error.errno in _OTHER_KIND


@dataclass(slots=True)
class Tally:
    """`files`: all that is no directory; `unchanged`: those of them that were taken from the parent.

    `size`: bytes of all regular files; `read`: how many were read. `users`, `groups`: the ids that occur.
    """

    progress: Progress
    files: int = 0
    directories: int = 0
    size: int = 0
    read: int = 0
    unchanged: int = 0
    warnings: int = 0
    users: set[int] = field(default_factory=set)
    groups: set[int] = field(default_factory=set)

    def warn(self, path: bytes, message: str) -> None:
        """Something about this path is not as it should be."""
        self.warnings += 1
        self.progress.warn(path, message)

    def left_out(self, path: bytes, error: OSError) -> None:
        """An entry is not in the point. Raises what concerns more than this entry."""
        if is_fatal(error):
            raise error
        if error.errno in _GONE:
            what = "vanished while it was backed up"
        elif error.errno in _OTHER_KIND:
            what = "became something else while it was backed up"
        else:
            what = f"cannot be looked at ({error.strerror})"
        self.warn(path, f"{what}; it is not in this point")

    def unreadable(self, path: bytes, error: OSError) -> None:
        """The content of an entry is not in the point. Raises what concerns more than this entry."""
        if is_fatal(error):
            raise error
        self.warn(path, f"cannot be read ({error.strerror}); its content is not in this point")

    def without_attributes(self, path: bytes, error: OSError) -> None:
        """The extended attributes of an entry are not in the point."""
        self.warn(path, f"its extended attributes cannot be read ({error.strerror}); they are not in this point")

    def changed(self, path: bytes) -> None:
        """A file is in the point, but not in one state."""
        self.warn(path, "changed while it was read; what was read may mix old and new")

    def lost(self, folder: Folder, error: KeepstoneError) -> None:
        """The parent's page of a directory is of no use."""
        self.warn(folder.path(), f"the last point's record of it is damaged ({error}); what is in it is looked at anew")
