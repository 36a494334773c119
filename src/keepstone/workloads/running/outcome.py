# SPDX-License-Identifier: Apache-2.0
"""How far a point came when it was started to see whether it does. As JSON it can be kept beside the point."""

from __future__ import annotations

from enum import StrEnum

import msgspec

__all__ = ["FileSystem", "Outcome", "Reached", "State"]


class Reached(StrEnum):
    """`AGENT`: the guest agent answered. `LOGIN`: a serial console asks for a login. `SCREEN`: it shows something,
    and nothing happens any more; a person has to look at the picture. `NONE`: none of that."""

    AGENT = "agent"
    LOGIN = "login"
    SCREEN = "screen"
    NONE = "none"

    @property
    def is_up(self) -> bool:
        """Whether the system of the guest runs."""
        return self in (Reached.AGENT, Reached.LOGIN)


class State(StrEnum):
    """`MOUNTED`: the guest uses it. `READABLE`: its root can be read from the point. `UNREADABLE`: it is of a known
    kind, and cannot. `UNKNOWN`: nothing is known that reads it."""

    MOUNTED = "mounted"
    READABLE = "readable"
    UNREADABLE = "unreadable"
    UNKNOWN = "unknown"


class FileSystem(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """`disk`, `volume`: where it is in the point, as `ls` names it; empty where the guest told of it. `name`: its
    label, or where the guest has it. `kind`: such as ext4. `size`, `used`: bytes, as far as known."""

    state: State
    kind: str = ""
    name: str = ""
    disk: str = ""
    volume: str = ""
    size: int = 0
    used: int = 0
    note: str = ""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """`reason`: a sentence. `seconds`: from the start of the machine until it was up; None where it never was.
    `total`: that the whole drill took. `began`: wall clock, ns. `read`: bytes of the point that the machine read, of
    `size` that its disks have. `accel`: what ran it, `kvm` or `tcg`. `memory`: bytes that it had. `console`: the end of
    what came over the serial console. `screenshot`: a PNG, or empty. `shut_down`: it went down in order when asked."""

    level: Reached
    reason: str
    began: int
    seconds: float | None
    total: float
    read: int
    size: int
    accel: str
    memory: int
    shut_down: bool
    file_systems: list[FileSystem]
    console: str
    screenshot: bytes
