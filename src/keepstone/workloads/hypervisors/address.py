# SPDX-License-Identifier: Apache-2.0
"""Where a virtual machine can be reached, as the rows of items and resources keep it.

machine   qemu:SOCKET, the path of its monitor
agent     the socket of its guest agent, where it has one
fleece    a folder for what the machine overwrites during a backup
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from keepstone.errors import UsageError

__all__ = ["FLEECING", "Address"]

FLEECING = "/var/tmp"
"""The folder of `fleece` where nobody chose one."""
_QEMU = "qemu"
_KEYS = ("machine", "agent", "fleece")


@dataclass(frozen=True, slots=True)
class Address:
    """A machine of QEMU."""

    monitor: Path
    agent: Path | None = None
    fleece: Path = Path(FLEECING)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Address:
        """What a document says. `UsageError`."""
        kind, _, place = str(document.get("machine", "")).partition(":")
        if kind != _QEMU:
            raise UsageError(f"{document.get('machine')!r} names no machine; write qemu: and its QMP socket's path")
        agent = document.get("agent")
        return cls(
            _absolute("machine", place),
            None if agent is None else _absolute("agent", agent),
            _absolute("fleece", document.get("fleece", FLEECING)),
        )

    @property
    def document(self) -> dict[str, str]:
        """The same as a document."""
        told = {"machine": f"{_QEMU}:{self.monitor}"}
        if self.agent is not None:
            told["agent"] = str(self.agent)
        if self.fleece != Path(FLEECING):
            told["fleece"] = str(self.fleece)
        return told

    @property
    def paths(self) -> Iterator[Path]:
        """What of its host it takes, to be looked at before it is used."""
        yield self.monitor
        if self.agent is not None:
            yield self.agent
        if self.fleece != Path(FLEECING):
            yield self.fleece


def _absolute(key: str, path: object) -> Path:
    if not isinstance(path, str) or "\0" in path or not PurePosixPath(path).is_absolute():
        raise UsageError(f"{key} has {path!r}; it has to be an absolute path of the hypervisor's host")
    return Path(path)
