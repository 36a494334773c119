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

import errno
import os
import resource
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from keepstone.env import Env
from keepstone.errors import KeepstoneError, NotFound, TargetExists
from keepstone.objects import failure
from keepstone.store import Reader
from keepstone.workloads.files.apply import REFUSED, Finisher
from keepstone.workloads.files.beneath import Beneath, Directory
from keepstone.workloads.files.contents import Contents, Place
from keepstone.workloads.files.existing import Existing
from keepstone.workloads.files.options import Conflict, RestoreOptions
from keepstone.workloads.files.page import Entry
from keepstone.workloads.files.report import Findings, RestoreReport
from keepstone.workloads.files.tree import UNREADABLE, Step, detail, root_entry, select, traverse
from keepstone.workloads.progress import Progress

__all__ = ["restore_files"]

_WINDOW_SIZE = 64 << 20  # bytes of content in a window
_WINDOW_ENTRIES = 20_000
_HELD = 64  # directories on the way down that stay open from one window to the next
_NODES = {stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK}
_HANDLE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def restore_files(env: Env, reader: Reader, target: Path, options: RestoreOptions, progress: Progress) -> RestoreReport:
    """Restore the point, or what is selected of it, beneath `target`; durable on return.

    What is damaged in the store, or refused by the operating system, is left out and reported. Raised before anything
    is written: `NotFound` for a path that the point does not have, `TargetExists`, `UsageError`, `AccessDenied`. Raised
    when it comes up, with no partial file left behind: `StorageFull`, `StorageError`, `HostileName`.
    """
    described = detail(reader)
    root = root_entry(described)
    selection = select(reader, options.paths)
    beneath = _target(env, target, options)
    try:
        if selection is None:
            progress.expect(reader.point.logical)
        findings = Findings(progress)
        finisher = Finisher(env, options, described, findings)
        restore = _Restore(env, reader, beneath, options, finisher, findings)
        restore.begin(root if selection is None else None)
        try:
            for step in traverse(reader, selection, restore.lose):
                restore.take(step)
            restore.end()
            beneath.sync()
        finally:
            restore.close()
    except OSError as error:
        raise failure(error, str(target)) from error
    finally:
        beneath.close()
    return findings.report()


def _target(env: Env, target: Path, options: RestoreOptions) -> Beneath:
    try:
        try:
            env.fs.mkdir(target, 0o700)
        except FileExistsError:
            if not stat.S_ISDIR(env.fs.stat(target).st_mode):
                raise TargetExists(f"{target} is there and no directory; choose another target") from None
            if not options.in_place and env.fs.listdir(target):
                raise TargetExists(
                    f"{target} is there and not empty; choose another target, or restore in place"
                ) from None
        return Beneath(env, target)
    except OSError as error:
        raise failure(error, str(target), missing=NotFound) from error


@dataclass(slots=True)
class _Level:
    """A directory on the way down. `path`: where it is beneath the target, None where it could not be made.

    `names`: what it may hold, where everything else is to go.
    """

    step: Step | None
    path: bytes | None
    directory: Directory | None
    fresh: bool
    entry: Entry | None
    names: set[bytes] | None = None
    lost: bool = False


@dataclass(slots=True)
class _Inode:
    """One that this restore made and that has more names: where, which, and how many names are to come at most."""

    path: bytes
    identity: tuple[int, int]
    left: int


@dataclass(slots=True)
class _Window:
    """What waits for the contents to be there."""

    others: list[tuple[Place, Entry]] = field(default_factory=list)
    links: list[tuple[Place, Entry]] = field(default_factory=list)
    complete: list[_Level] = field(default_factory=list)
    opened: int = 0


