# SPDX-License-Identifier: Apache-2.0
"""Restoring a point of files into a directory.

The tree is walked once. Its entries gather in a window of bounded size; then the window is carried out: first the
contents of its files, in the order of the packs, then everything that has none, then hard links, and last, deepest
first, the owners, modes and times of the directories that are complete. So memory does not grow with the tree.

Invariants
* Nothing is made, changed or removed but beneath the target (`beneath.py`).
* No inode is changed that this restore did not make, except directories: an existing entry either stays as it is or is
  replaced by a new one, which takes its name when it is complete. A hard link is made only to an inode that this
  restore made.
* What is acknowledged is durable. What could not be restored is absent and reported, never wrong.
"""

from __future__ import annotations

import contextlib
import os
import resource
import stat
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from keepstone.env import Env
from keepstone.errors import KeepstoneError, NotFound, TargetExists
from keepstone.objects import failure
from keepstone.store import Reader
from keepstone.workloads.files.page import UNREADABLE, Entry
from keepstone.workloads.files.restore.apply import REFUSED, Finisher
from keepstone.workloads.files.restore.beneath import Beneath, Directory
from keepstone.workloads.files.restore.conflicts import Conflicts
from keepstone.workloads.files.restore.contents import Contents
from keepstone.workloads.files.restore.existing import Existing
from keepstone.workloads.files.restore.nodes import Nodes
from keepstone.workloads.files.restore.options import RestoreOptions
from keepstone.workloads.files.restore.place import Place
from keepstone.workloads.files.restore.report import Findings, RestoreReport
from keepstone.workloads.files.tree import Step, detail, root_entry, select, traverse
from keepstone.workloads.progress import Progress
from keepstone.workloads.undisturbed import undisturbed

__all__ = ["folder_of", "restore_files"]

_WINDOW_SIZE = 512 << 20  # bytes of content in a window; they are not held
_WINDOW_ENTRIES = 40_000
_WINDOW_DIRECTORIES = 4096
"""A frame is opened once a window for all files that need it. 157,000 files, among them many copies: with windows of 64
MiB and 450 directories every third byte was decompressed a second time, half of them with these."""
_HELD = 64  # directories on the way down that stay open from one window to the next


def restore_files(env: Env, reader: Reader, target: Path, options: RestoreOptions, progress: Progress) -> RestoreReport:
    """Restore the point, or what is selected of it, beneath `target`; durable on return.

    What is damaged in the store, or refused by the operating system, is left out and reported. Raised before anything
    is written: `NotFound` for a path that the point does not have, `TargetExists`, `UsageError`, `AccessDenied`. Raised
    when it comes up, with no partial file left behind: `StorageFull`, `StorageError`, `HostileName`. A target that did
    not exist gets the owner and mode of the source's root with the whole point, and is its maker's alone otherwise.
    Interrupted, it leaves complete files only; killed, also others, which have not the times of the point's. An
    empty target that was made for it goes again when it fails.
    """
    return undisturbed(env, progress, lambda told: _restored(env, reader, target, options, told))


def folder_of(reader: Reader) -> Path:
    """The directory that the entries of the point were in: what a restore in place goes back to."""
    source = Path(os.fsdecode(reader.point.source))
    return source.parent if detail(reader).single else source


def _restored(env: Env, reader: Reader, target: Path, options: RestoreOptions, progress: Progress) -> RestoreReport:
    described = detail(reader)
    root = root_entry(described)
    selection = select(reader, options.paths)
    beneath, made = _target(env, target, options)
    try:
        if selection is None:
            progress.expect(reader.point.logical)
        findings = Findings(progress, str(target))
        finisher = Finisher(env, options, described, findings)
        restore = _Restore(env, reader, beneath, options, described.patterns, finisher, findings)
        restore.begin(root if selection is None else None)
        try:
            for step in traverse(reader, selection, restore.lose):
                restore.take(step)
            restore.end()
            beneath.sync()
        finally:
            restore.close()
    except BaseException as error:
        if made:
            with contextlib.suppress(OSError):  # it is not empty
                env.fs.rmdir(target)
        if isinstance(error, OSError):
            raise failure(error, str(target)) from error
        raise
    finally:
        beneath.close()
    return findings.report()


