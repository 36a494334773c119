# SPDX-License-Identifier: Apache-2.0
"""Back up a directory tree, or one file, of this machine.

What cannot be read, vanishes or changes meanwhile is reported, and the point is good without it. Only a source that is
not there at all, or whose root cannot be read, makes none.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from keepstone.env import Env, FileSystem
from keepstone.errors import SourceFailed, SourceMissing, UsageError
from keepstone.objects import failure
from keepstone.store import Chunks, Lane, Node, Outcome, PointRecord, Scratch, Writer, cut_file
from keepstone.workloads.directories.ahead import WORTH, Ahead
from keepstone.workloads.directories.scan import Listing
from keepstone.workloads.files.backup.folders import Folder
from keepstone.workloads.files.backup.metadata import Attributes
from keepstone.workloads.files.backup.table import to_page
from keepstone.workloads.files.backup.tally import Tally
from keepstone.workloads.files.backup.traversal import Traversal
from keepstone.workloads.files.page import Detail, Extra, encode_page
from keepstone.workloads.files.selection import Rules, Selection
from keepstone.workloads.progress import Progress

__all__ = ["Report", "backup_files", "dry_run"]

Source = bytes | str | os.PathLike[str] | os.PathLike[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a backup did, or would do. `commit`: the id of the point, empty for a dry run.

    `files`: all that is no directory; `unchanged`: those of them that were taken from the parent. `bytes`: the size of
    all regular files, each name of one counted; `read`: what was read of them. `warnings`: how often something could
    not be taken as it is; `Progress.warn` was told of each.
    """

    commit: str = ""
    files: int
    directories: int
    bytes: int
    read: int
    unchanged: int
    warnings: int


def backup_files(env: Env, writer: Writer, source: Source, selection: Selection, progress: Progress) -> Report:
    """Make a point of a directory tree or a regular file. A symbolic link given as the source itself is followed.

    `SourceMissing`, `AccessDenied`, `SourceFailed`, `UsageError` (neither a directory nor a regular file, or a pattern
    that is none): nothing is committed then, and the writer has been aborted.
    """
    path = os.path.abspath(os.fsencode(source))
    traversal: Traversal | None = None
    ahead: Ahead | None = None
    tally = Tally(progress)
    try:
        rules = selection.compile(env)
        with _failures(path):
            root, only = _open(env.fs, path)
            if not only and _may_look_ahead(env, writer, rules):
                ahead = Ahead(root.fd, writer.lane, device=root.device if rules.one_file_system else None)
            traversal = Traversal(env, writer, rules, root, tally, ahead=ahead)
            described = b"" if only else _root_page(env.fs, root, tally)
            if writer.parent is not None:
                progress.expect(writer.parent.logical)
            with writer.lane.taken():
                traversal.run(only)
        if only and not traversal.root_refs:
            raise SourceMissing(f"{os.fsdecode(path)}: it vanished while it was backed up; nothing was committed")
        detail = Detail(
            root=described,
            single=only is not None,
            users=_names(tally.users, lambda uid: pwd.getpwuid(uid).pw_name),
            groups=_names(tally.groups, lambda gid: grp.getgrgid(gid).gr_name),
            patterns=rules.patterns,
        )
        commit = writer.commit(
            Outcome(
                root=traversal.root_refs,
                detail=msgspec.msgpack.encode(detail),
                source=path,
                logical=tally.size,
                read=tally.read,
                files=tally.files,
                warnings=tally.warnings,
            )
        )
        return _report(tally, commit)
    except BaseException:
        writer.abort()  # before the descriptors go that workers may be using
        raise
    finally:
        if ahead is not None:
            ahead.close()
        if traversal is not None:
            traversal.close()


def _may_look_ahead(env: Env, writer: Writer, rules: Rules) -> bool:
    """Whether another process would see the same, and is worth it."""
    same = type(env.fs) is FileSystem and not rules.selective and not rules.skip_caches
    return same and env.threads > 1 and writer.parent is not None and writer.parent.files >= WORTH


