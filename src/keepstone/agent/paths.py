# SPDX-License-Identifier: Apache-2.0
"""What of this machine the service may have read, and where it may have something written.

The service says which; this machine's own `agent.toml` says whether. Without a word of it, everything may be backed up,
and restores go into one folder of the agent's own: whoever could write elsewhere, as root, would own this machine.

Invariants
* Nobody reads the agent's keys and passphrases, or memory that looks like files; nobody writes to these, or to
  `agent.toml`.
* A device is for whoever is named for it: its own path, or a folder beneath `/dev`. It shows all the files on it.
* What counts is where a path leads, not how it is written. What is returned has no symbolic links in it: it is to be
  used in place of what was asked for.
* An item's own patterns come from the service: none of them takes back what is excluded here.

A second name of the same file (hard link, bind mount) is a second path: it is denied where it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keepstone.agent import system
from keepstone.agent.configuration import Configuration
from keepstone.errors import GuardRefused, UsageError

if TYPE_CHECKING:
    from keepstone.workloads.files import Selection

__all__ = ["Paths", "Source"]

_DEVICES = Path("/dev")


@dataclass(frozen=True, slots=True)
class Source:
    """`path`: what to read. `never`: paths in it, relative to it, that are denied. `always`: patterns that are left out
    of every backup."""

    path: Path
    never: tuple[str, ...]
    always: tuple[str, ...]

    def selection(self, **item: Any) -> Selection:
        """What of it is taken: what `Selection(**item)` takes, without what this machine leaves out."""
        if item.get("exclude_from"):
            raise UsageError("a service names patterns, and no file of this machine that has some")
        from keepstone.workloads.files import Selection

        return Selection(**item, never=self.never, always=self.always)


class Paths:
    """As `configuration` has it, which came from `file`."""

    def __init__(self, configuration: Configuration, file: Path, folders: system.Folders | None = None) -> None:
        own = folders or system.folders()
        backup, restore, sealed = configuration.backup, configuration.restore, configuration.sealed
        never = [own.state, own.cache, *_all(filter(None, (sealed.passphrase_file, sealed.previous_file)))]
        never += system.unreal()
        self._file = file
        self._exclude = backup.exclude
        self._readable = None if backup.allow is None else _all(backup.allow)
        self._secret = [*_all(backup.deny), *never]
        self._writable = [own.restored] if restore.allow is None else _all(restore.allow)
        self._untouched = [*_all(restore.deny), file.parent, *never]

    def source(self, path: str) -> Source:
        """For a backup of this. `GuardRefused` where this machine does not allow it."""
        real = _real(path)
        allowed = [Path(real.anchor)] if self._readable is None else _resolved(self._readable)
        denied = _resolved(self._secret)
        self._check(real, path, allowed, denied, "backup")
        never = [one.relative_to(real).as_posix() for one in denied if one.is_relative_to(real)]
        return Source(real, tuple(never), self._exclude)

    def hypervisor(self, machine: Mapping[str, Any]) -> None:
        """For a question to what runs a virtual machine, which its item names. `GuardRefused` where this machine does
        not allow what it is reached by."""
        from keepstone.workloads.hypervisors import address_of

        for path in address_of(machine).paths:
            self.source(str(path))

    def target(self, path: str) -> Path:
        """For a restore to this, and all beneath it: of chosen paths, each is asked for. `GuardRefused`."""
        real = _real(path)
        denied = _resolved(self._untouched)
        self._check(real, path, _resolved(self._writable), denied, "restore")
        for one in denied:
            if one.is_relative_to(real):
                raise GuardRefused(
                    f"{path} has {one} in it, which no restore may touch; choose another target, or only some paths"
                )
        return real

    def _check(self, real: Path, path: str, allowed: list[Path], denied: list[Path], part: str) -> None:
        shown = path if os.fspath(real) == path else f"{path} ({real})"
        for one in denied:
            if real.is_relative_to(one):
                raise GuardRefused(f"{shown} is beneath {one}, and this machine's agent allows no {part} of that")
        above = [one for one in allowed if real.is_relative_to(one)]
        what = "the device " if system.is_device(real) else ""
        if what:
            above = [one for one in above if one == real or one.is_relative_to(_DEVICES)]
        if not above:
            raise GuardRefused(
                f"{what}{shown} is not in {part}.allow of this machine's agent; "
                f"its administrator can add it there, in {self._file}"
            )


def _all(paths: Iterable[str]) -> list[Path]:
    return [Path(path) for path in paths]


def _resolved(paths: Iterable[Path]) -> list[Path]:
    """Where they lead today."""
    return [Path(os.path.realpath(path)) for path in paths]


def _real(path: str) -> Path:
    if not os.path.isabs(path) or "\0" in path:
        raise UsageError(f"{path!r} is no absolute path; name one of the protected machine")
    return Path(os.path.realpath(path))
