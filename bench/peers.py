# SPDX-License-Identifier: Apache-2.0
"""How each tool is called: Keepstone, restic and borg behind one protocol of commands.

A tool works in a `Room`: the folder of one run, with a store, a home for keys and caches, and nothing else. Settings
are each tool's usual ones: restic's default compression; borg with repokey-blake2 and zstd 3, for disk images with
aligned chunks of 1 MiB and holes recognised, which is its best case there. Passwords go by the environment.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bench.setup import find_borg, find_restic, version_of

__all__ = ["Borg", "Command", "Keepstone", "Restic", "Room", "Tool", "tools"]

PASSWORD = "bench"  # protects nothing but the benchmark's own data


@dataclass(frozen=True, slots=True)
class Command:
    """One process to run: its arguments, what it adds to the environment, and where it runs."""

    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    cwd: Path | None = None


@dataclass(frozen=True, slots=True)
class Room:
    """The folder of one tool in one run. `repeat`: of a restore in its round, each into a place of its own."""

    folder: Path
    repeat: int = 0

    @property
    def store(self) -> Path:
        """What is measured as stored bytes: the repository."""
        return self.folder / "store"

    @property
    def home(self) -> Path:
        """Keys, caches and settings."""
        return self.folder / "home"

    @property
    def target(self) -> Path:
        """What a restore writes into, or for an image the folder of the file that it writes."""
        return self.folder / f"target-{self.repeat}"


class Tool(Protocol):
    """A backup tool. Sources are absolute: a folder, or with `image` a file that is a disk image."""

    name: str

    def version(self) -> str:
        """What the tool says of itself, e.g. `0.18.0`."""

    def init(self, room: Room) -> Command:
        """Make an empty, encrypted store."""

    def backup(self, room: Room, source: Path, image: bool, number: int) -> Command:
        """Back the source up, as the run's number-th backup of it."""

    def restore(self, room: Room, source: Path, image: bool, number: int) -> Command:
        """Restore that backup beneath the room's target."""

    def restored(self, room: Room, source: Path) -> Path:
        """Where the restored source lies afterwards."""

    def verify(self, room: Room) -> Command:
        """Check every stored byte."""


class Keepstone:
    """The tool that this project builds, out of the environment that runs the benchmark."""

    name = "keepstone"

    def version(self) -> str:
        """The version of the installed distribution."""
        from importlib.metadata import version

        return version("keepstone")

    def init(self, room: Room) -> Command:
        """A store whose keys lie in the room's home."""
        return self.command(room, "init")

    def backup(self, room: Room, source: Path, image: bool, number: int) -> Command:
        """Incremental by itself; an image is one by name."""
        return self.command(room, "backup", *(["--image"] if image else []), str(source))

    def restore(self, room: Room, source: Path, image: bool, number: int) -> Command:
        """The newest point; an image to a file, a folder into the target."""
        return self.command(room, "restore", "latest", "--target", str(self._target(room, source, image)))

    def restored(self, room: Room, source: Path) -> Path:
        """A restore keeps the source's own name, or puts the folder's content into the target."""
        named = room.target / source.name
        return named if named.exists() else room.target

    def verify(self, room: Room) -> Command:
        """Every frame opened, every chunk's id recomputed."""
        return self.command(room, "verify", "--deep")

    def _target(self, room: Room, source: Path, image: bool) -> Path:
        return room.target / source.name if image else room.target

    def command(self, room: Room, verb: str, *arguments: str) -> Command:
        """`keepstone store VERB` on the room's store."""
        program = str(Path(sys.executable).with_name("keepstone"))
        argv = (program, "store", verb, "--store", str(room.store), *arguments)
        return Command(argv, {"KEEPSTONE_HOME": str(room.home)})


class Restic:
    """restic with its defaults; a restored image gets its holes back, as the others' do."""

    name = "restic"

    def __init__(self, program: str) -> None:
        self._program = program

    def version(self) -> str:
        """Its version's numbers."""
        return ".".join(map(str, version_of(self._program)))

    def init(self, room: Room) -> Command:
        """A repository of the newest format."""
        return self._run(room, "init")

    def backup(self, room: Room, source: Path, image: bool, number: int) -> Command:
        """Relative to the source's parent, so that the path in the snapshot is short."""
        return self._run(room, "backup", "-q", source.name, cwd=source.parent)

    def restore(self, room: Room, source: Path, image: bool, number: int) -> Command:
        """The newest snapshot."""
        sparse = ["--sparse"] if image else []
        return self._run(room, "restore", "-q", "latest", *sparse, "--target", str(room.target))

    def restored(self, room: Room, source: Path) -> Path:
        """Beneath the target by its name."""
        return room.target / source.name

    def verify(self, room: Room) -> Command:
        """All packs read and checked."""
        return self._run(room, "check", "-q", "--read-data")

    def _run(self, room: Room, *arguments: str, cwd: Path | None = None) -> Command:
        env = {
            "RESTIC_REPOSITORY": str(room.store),
            "RESTIC_PASSWORD": PASSWORD,
            "RESTIC_CACHE_DIR": str(room.home / "cache"),
        }
        return Command((self._program, *arguments), env, cwd)


class Borg:
    """borg with authenticated encryption and zstd 3."""

    name = "borg"
    compression = "zstd,3"

    def __init__(self, program: str) -> None:
        self._program = program

    def version(self) -> str:
        """Its version's numbers."""
        return ".".join(map(str, version_of(self._program)))

    def init(self, room: Room) -> Command:
        """A repository that carries its own key."""
        return self._run(room, "init", "-e", "repokey-blake2")

    def backup(self, room: Room, source: Path, image: bool, number: int) -> Command:
        """Aligned chunks for images, content-defined ones otherwise."""
        chunker = ["--chunker-params", "fixed,1048576", "--sparse"] if image else []
        options = ["-C", self.compression, *chunker]
        return self._run(room, "create", *options, f"::p{number}", source.name, cwd=source.parent)

    def restore(self, room: Room, source: Path, image: bool, number: int) -> Command:
        """borg extracts into its working directory."""
        return self._run(room, "extract", *(["--sparse"] if image else []), f"::p{number}", cwd=room.target)

    def restored(self, room: Room, source: Path) -> Path:
        """Beneath the target by its name."""
        return room.target / source.name

    def verify(self, room: Room) -> Command:
        """Repository and archives, every chunk read, decrypted and its id recomputed."""
        return self._run(room, "check", "--verify-data")

    def _run(self, room: Room, *arguments: str, cwd: Path | None = None) -> Command:
        env = {"BORG_REPO": str(room.store), "BORG_PASSPHRASE": PASSWORD, "BORG_BASE_DIR": str(room.home)}
        return Command((self._program, *arguments), env, cwd)


def tools(names: tuple[str, ...] = ("keepstone", "restic", "borg")) -> list[Tool]:
    """The tools of these names, in this order. LookupError names one that is not there and what to run."""
    found: list[Tool] = []
    for name in names:
        if name == "keepstone":
            if not os.access(Path(sys.executable).with_name("keepstone"), os.X_OK):
                raise LookupError("keepstone is not installed beside this interpreter; run `pip install -e .`")
            found.append(Keepstone())
            continue
        program = find_restic() if name == "restic" else find_borg()
        if program is None:
            raise LookupError(f"{name} is not there; run `python -m bench.setup`")
        found.append(Restic(program) if name == "restic" else Borg(program))
    return found