def _target(env: Env, target: Path, options: RestoreOptions) -> tuple[Beneath, bool]:
    """The target, and whether it was made for this."""
    made = True
    try:
        try:
            env.fs.mkdir(target, 0o700)
        except FileExistsError:
            made = False
            if not stat.S_ISDIR(env.fs.stat(target).st_mode):
                raise TargetExists(f"{target} is there and no directory; choose another target") from None
            if not options.in_place and env.fs.listdir(target):
                raise TargetExists(
                    f"{target} is there and not empty; choose another target, or restore in place"
                ) from None
        return Beneath(env, target), made
    except FileNotFoundError as error:
        raise NotFound(f"{target} cannot be made: what should lead there is missing; create that first") from error
    except OSError as error:
        raise failure(error, str(target)) from error


@dataclass(slots=True)
class _Level:
    """A directory on the way down.

    `path`: in the point. `place`: where it is beneath the target, None where it is not. `directory`: while it is open.
    `entry`: what it becomes, None: it is left as it is. `mode`: the permissions that it gets back then. `fresh`: this
    restore made it. `names`: what it may hold, where everything else is to go. `lost`: not all of what it holds is
    known.
    """

    path: bytes
    place: bytes | None = None
    directory: Directory | None = None
    entry: Entry | None = None
    mode: int | None = None
    fresh: bool = False
    names: set[bytes] | None = None
    lost: bool = False


