# SPDX-License-Identifier: Apache-2.0
"""A directory that shows one state after another, writing only what differs.

A check may change anything in it: files are recognised as untouched by a modification time that only the stage gives
out, with nanoseconds that count up. Contents are never changed in place, so that a mapping or descriptor left over from
the last state keeps its own file. A store through a mapping alone leaves no trace in the time; such files (`MAPPED`)
are no part of a state.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.crash.replay import Node

__all__ = ["Stage"]

_EPOCH = 10**18  # ns; in 2001, so no file that somebody else writes has such a time


@dataclass(frozen=True, slots=True)
class _Shown:
    digest: bytes
    mode: int
    mtime: int  # ns


class Stage:
    """Shows trees in the directory `root`, which it makes and owns."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True)
        self._shown: dict[str, _Shown] = {}
        self._clock = _EPOCH

    def show(self, tree: Mapping[str, Node]) -> None:
        """Make the directory hold exactly `tree`."""
        kept: set[str] = set()
        self._clear("", tree, kept)
        for path in sorted(tree.keys() - kept):
            node, target = tree[path], os.path.join(self.root, path)
            if node.blob is None:
                os.mkdir(target)
                os.chmod(target, node.mode)
            else:
                self._write(path, target, node.mode, node.blob.data, node.blob.digest)

    def _write(self, path: str, target: str, mode: int, data: bytes, digest: bytes) -> None:
        self._clock += 1
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            os.fchmod(fd, mode)
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.utime(fd, ns=(self._clock, self._clock))
        finally:
            os.close(fd)
        self._shown[path] = _Shown(digest, mode, self._clock)

    def _clear(self, prefix: str, tree: Mapping[str, Node], kept: set[str]) -> None:
        """Remove what `tree` does not want below `prefix`; add to `kept` what already is as wanted."""
        with os.scandir(os.path.join(self.root, prefix)) as entries:
            for entry in entries:
                path = prefix + entry.name
                node = tree.get(path)
                if entry.is_dir(follow_symlinks=False):
                    if node and node.blob is None:
                        kept.add(path)
                        os.chmod(entry.path, node.mode)
                        self._clear(f"{path}/", tree, kept)
                    else:
                        shutil.rmtree(entry.path)
                elif node and node.blob and self._untouched(path, entry, node, node.blob.digest):
                    kept.add(path)
                else:
                    os.unlink(entry.path)

    def _untouched(self, path: str, entry: os.DirEntry[str], node: Node, digest: bytes) -> bool:
        shown = self._shown.get(path)
        if not shown or shown.digest != digest or shown.mode != node.mode:
            return False
        return entry.stat(follow_symlinks=False).st_mtime_ns == shown.mtime
