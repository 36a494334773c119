# SPDX-License-Identifier: Apache-2.0
"""Files and folders out of the disks of a point into a guest that runs, by its agent.

Invariants
* A file is whole or not there. It is written into a folder of ours beside its place, `FOLDER`, gets its owner, mode and
  time there, and comes to its place by a rename, or by a link where nothing may be overwritten.
* Nothing is followed: beneath the folder that stands for the volume, what is a symbolic link in the guest is no folder
  to go through. (Somebody in the guest who puts one there at that very moment has the guest anyway.)
* What is in the way is found before anything is written, and then decided by `conflict`.
* A restore that was killed can be made again. Folders are `UNFINISHED` until all is in them, and one that is found so
  is finished; files that are there as the point has them are taken for those of the first attempt (`again`).
* `FOLDER` goes with its last file, also after a failure or an interrupt, and where we are killed: `tidier`. One that is
  left all the same, as the agent was gone, goes with the next restore into the same folder: there is one of a guest at
  a time (`filesback.py`), so nobody else can be using it.
* Names come from the point, where they were checked (`files/names.py`): none has a slash. The agent is told them in
  UTF-8; what has another name is left out, and said.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from keepstone.env import Env
from keepstone.errors import AccessDenied, KeepstoneError, NotFound, TargetExists, UsageError
from keepstone.workloads.files.restore.options import Conflict
from keepstone.workloads.inside.guest import Inside
from keepstone.workloads.inside.seen import SECOND, UNFINISHED, Seen, seen
from keepstone.workloads.inside.tidier import Tidier
from keepstone.workloads.machines.stillness import AgentFailed, AgentRefused
from keepstone.workloads.progress import Progress
from keepstone.workloads.salvage import DAMAGE
from keepstone.workloads.undisturbed import undisturbed

if TYPE_CHECKING:
    from keepstone.workloads.files import Entry, Tree
    from keepstone.workloads.files.browse import Found

__all__ = ["FOLDER", "IntoGuest", "Wanted", "restore_into_guest"]

FOLDER = ".keepstone-restore"
_BATCH = 64  # files that get their attributes together


@dataclass(frozen=True, slots=True)
class Wanted:
    """`path` of the point, `volume`: how many of its components name disk and volume; `base`: the folder of the guest
    that stands for the volume. Without `special`, setuid, setgid and sticky bits are left out."""

    path: bytes
    volume: int
    base: str
    special: bool = False


@dataclass(slots=True)
class IntoGuest:
    """What was restored. `kept`: (path in the point, path in the guest) of what lies beside what was there; `failed`:
    (path, reason) of what is not restored."""

    files: int = 0
    folders: int = 0
    links: int = 0
    bytes: int = 0
    skipped: int = 0
    kept: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class _Item:
    """An entry and where it goes. `mode`: what of its mode it gets; `replaces`: something is there."""

    found: Found
    folder: str
    name: str
    mode: int
    replaces: bool = False

    @property
    def place(self) -> str:
        return _within(self.folder, self.name)


def restore_into_guest(
    env: Env,
    tree: Tree,
    inside: Inside,
    tidier: Tidier,
    wanted: Sequence[Wanted],
    conflict: Conflict | None,
    progress: Progress,
    *,
    begins: Callable[[], None] = lambda: None,
    again: bool = False,
) -> IntoGuest:
    """Restore these, folders with all that is in them. `conflict`: what becomes of files that are there; None: nothing
    is written where there is one, `TargetExists`.

    `begins`: called when all that is in the way is known, before the first write. `again`: a restore of the same, which
    came as far as that, was killed: what has the kind, size, time, mode and owner that the point has is its work.

    `NotFound` where point or guest has no such path, `UsageError` for what is no path of a file, `AccessDenied` where
    a symbolic link is in the way of a folder, `AgentFailed` where the agent is gone or does not answer.
    """
    return undisturbed(
        env, progress, lambda told: _Restore(tree, inside, tidier, conflict, told, again).run(wanted, begins)
    )


class _Restore:
    """One run."""

    def __init__(
        self, tree: Tree, inside: Inside, tidier: Tidier, conflict: Conflict | None, progress: Progress, again: bool
    ) -> None:
        self._tree, self._inside, self._tidier = tree, inside, tidier
        self._conflict, self._progress = conflict, progress
        self._again = again and conflict is not Conflict.OVERWRITE  # which does it all once more
        self._report = IntoGuest()
        self._folders: dict[str, bool] = {}  # what is known of folders of the guest: whether they are there
        self._new: list[_Item] = []  # folders to be made, those above others first
        self._begun: list[_Item] = []  # and those that the attempt before has made
        self._done: set[str] = set()  # folders in which it has made files
        self._plan: dict[str, list[_Item]] = {}

    def run(self, wanted: Sequence[Wanted], begins: Callable[[], None]) -> IntoGuest:
        for one in wanted:
            self._choose(one)
        begins()
        for folder in self._done - self._plan.keys():
            self._must("rm", "-rf", "--", _within(folder, FOLDER))
        items = [item for plan in self._plan.values() for item in plan]
        self._progress.expect(sum(item.found.entry.size for item in items if stat.S_ISREG(item.found.entry.mode)))
        for made in self._new:
            self._must("mkdir", "-m", f"{UNFINISHED:o}", "--", made.place)
            self._report.folders += 1
        for place, plan in self._plan.items():
            self._fill(place, plan)
        below_first = sorted(self._begun + self._new, key=lambda one: one.place, reverse=True)
        for made in below_first:
            self._attributes([(made.place, made)])
        self._must("sync")
        return self._report

    # ------------------------------------------------------------------ what goes where

    def _choose(self, wanted: Wanted) -> None:
        parts = [part for part in wanted.path.split(b"/") if part]
        if len(parts) < wanted.volume or parts[wanted.volume - 1 :][:1] == [b"disk.img"]:
            raise UsageError(f"{_shown(wanted.path)} is a disk; give files and folders of a volume, as 1/etc/fstab")
        base = self._seen(wanted.base, follow=True)
        if base is None or not base.is_folder:
            raise NotFound(f"the guest has no folder {wanted.base}; make it, or name another one")
        self._folders[wanted.base] = True
        folder = wanted.base
        for depth in range(wanted.volume + 1, len(parts)):
            folder = self._enter(self._found(b"/".join(parts[:depth])), folder, wanted)
        if len(parts) == wanted.volume:
            self._below(parts, folder, wanted)
            return
        found = self._found(b"/".join(parts))
        if stat.S_ISDIR(found.entry.mode):
            self._below(parts, self._enter(found, folder, wanted), wanted)
        else:
            self._take(found, folder, wanted)

    def _found(self, path: bytes) -> Found:
        found = self._tree.find(path)
        assert found is not None
        return found

    def _below(self, parts: list[bytes], place: str, wanted: Wanted) -> None:
        """Everything in a folder, which goes to this one."""
        above = {b"/".join(parts): place}

        def lost(path: bytes, error: KeepstoneError) -> None:
            self._fail(path, str(error))

        for found in self._tree.walk(b"/".join(parts), lost=lost):
            folder = above.get(found.folder.path)
            if folder is None:
                continue  # it is in one that is left out
            if stat.S_ISDIR(found.entry.mode):
                if _text(found.entry.name) is None:
                    self._fail(found.path, "its name is no UTF-8, and the agent can be told no other")
                else:
                    above[found.path] = self._enter(found, folder, wanted)
            else:
                self._take(found, folder, wanted)

    def _enter(self, found: Found, folder: str, wanted: Wanted) -> str:
        """The folder of the guest that this one becomes; it is noted where it has to be made."""
        name = _text(found.entry.name)
        if not stat.S_ISDIR(found.entry.mode):
            raise UsageError(f"{_shown(found.path)} is no folder of the point; give paths as `ls` shows them")
        if name is None:
            raise UsageError(f"the name of {_shown(found.path)} is no UTF-8, and the agent can be told no other")
        item = _Item(found, folder, name, _bits(found.entry, wanted))
        place = item.place
        if place not in self._folders:
            there = self._seen(place) if self._folders[folder] else None
            if there is not None and not there.is_folder:
                raise AccessDenied(
                    f"{place} is a {'symbolic link' if stat.S_ISLNK(there.mode) else 'file'} in the guest and a folder "
                    "in the point; choose another folder of the guest, by --guest-target (guestPath of a request)"
                )
            self._folders[place] = there is not None
            if there is None:
                self._new.append(item)
            elif there.is_unfinished:
                self._begun.append(item)
        return place

    def _take(self, found: Found, folder: str, wanted: Wanted) -> None:
        entry = found.entry
        name = _text(entry.name)
        target = _text(entry.extra.target) if stat.S_ISLNK(entry.mode) else ""
        if name is None or target is None:
            self._fail(found.path, "its name is no UTF-8, and the agent can be told no other")
            return
        if not stat.S_ISREG(entry.mode) and not stat.S_ISLNK(entry.mode):
            self._fail(found.path, f"it is a {entry.kind}; only files, folders and links go into a guest")
            return
        item = _Item(found, folder, name, _bits(entry, wanted))
        if self._folders[folder] and (there := self._seen(item.place)) is not None:
            if self._again and self._is_made(item, there):
                return
            if self._conflict is None:
                raise TargetExists(
                    f"{item.place} is there in the guest; nothing was written. Say what is to become of it: overwrite, "
                    "skip or keep-both"
                )
            if self._conflict is Conflict.SKIP:
                self._report.skipped += 1
                return
            if self._conflict is Conflict.KEEP_BOTH:
                is_made = self._name_beside(item)
                self._report.kept.append((_shown(found.path), item.place))
                if is_made:
                    return
            elif there.is_folder:
                self._fail(found.path, f"{item.place} is a folder in the guest; move it")
                return
            else:
                item.replaces = True
        self._plan.setdefault(folder, []).append(item)

    def _name_beside(self, item: _Item) -> bool:
        """Give it a name beside what is there; whether an attempt before this one has made that."""
        name, number = item.name, 1
        item.name = f"{name}.restored"
        while (there := self._seen(item.place)) is not None:
            if self._again and self._is_made(item, there):
                return True
            number += 1
            item.name = f"{name}.restored-{number}"
        return False

    def _is_made(self, item: _Item, seen: Seen) -> bool:
        """Whether the attempt before this one has made it; then it counts."""
        if not seen.is_like(item.found.entry, item.mode):
            return False
        self._done.add(item.folder)
        self._count(item)
        return True

    def _seen(self, path: str, *, follow: bool = False) -> Seen | None:
        self._progress.advance(0)  # which ends this where somebody interrupts
        return seen(self._inside, path, follow=follow)

    # ------------------------------------------------------------------ doing it

    def _fill(self, folder: str, plan: list[_Item]) -> None:
        """Make what belongs into a folder."""
        private = _within(folder, FOLDER)
        self._tidier.watch(private)
        try:
            if self._inside.run("mkdir", "-m", "700", "--", private)[0]:
                self._inside.run("rm", "-rf", "--", private)
                self._must("mkdir", "-m", "700", "--", private)
            for begin in range(0, len(plan), _BATCH):
                batch = plan[begin : begin + _BATCH]
                made = [(place, item) for at, item in enumerate(batch) if self._made(place := f"{private}/{at}", item)]
                self._attributes(made)
                for place, item in made:
                    self._publish(place, item)
        except BaseException:
            with contextlib.suppress(AgentFailed, AccessDenied):
                self._remove(private)
            raise
        self._remove(private)

    def _remove(self, private: str) -> None:
        self._must("rm", "-rf", "--", private)
        self._tidier.watch("")

    def _made(self, place: str, item: _Item) -> bool:
        """Make an entry at this place of ours; whether it is there."""
        entry = item.found.entry
        if stat.S_ISLNK(entry.mode):
            code, said = self._inside.run("ln", "-s", "--", entry.extra.target.decode(), place)
            if code:
                self._fail(item.found.path, said)
            return not code
        try:
            self._inside.write(place, self._pieces(item.found))
        except (*DAMAGE, AgentRefused) as error:
            self._fail(item.found.path, str(error))
            self._inside.run("rm", "-f", "--", place)  # its room may be what the next one needs
            return False
        return True

    def _pieces(self, found: Found) -> Iterator[memoryview]:
        content, size = self._tree.content(found), found.entry.size
        step = self._inside.piece
        for offset in range(0, size, step):
            piece = memoryview(b"".join(content.read(offset, min(step, size - offset))))
            yield piece
            self._report.bytes += len(piece)
            self._progress.advance(len(piece))

    def _attributes(self, made: list[tuple[str, _Item]]) -> None:
        """Owner, mode and time, of as many at once as have the same; in this order, as each undoes the one before."""
        for owner, places in _alike(made, lambda entry: (entry.uid, entry.gid)):
            self._must("chown", "-h", f"{owner[0]}:{owner[1]}", "--", *places)
        plain = [(place, item) for place, item in made if not stat.S_ISLNK(item.found.entry.mode)]
        for mode, group in groupby(sorted(plain, key=lambda one: one[1].mode), lambda one: one[1].mode):
            self._must("chmod", f"{mode:o}", "--", *(place for place, _ in group))
        for time, places in _alike(made, lambda entry: (entry.mtime // SECOND, 0)):
            self._must("touch", "-h", "-d", f"@{time[0]}", "--", *places)

    def _publish(self, place: str, item: _Item) -> None:
        """Bring it to its place."""
        if item.replaces:
            code, said = self._inside.run("mv", "-f", "-T", "--", place, item.place)
        else:
            code, said = self._inside.run("ln", "-T", "--", place, item.place)
            if code and self._seen(item.place) is None:  # a file system without links
                code, said = self._inside.run("mv", "-n", "-T", "--", place, item.place)
        if code:
            self._fail(item.found.path, said)
        else:
            self._count(item)

    def _count(self, item: _Item) -> None:
        if stat.S_ISLNK(item.found.entry.mode):
            self._report.links += 1
        else:
            self._report.files += 1
            self._progress.advance(0, 1)

    def _must(self, *command: str) -> None:
        code, said = self._inside.run(*command)
        if code:
            raise AccessDenied(f"{command[0]} failed in the guest: {_shown(said.encode())[:500]}")

    def _fail(self, path: bytes, reason: str) -> None:
        reason = " ".join(_shown(reason.encode()).split())[:500]
        self._report.failed.append((_shown(path), reason))
        self._progress.warn(path, f"is not restored: {reason}")


def _alike(
    made: list[tuple[str, _Item]], key: Callable[[Entry], tuple[int, int]]
) -> Iterator[tuple[tuple[int, int], list[str]]]:
    """Places, together with those that have the same key."""
    ordered = sorted(((key(item.found.entry), place) for place, item in made))
    for value, group in groupby(ordered, lambda one: one[0]):
        yield value, [place for _, place in group]


def _bits(entry: Entry, wanted: Wanted) -> int:
    return entry.mode & (0o7777 if wanted.special else 0o777)


def _within(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"


def _text(name: bytes) -> str | None:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return None


def _shown(text: bytes) -> str:
    from keepstone.workloads.files.names import shown

    return shown(text)