class _Restore:
    def __init__(
        self,
        env: Env,
        reader: Reader,
        beneath: Beneath,
        options: RestoreOptions,
        patterns: list[str],
        finisher: Finisher,
        findings: Findings,
    ) -> None:
        self._fs = env.fs
        self._beneath = beneath
        self._options = options
        self._finisher = finisher
        self._findings = findings
        self._nodes = Nodes(env, beneath, finisher, findings)
        self._contents = Contents(env, reader, finisher, findings, self._nodes.remember, _WINDOW_SIZE)
        existing = Existing(env, reader, finisher, content=options.compare_content)
        self._conflicts = Conflicts(env, beneath, existing, self._nodes, options, patterns, findings)
        self._stack: list[_Level] = []
        self._complete: deque[_Level] = deque()
        self._late: list[_Level] = []
        self._planned = 0
        self._opened = 0
        self._descriptors = min(_WINDOW_DIRECTORIES, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)

    # ------------------------------------------------------------------ the walk

    def begin(self, root: Entry | None) -> None:
        """Start at the target; `root`: what it becomes itself."""
        names: set[bytes] | None = set() if self._options.delete and root is not None else None
        self._stack.append(_Level(b".", b"", self._beneath.open(b""), root, names=names))

    def take(self, step: Step) -> None:
        """Plan or carry out one step of the walk."""
        if step.leaving:
            self._complete.append(self._stack.pop())
            return
        level, entry = self._stack[-1], step.entry
        if level.names is not None:
            level.names.add(entry.name)
        if stat.S_ISDIR(entry.mode):
            self._stack.append(self._enter(level, step))
        elif level.place is not None:
            self._plan(level, step)
        self._planned += 1
        if (
            self._planned >= _WINDOW_ENTRIES
            or self._contents.size >= _WINDOW_SIZE
            or self._opened + self._contents.open_files >= self._descriptors
        ):
            self._flush()

    def lose(self, path: bytes, error: KeepstoneError) -> None:
        """A page of the directory that the walk is in cannot be read."""
        self._stack[-1].lost = True
        self._findings.fail(path or b".", f"a part of this directory is not restored: {error}")

    def end(self) -> None:
        """Complete what is left."""
        self._complete.append(self._stack.pop())
        self._flush()
        for level in self._late:
            self._finish(level)

    def close(self) -> None:
        """Let go of everything; what is not complete is removed."""
        self._contents.abort()
        for level in (*self._stack, *self._complete):
            self._let_go(level)

    def _flush(self) -> None:
        """Carry out the window."""
        self._contents.fetch()
        self._nodes.make()
        while self._complete:
            level = self._complete.popleft()
            if self._must_wait(level):
                self._let_go(level)
                self._late.append(level)
            else:
                self._finish(level)
        for level in self._stack[:-_HELD]:
            self._let_go(level)
        self._opened = len(self._stack[-_HELD:])
        self._planned = 0

    # ------------------------------------------------------------------ entries

    def _plan(self, level: _Level, step: Step) -> None:
        """Take an entry that is no directory into the window."""
        path, entry = step.path, step.entry
        if entry.extra.flags & UNREADABLE:
            self._findings.warn(path, "not restored: it could not be read when the point was made")
            return
        if not self._options.devices and (stat.S_ISBLK(entry.mode) or stat.S_ISCHR(entry.mode)):
            return
        try:
            directory = self._open(level)
            if self._options.in_place:
                place = self._conflicts.place(directory, path, entry, step.refs)
                if place is None:
                    return
                self._note(level, place)
            else:
                place = Place(directory, entry.name, path, entry)
        except REFUSED as error:
            self._findings.refuse(path, error)
            return
        if entry.extra.link is not None and self._nodes.is_link(place):
            return
        if stat.S_ISREG(entry.mode):
            self._contents.add(place, step.refs)
        else:
            self._nodes.add(place)

    @staticmethod
    def _note(level: _Level, place: Place) -> None:
        if level.names is not None:
            level.names.add(place.final or place.name)

    # ------------------------------------------------------------------ directories

    def _enter(self, level: _Level, step: Step) -> _Level:
        """Make or find the directory of this step."""
        entry, path = step.entry, step.path
        if level.place is None:
            return _Level(path)
        try:
            parent = self._open(level)
            name = entry.name
            found = self._conflicts.look(parent, name) if self._options.in_place else None
            if found is not None and not stat.S_ISDIR(found.st_mode):
                place = self._conflicts.resolve(parent, path, entry, found)
                if place is None:
                    return _Level(path)
                self._note(level, place)
                if place.final is not None:
                    self._fs.unlink(place.final, dir_fd=parent.fd)
                name, found = place.final or place.name, None
            if found is None:
                self._fs.mkdir(name, 0o700, dir_fd=parent.fd)
                self._findings.directories += 1
            else:
                self._unlock(parent, name, found)
            directory = self._beneath.enter(parent, name, fresh=found is None)
        except REFUSED as error:
            self._findings.refuse(path, error)
            return _Level(path)
        self._opened += 1
        inner = _Level(path, directory.path, directory, fresh=found is None)
        if inner.fresh or step.whole:
            inner.entry = entry
        mounted = directory.stat.st_dev != parent.stat.st_dev
        if self._options.delete and step.whole and not (mounted and not step.refs):  # what is mounted was not backed up
            inner.names = set()
        if entry.extra.flags & UNREADABLE:
            inner.lost = True
            self._findings.warn(path, "its content is not restored: it could not be read when the point was made")
        if found is not None:
            inner.mode = stat.S_IMODE(found.st_mode)
        return inner

    def _unlock(self, parent: Directory, name: bytes, found: os.stat_result) -> None:
        """Let the owner of an existing directory into it; `_finish` gives it its permissions again."""
        if self._finisher.owns or found.st_mode & 0o700 == 0o700:
            return
        fd = self._fs.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent.fd)
        try:
            with contextlib.suppress(PermissionError):  # somebody else's: what is to be made in it will tell
                self._fs.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(found.st_mode) | 0o700)
        finally:
            self._fs.close(fd)

    def _finish(self, level: _Level) -> None:
        """Everything in this directory is there now."""
        if level.place is None:
            return
        try:
            directory = self._open(level)
            if level.names is not None and not level.lost:
                self._conflicts.delete_extras(directory, level.names)
            if level.entry is not None:
                self._finisher.directory(directory, level.entry, level.path, fresh=level.fresh)
            elif level.mode is not None and level.mode != stat.S_IMODE(directory.stat.st_mode):
                self._fs.fchmod(directory.fd, level.mode)
        except REFUSED as error:
            self._findings.refuse(level.path, error)
        finally:
            self._let_go(level)

    def _must_wait(self, level: _Level) -> bool:
        """Whether a complete directory shuts its owner out, who may still have hard links to make to what is in it."""
        return not self._finisher.owns and level.entry is not None and level.entry.mode & 0o500 != 0o500

    def _open(self, level: _Level) -> Directory:
        if level.directory is None:
            assert level.place is not None
            level.directory = self._beneath.open(level.place)
            self._opened += 1
        return level.directory

    def _let_go(self, level: _Level) -> None:
        if level.directory is not None:
            level.directory.close()
            level.directory = None