def dry_run(
    env: Env,
    source: Source,
    selection: Selection,
    progress: Progress,
    listed: Callable[[bytes, int], None] | None = None,
) -> Report:
    """What `backup_files` would take, without reading a file: the same errors, and warnings but for what reading shows.

    `listed` is told path and size of everything that is no directory.
    """
    path = os.path.abspath(os.fsencode(source))
    rules = selection.compile(env)
    tally = Tally(progress)
    with _failures(path):
        root, only = _open(env.fs, path)
        traversal = Traversal(env, _Nowhere(), rules, root, tally, read=False, listed=listed)
        try:
            traversal.run(only)
        finally:
            traversal.close()
    return _report(tally, "")


def _report(tally: Tally, commit: str) -> Report:
    return Report(
        commit=commit,
        files=tally.files,
        directories=tally.directories,
        bytes=tally.size,
        read=tally.read,
        unchanged=tally.unchanged,
        warnings=tally.warnings,
    )


def _open(fs: FileSystem, path: bytes) -> tuple[Folder, bytes | None]:
    """The source's directory, and the name in it where the source is one file. `OSError`, `UsageError`."""
    kind = fs.stat(path).st_mode
    only = None
    if not stat.S_ISDIR(kind):
        if not stat.S_ISREG(kind):
            raise UsageError(
                f"{os.fsdecode(path)} is neither a directory nor a regular file; back a block device up as an image"
            )
        while stat.S_ISLNK(fs.lstat(path).st_mode):
            path = os.path.join(os.path.dirname(path), fs.readlink(path))
        path, only = os.path.split(path)
    fd = fs.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if only:
            fs.close(fs.open(only, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd))
        status = fs.stat(b".", dir_fd=fd)  # not fstat: this fails where nothing in it can be reached
    except BaseException:
        fs.close(fd)
        raise
    return Folder(None, path, status.st_dev, status.st_ino, fd), only


def _root_page(fs: FileSystem, root: Folder, tally: Tally) -> bytes:
    """`Detail.root`."""
    status = fs.fstat(root.fd)
    xattrs: dict[bytes, bytes] = {}
    try:
        xattrs = Attributes(fs).read(root.fd, status.st_dev)
    except OSError as error:
        tally.without_attributes(root.path(), error)
    table = Listing(b".\0", [status]).seen.table
    return encode_page(to_page(b".\0", table, [0], {0: Extra(xattrs=xattrs)} if xattrs else {}))


def _names(numbers: Iterable[int], name: Callable[[int], str]) -> dict[int, str]:
    """The names of these users or groups, as far as they have any."""
    names = {}
    for number in sorted(numbers):
        with suppress(KeyError):
            names[number] = name(number)
    return names


@contextmanager
def _failures(path: bytes) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise failure(error, os.fsdecode(path), missing=SourceMissing, other=SourceFailed) from error


class _Nowhere:
    """A `Writer` that keeps nothing and has no parent. What it does not do, a dry run does not ask for."""

    parent: PointRecord | None = None
    cut = staticmethod(cut_file)

    @property
    def lane(self) -> Lane:
        return Lane()  # nobody is beside it

    def submit(
        self, read: Callable[[Scratch], Chunks], done: Callable[[list[int], Any], None], *, short_calls: bool = False
    ) -> None:
        raise NotImplementedError("a dry run reads no file")

    def drain(self) -> None:
        """Nothing is under way."""

    def put_node(self, kind: str, chunks: list[int], children: list[int], body: bytes) -> int:
        return 0

    def node(self, ref: int) -> Node:
        raise NotImplementedError("a dry run has no parent")

    def chunk_refs(self, node: Node) -> list[int]:
        return []

    def child_refs(self, node: Node) -> list[int]:
        return []

    def parent_root(self) -> list[int]:
        return []

    def fingerprints(self, disk: str) -> None:
        return None

    def usable(self, refs: list[int]) -> list[int] | None:
        return refs

    def shareable(self, node: Node) -> bool:
        return False

    def commit(self, outcome: Outcome) -> str:
        return ""

    def abort(self) -> None:
        """There is nothing to give up."""
