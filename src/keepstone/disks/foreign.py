# SPDX-License-Identifier: Apache-2.0
"""The disk in an image of a format, with its parents and data files.

Invariants
* Other files than the named one are looked for by their last name only: beside the image, or in folders that the caller
  gives. They are regular files, never links, and each is shown to the caller first.
* Tables are read in the jail, and what it answers is checked against the files before a byte is read by it.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from keepstone.disks import jail
from keepstone.disks.detecting import failures, signed
from keepstone.disks.layout import DATA, LARGEST, ZERO, Layout, Link, Runs, check
from keepstone.disks.mapped import MappedSource
from keepstone.disks.qcow2 import Qcow2Source
from keepstone.disks.vmdk import MOST_EXTENTS, Description, Piece
from keepstone.env import Env
from keepstone.errors import SourceFailed, SourceMissing, Unsupported, UsageError
from keepstone.objects import DirectFile, failure

__all__ = ["open_image"]

_LONGEST_CHAIN = 64


def open_image(
    env: Env, path: Path, format: str, folders: Sequence[Path], allowed: Callable[[Path], object] | None
) -> MappedSource | Qcow2Source:
    """See `open_disk`; `format` is none but raw."""
    with contextlib.ExitStack() as opened, contextlib.ExitStack() as passed:
        opener = _Opener(env, folders, allowed, opened, passed)
        file = opener.file(path, follow=True)
        if not signed(env, file.path, file.fd, format):
            raise UsageError(f"{path} is no {format.upper()} image; choose another --format")
        if format == "qcow2":
            return Qcow2Source(env, path, file.fd)
        disk = opener.disk(file, format)
        opened.pop_all()
        return disk


@dataclass(frozen=True, slots=True)
class _File:
    """A file of an image, open for the jail."""

    path: Path
    fd: int
    size: int
    inode: tuple[int, int]


class _Opener:
    """One call of `open_disk`. What the disk reads by is put on `opened`, what only the jail needs on `passed`."""

    def __init__(
        self,
        env: Env,
        folders: Sequence[Path],
        allowed: Callable[[Path], object] | None,
        opened: contextlib.ExitStack,
        passed: contextlib.ExitStack,
    ) -> None:
        self._env = env
        self._folders = folders
        self._allowed = allowed
        self._opened = opened
        self._passed = passed
        self._chain: list[_File] = []

    def file(self, path: Path, *, follow: bool = False) -> _File:
        """A regular file, open."""
        fs = self._env.fs
        link = 0 if follow else os.O_NOFOLLOW
        with failures(path):
            fd = fs.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | link)
            self._passed.callback(fs.close, fd)
            status = fs.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise UsageError(f"{path} is no regular file, so it is no image of a format; say --format raw")
        return _File(path, fd, status.st_size, (status.st_dev, status.st_ino))

    def _data(self, file: _File) -> tuple[str, DirectFile]:
        """The file, open for reading: the same one, whatever has its name by now."""
        with failures(file.path):
            data = DirectFile(self._env.fs, f"/proc/self/fd/{file.fd}")
        self._opened.callback(data.close)
        return str(file.path), data

    def disk(self, file: _File, format: str) -> MappedSource:
        """The disk in this image, with its parents."""
        for other in self._chain:
            if other.inode == file.inode:
                raise SourceFailed(f"{file.path} is its own parent, by way of {self._chain[-1].path}; it has no data")
        if len(self._chain) == _LONGEST_CHAIN:
            raise SourceFailed(f"{self._chain[0].path} has more than {_LONGEST_CHAIN} parents; merge some of them")
        self._chain.append(file)
        layout, files = self._of_description(file) if format == "vmdk" else (self._layouts(format, [file])[0], [file])
        with _about(file.path):
            check(layout, [each.size for each in files])
        parent = None if layout.parent is None else self._parent(file, layout.parent, format)
        return MappedSource(layout, [self._data(each) for each in files], parent)

    def _layouts(self, what: str, files: list[_File]) -> list[Layout]:
        if not files:
            return []
        with _about(files[0].path):
            return jail.parsed(self._env, what, [file.fd for file in files], sum(file.size for file in files))

    def _parent(self, child: _File, link: Link, format: str) -> MappedSource:
        file = self._beside(child.path, link.names, "its parent")
        if not signed(self._env, file.path, file.fd, format):
            raise SourceFailed(f"{file.path} is no {format.upper()} image, but {child.path} has it for a parent")
        parent = self.disk(file, format)
        if parent.id not in link.ids:
            raise SourceFailed(
                f"{file.path} is not the parent of {child.path}, or was changed since: it is {parent.id}, and "
                f"{' or '.join(link.ids) or 'nothing'} is needed; put the right one there"
            )
        return parent

    def _of_description(self, file: _File) -> tuple[Layout, list[_File]]:
        """A VMDK disk, of which `file` says what it is made of."""
        with _about(file.path):
            description = jail.described(self._env, file.fd, file.size)
        files: dict[str, _File] = {}
        for piece in description.pieces:
            if piece.kind != "zero" and piece.name not in files:
                files[piece.name] = self._beside(file.path, [piece.name], "a part of it") if piece.name else file
        sparse = list(dict.fromkeys(piece.name for piece in description.pieces if piece.kind == "sparse"))
        what = "vmdk-sparse" if description.parent is None else "vmdk-delta"
        parts = self._layouts(what, [files[name] for name in sparse])
        with _about(file.path):
            layout = _joined(description, [*files], dict(zip(sparse, parts, strict=True)))
        return layout, [*files.values()]

    def _beside(self, image: Path, names: Sequence[str], what: str) -> _File:
        """The first of these that is there. Of a path, whatever it is, only the last part is looked for."""
        wanted = list(dict.fromkeys(filter(None, map(_last, names))))
        if not wanted:
            raise SourceFailed(f"{image} does not say what {what} is called")
        for folder in (image.parent, *self._folders):
            for name in wanted:
                path = folder / name
                try:
                    kind = self._env.fs.lstat(path).st_mode
                except FileNotFoundError:
                    continue
                except OSError as error:
                    raise failure(error, str(path), missing=SourceMissing, other=SourceFailed) from error
                if not stat.S_ISREG(kind):
                    raise SourceFailed(f"{path} is {what}, and is no regular file; put the file itself there")
                if self._allowed is not None:
                    self._allowed(path)
                return self.file(path)
        raise SourceMissing(f"{image}: {what} is missing, {' or '.join(wanted)}; put it beside the image")


def _last(name: str) -> str:
    """The last part of a path of any system; nothing where it has none that is a name."""
    last = re.split(r"[/\\]", name)[-1]
    return "" if last in (".", "..") or "\0" in last or len(last.encode("utf-8", "replace")) > 255 else last


def _joined(description: Description, names: list[str], parts: dict[str, Layout]) -> Layout:
    """The whole disk, of its pieces."""
    pieces = description.pieces
    if len(pieces) > MOST_EXTENTS or any(not 0 <= piece.size <= LARGEST for piece in pieces):
        raise SourceFailed("its description makes no sense")
    _check_pieces(pieces)
    link = None if description.parent is None else Link(description.parent[:1], description.parent[1:])
    if len(pieces) == 1 and pieces[0].kind == "sparse":
        return replace(parts[pieces[0].name], id=description.id, parent=link)
    runs = Runs(sum(piece.size for piece in pieces))
    unit = 0
    for piece in pieces:
        if piece.kind == "zero":
            runs.run(ZERO, piece.size)
            continue
        file = names.index(piece.name)
        part = parts.get(piece.name)
        if piece.kind == "flat":
            flat = Runs(piece.size)
            flat.run(DATA, piece.size, piece.offset)
            runs.layout_of(flat.layout(), file)
            continue
        if part is None or part.size != piece.size or (unit and part.unit not in (0, unit)):
            raise SourceFailed("its data files do not fit its description")
        check(part, [1 << 62])  # only in itself: its file is known to the whole
        unit = unit or part.unit
        runs.layout_of(part, file)
    return replace(runs.layout(unit=unit), id=description.id, parent=link)


def _check_pieces(pieces: Sequence[Piece]) -> None:
    """No byte of a file is in two pieces."""
    end: dict[str, int] = {}
    for piece in sorted(pieces, key=lambda piece: piece.offset):
        if piece.kind != "zero":
            if piece.offset < end.get(piece.name, 0):
                raise SourceFailed(f"its description gives the same part of {piece.name} to two places; it is damaged")
            end[piece.name] = piece.offset + piece.size


@contextlib.contextmanager
def _about(path: Path) -> Iterator[None]:
    """What is wrong with an image names it."""
    try:
        yield
    except SourceFailed as error:
        raise SourceFailed(f"{path}: {error}; take another copy of it, or see what `qemu-img check` says") from error
    except Unsupported as error:
        raise Unsupported(f"{path}: {error}") from error