class _Restore:
    def __init__(
        self,
        env: Env,
        reader: Reader,
        beneath: Beneath,
        options: RestoreOptions,
        finisher: Finisher,
        findings: Findings,
    ) -> None:
        self._env = env
        self._fs = env.fs
        self._beneath = beneath
        self._options = options
        self._finisher = finisher
        self._findings = findings
        self._contents = Contents(env, reader, finisher, findings, self._remember, _WINDOW_SIZE)
        self._existing = Existing(env, reader, finisher, content=options.compare_content)
        self._stack: list[_Level] = []
        self._window = _Window()
        self._late: list[_Level] = []
        self._inodes: dict[tuple[int, int], _Inode | None] = {}
        self._kept: dict[tuple[int, int], tuple[int, int]] = {}
        self._descriptors = min(512, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)

    # ------------------------------------------------------------------ the walk

    def begin(self, root: Entry | None) -> None:
        """Start at the target; `root`: what it becomes itself."""
        self._stack.append(_Level(None, b"", self._beneath.open(b""), False, root, self._new_names(root is not None)))

    def take(self, step: Step) -> None:
        """Plan or carry out one step of the walk."""
        if step.leaving:
            self._window.complete.append(self._stack.pop())
        else:
            level = self._stack[-1]
            if level.names is not None:
                level.names.add(step.entry.name)
            if stat.S_ISDIR(step.entry.mode):
                self._stack.append(self._enter(level, step))
            elif level.path is not None:
                self._plan(level, step)
        window, contents = self._window, self._contents
        if (
            contents.size >= _WINDOW_SIZE
            or contents.requests + len(window.others) + len(window.links) >= _WINDOW_ENTRIES
            or window.opened + contents.open_files >= self._descriptors
        ):
            self._flush()

    def lose(self, path: bytes, error: KeepstoneError) -> None:
        """A page of the directory that the walk is in cannot be read."""
        self._stack[-1].lost = True
        self._findings.fail(path or b".", f"a part of this directory is not restored: {error}")

    def end(self) -> None:
        """Complete what is left."""
        self._window.complete.append(self._stack.pop())
        self._flush()
        late, self._late = self._late, []
        for level in late:
            self._complete(level)

    def close(self) -> None:
        """Let go of everything; what is not complete is removed."""
        self._contents.abort()
        for level in (*self._stack, *self._window.complete):
            self._let_go(level)

    # ------------------------------------------------------------------ directories

    def _new_names(self, whole: bool) -> set[bytes] | None:
        return set() if self._options.delete and whole else None

    def _directory(self, level: _Level) -> Directory:
        if level.directory is None:
            assert level.path is not None
            level.directory = self._beneath.open(level.path)
            self._window.opened += 1
        return level.directory

    def _let_go(self, level: _Level) -> None:
        if level.directory is not None:
            level.directory.close()
            level.directory = None

    def _enter(self, level: _Level, step: Step) -> _Level:
        """Make or find the directory of this step."""
        nothing = _Level(step, None, None, False, None)
        if level.path is None:
            return nothing
        entry = step.entry
        try:
            parent = self._directory(level)
            name, found = entry.name, None
            if self._options.in_place:
                found = self._look(parent, name)
            if found is not None and not stat.S_ISDIR(found.st_mode):
                place = self._resolve(level, parent, step, found)
                if place is None:
                    return nothing
                if place.final is not None:
                    self._fs.unlink(place.final, dir_fd=parent.fd)
                name, found = place.final or place.name, None
            if found is None:
                self._fs.mkdir(name, 0o700, dir_fd=parent.fd)
                self._findings.directories += 1
            directory = self._beneath.enter(parent, name, fresh=found is None)
        except REFUSED as error:
            self._findings.refuse(step.path, error)
            return nothing
        self._window.opened += 1
        fresh = found is None
        unreadable = bool(entry.extra.flags & UNREADABLE)
        if unreadable:
            self._findings.warn(step.path, "empty: it could not be read when the point was made")
        wanted = entry if fresh or step.whole else None
        return _Level(step, directory.path, directory, fresh, wanted, self._new_names(step.whole), unreadable)

    def _complete(self, level: _Level) -> None:
        """Finish a directory, of which everything is there that will be."""
        if level.path is None:
            return
        path = level.step.path if level.step is not None else b"."
        try:
            directory = self._directory(level)
            if level.names is not None and not level.lost:
                self._delete_extras(directory, level.names)
            if level.entry is not None:
                self._finisher.directory(directory, level.entry, path, fresh=level.fresh)
        except REFUSED as error:
            self._findings.refuse(path, error)
        finally:
            self._let_go(level)

    def _delete_extras(self, directory: Directory, names: set[bytes]) -> None:
        for name in directory.names():
            if name not in names:
                path = directory.child(name)
                try:
                    self._findings.deleted += self._beneath.remove(path)
                except OSError as error:
                    self._findings.warn(path, f"not removed: {error.strerror}")

    # ------------------------------------------------------------------ entries

    def _plan(self, level: _Level, step: Step) -> None:
        path, entry = step.path, step.entry
        if entry.extra.flags & UNREADABLE:
            self._findings.warn(path, "not restored: it could not be read when the point was made")
            return
        device = stat.S_ISBLK(entry.mode) or stat.S_ISCHR(entry.mode)
        if device and not self._options.devices:
            return
        try:
            directory = self._directory(level)
            place: Place | None = Place(directory, entry.name, path)
            if self._options.in_place:
                place = self._replacement(level, directory, step)
        except REFUSED as error:
            self._findings.refuse(path, error)
            return
        if place is None:
            return
        link = entry.extra.link
        if link is not None:
            key = (link[0], entry.inode)
            if key in self._inodes:
                self._window.links.append((place, entry))
                return
            self._inodes[key] = None
        if stat.S_ISREG(entry.mode):
            self._contents.add(place, entry, step.refs)
        else:
            self._window.others.append((place, entry))

    def _look(self, directory: Directory, name: bytes) -> os.stat_result | None:
        try:
            return self._fs.stat(name, dir_fd=directory.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _replacement(self, level: _Level, directory: Directory, step: Step) -> Place | None:
        """Where to make an entry of a restore in place; None where what is there stays."""
        entry = step.entry
        found = self._look(directory, entry.name)
        if found is None:
            return Place(directory, entry.name, step.path)
        same = self._existing.same(directory, entry.name, entry, step.refs)
        if same is not None and self._may_stay(same, entry):
            self._findings.unchanged += 1
            self._findings.progress.advance(entry.size, 1, entry.size)
            return None
        return self._resolve(level, directory, step, found)

    def _may_stay(self, found: os.stat_result, entry: Entry) -> bool:
        """Whether an existing entry with several names is still one inode with those seen before."""
        if entry.extra.link is None:
            return True
        key = (entry.extra.link[0], entry.inode)
        identity = (found.st_dev, found.st_ino)
        return key not in self._inodes and self._kept.setdefault(key, identity) == identity

    def _resolve(self, level: _Level, directory: Directory, step: Step, found: os.stat_result) -> Place | None:
        """What the options say of an existing entry that is not as in the point."""
        name = step.entry.name
        if self._options.conflict is Conflict.SKIP:
            self._findings.skipped += 1
            return None
        if self._options.conflict is Conflict.KEEP_BOTH:
            other = self._free_name(directory, name)
            if level.names is not None:
                level.names.add(other)
            self._findings.kept.append((step.path, directory.child(other)))
            return Place(directory, other, step.path)
        if stat.S_ISDIR(found.st_mode):
            if self._options.delete:
                self._findings.deleted += self._beneath.remove(directory.child(name))
            else:
                try:
                    self._fs.rmdir(name, dir_fd=directory.fd)
                except OSError as error:
                    if error.errno == errno.ENOTEMPTY:
                        raise ValueError("a directory with other files is in its place") from error
                    raise
            return Place(directory, name, step.path)
        temporary = b".keepstone-" + self._env.random(8).hex().encode()
        return Place(directory, temporary, step.path, final=name)

    def _free_name(self, directory: Directory, name: bytes) -> bytes:
        number = 1
        while True:
            other = name + (b".restored" if number == 1 else b".restored-%d" % number)
            if self._look(directory, other) is None:
                return other
            number += 1

    def _remember(self, fd: int, entry: Entry, place: Place) -> None:
        """A new inode that is to have more names."""
        found = self._fs.fstat(fd)
        device, names = entry.extra.link or (0, 1)
        self._inodes[device, entry.inode] = _Inode(place.lasting, (found.st_dev, found.st_ino), names - 1)

    # ------------------------------------------------------------------ the window

    def _flush(self) -> None:
        """Carry out the window."""
        self._contents.fetch()
        window, self._window = self._window, _Window()
        try:
            for place, entry in window.others:
                self._make(place, entry, self._make_node)
            for place, entry in window.links:
                self._make(place, entry, self._make_link)
            while window.complete:
                level = window.complete.pop(0)
                if self._must_wait(level):
                    self._let_go(level)
                    self._late.append(level)
                else:
                    self._complete(level)
        finally:
            for level in window.complete:
                self._let_go(level)
        for level in self._stack[:-_HELD]:
            self._let_go(level)
        self._window.opened = len(self._stack[-_HELD:])

    def _must_wait(self, level: _Level) -> bool:
        """Whether a complete directory shuts its owner out, who may still have hard links to make to what is in it."""
        return not self._finisher.owns and level.entry is not None and level.entry.mode & 0o500 != 0o500

    def _make(self, place: Place, entry: Entry, make: Callable[[Place, Entry], None]) -> None:
        directory = place.directory.fd
        made = False
        try:
            make(place, entry)
            made = True
            if place.final is not None:
                self._fs.rename(place.name, place.final, src_dir_fd=directory, dst_dir_fd=directory)
            self._findings.files += 1
            self._findings.progress.advance(0, 1)
        except REFUSED as error:
            if made:
                self._fs.unlink(place.name, dir_fd=directory)
            self._findings.refuse(place.path, error)

    def _make_node(self, place: Place, entry: Entry) -> None:
        """Make what is neither a regular file nor a directory."""
        kind, directory = stat.S_IFMT(entry.mode), place.directory.fd
        if kind == stat.S_IFLNK:
            self._fs.symlink(entry.extra.target, place.name, dir_fd=directory)
        elif kind in _NODES:
            self._fs.mknod(place.name, kind | 0o600, entry.extra.rdev, dir_fd=directory)
        else:
            raise ValueError(f"the point has it as a kind of file that does not exist, {kind:#o}")
        fd = self._fs.open(place.name, _HANDLE, dir_fd=directory)
        try:
            if stat.S_IFMT(self._fs.fstat(fd).st_mode) != kind:
                raise ValueError("somebody else replaced it meanwhile")
            self._finisher.node(fd, entry, place.directory, place.path)
            if entry.extra.link is not None:
                self._remember(fd, entry, place)
        finally:
            self._fs.close(fd)

    def _make_link(self, place: Place, entry: Entry) -> None:
        """Give an inode that this restore made one more name."""
        key = (entry.extra.link[0] if entry.extra.link else 0, entry.inode)
        inode = self._inodes.get(key)
        if inode is None:
            raise ValueError("its other name could not be restored")
        parent, _, name = inode.path.rpartition(b"/")
        directory = self._beneath.open(parent)
        try:
            fd = self._fs.open(name, _HANDLE, dir_fd=directory.fd)
        finally:
            directory.close()
        try:
            found = self._fs.fstat(fd)
            if (found.st_dev, found.st_ino) != inode.identity:
                raise ValueError("somebody else replaced its other name meanwhile")
            self._fs.link(f"/proc/self/fd/{fd}", place.name, dst_dir_fd=place.directory.fd)  # this inode, no name
        finally:
            self._fs.close(fd)
        inode.left -= 1
        if not inode.left:
            del self._inodes[key]
