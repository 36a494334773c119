# SPDX-License-Identifier: Apache-2.0
"""What a restore in place does about what is there already.

An existing entry stays untouched, as the same or because it is to be skipped, or is replaced by a new inode: nothing is
ever written into an inode that this restore did not make, which might have another name outside of the target.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from keepstone.env import Env
from keepstone.workloads.files.page import Entry
from keepstone.workloads.files.restore.beneath import Beneath, Directory
from keepstone.workloads.files.restore.existing import Existing
from keepstone.workloads.files.restore.nodes import Nodes
from keepstone.workloads.files.restore.options import Conflict, RestoreOptions
from keepstone.workloads.files.restore.place import Place
from keepstone.workloads.files.restore.report import Findings
from keepstone.workloads.files.selection import CACHE_TAG, Selection

__all__ = ["Conflicts"]


class Conflicts:
    """Decides where an entry is made; raises `OSError`, and `ValueError` with the reason where there is no way.

    `patterns`: of the point. What they kept out of it is no reason to remove it.
    """

    def __init__(
        self,
        env: Env,
        beneath: Beneath,
        existing: Existing,
        nodes: Nodes,
        options: RestoreOptions,
        patterns: Sequence[str],
        findings: Findings,
    ) -> None:
        self._env = env
        self._fs = env.fs
        self._beneath = beneath
        self._existing = existing
        self._nodes = nodes
        self._options = options
        self._findings = findings
        self._rules = Selection.of_record(patterns).compile(env)

    def _spared(self, path: bytes, is_directory: bool) -> bool:
        return self._rules.selective and not self._rules.takes(os.fsdecode(path), is_directory)

    def _stays_empty(self, path: bytes) -> bool:
        """Whether no point has this directory, as it has nothing that its patterns took."""
        return not self._rules.keeps_empty(os.fsdecode(path))

    def look(self, directory: Directory, name: bytes) -> os.stat_result | None:
        """What has this name; None where nothing has."""
        try:
            return self._fs.stat(name, dir_fd=directory.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def place(self, directory: Directory, path: bytes, entry: Entry, refs: list[int]) -> Place | None:
        """Where to make an entry that is no directory; None where what is there stays."""
        found = self.look(directory, entry.name)
        if found is None:
            return Place(directory, entry.name, path, entry)
        if not self._nodes.has_inode(entry) and self._existing.same(directory, entry.name, entry, refs):
            self._findings.unchanged += 1
            self._findings.progress.advance(entry.size, 1, entry.size)
            return None
        return self.resolve(directory, path, entry, found)

    def resolve(self, directory: Directory, path: bytes, entry: Entry, found: os.stat_result) -> Place | None:
        """The same for an existing entry that is not what the point has."""
        if self._options.conflict is Conflict.SKIP:
            self._findings.skipped += 1
            return None
        if self._options.conflict is Conflict.KEEP_BOTH:
            other = self._free_name(directory, entry.name)
            self._findings.kept.append((path, directory.child(other)))
            return Place(directory, other, path, entry)
        if stat.S_ISDIR(found.st_mode):
            self._remove_directory(directory, entry.name)
            return Place(directory, entry.name, path, entry)
        temporary = b".keepstone-" + self._env.random(8).hex().encode()
        return Place(directory, temporary, path, entry, final=entry.name)

    def _remove_directory(self, directory: Directory, name: bytes) -> None:
        if self._options.delete:
            self._findings.deleted += self._remove(directory.child(name))
            if self.look(directory, name) is not None:
                raise ValueError("a directory has its name, with files that were excluded from the point; move it")
            return
        try:
            self._fs.rmdir(name, dir_fd=directory.fd)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            raise ValueError(
                "a directory with other files has its name; move it, or allow deletion (`--delete`)"
            ) from error

    def _remove(self, path: bytes) -> int:
        return self._beneath.remove(path, self._spared, self._stays_empty)

    def _free_name(self, directory: Directory, name: bytes) -> bytes:
        other, number = name + b".restored", 1
        while self.look(directory, other) is not None:
            number += 1
            other = name + b".restored-%d" % number
        return other

    def delete_extras(self, directory: Directory, names: set[bytes]) -> None:
        """Remove what has none of these names and was not excluded from the point.

        Whether caches were excluded, a point does not say: of a cache it has all, or only the tag, and then what is in
        it stays.
        """
        only_tag = CACHE_TAG in names and all(
            name.startswith(CACHE_TAG) for name in names
        )  # with what is kept beside it
        if only_tag and self._rules.is_cache(directory.fd):
            return
        for name in directory.names():
            if name not in names:
                path = directory.child(name)
                try:
                    self._findings.deleted += self._remove(path)
                except OSError as error:
                    self._findings.warn(path, f"not removed: {error.strerror}")
