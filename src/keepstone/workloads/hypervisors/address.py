# SPDX-License-Identifier: Apache-2.0
"""Where a virtual machine can be reached, as the rows of items and resources keep it.

machine   qemu:SOCKET, the path of its monitor; or libvirt:UUID
agent     of QEMU: the socket of its guest agent, where it has one
connect   of libvirt: its URI, where it is not `qemu:///system`
fleece    a folder for what the machine overwrites during a backup
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from keepstone.errors import UsageError
from keepstone.workloads.hypervisors.uri import SYSTEM, check_uri

__all__ = ["FLEECING", "LibvirtAddress", "QemuAddress", "VmAddress", "address_of", "socket_of"]

FLEECING = "/var/tmp"
"""The folder of `fleece` where nobody chose one."""
_QEMU, _LIBVIRT = "qemu", "libvirt"
_DAEMON = "/run/libvirt/libvirt-sock"


@dataclass(frozen=True, slots=True)
class QemuAddress:
    """A machine of QEMU: the socket of its monitor, and that of its guest agent where it has one."""

    monitor: Path
    agent: Path | None = None
    fleece: Path = Path(FLEECING)

    @property
    def place(self) -> str:
        """What it is reached by."""
        return str(self.monitor)

    @property
    def document(self) -> dict[str, str]:
        """What rows keep."""
        told = {"machine": f"{_QEMU}:{self.monitor}"} | _fleece(self.fleece)
        return told if self.agent is None else told | {"agent": str(self.agent)}

    @property
    def paths(self) -> Iterator[Path]:
        """What of its host it takes, to be looked at before it is used."""
        yield self.monitor
        if self.agent is not None:
            yield self.agent
        if self.fleece != Path(FLEECING):
            yield self.fleece


@dataclass(frozen=True, slots=True)
class LibvirtAddress:
    """A domain of libvirt, by its UUID."""

    uuid: str
    connect: str = SYSTEM
    fleece: Path = Path(FLEECING)

    @property
    def place(self) -> str:
        """What it is reached by."""
        return str(socket_of(self.connect))

    @property
    def document(self) -> dict[str, str]:
        """What rows keep."""
        told = {"machine": f"{_LIBVIRT}:{self.uuid}"} | _fleece(self.fleece)
        return told if self.connect == SYSTEM else told | {"connect": self.connect}

    @property
    def paths(self) -> Iterator[Path]:
        """What of its host it takes, to be looked at before it is used."""
        yield socket_of(self.connect)
        if self.fleece != Path(FLEECING):
            yield self.fleece


VmAddress = QemuAddress | LibvirtAddress


def address_of(document: Mapping[str, Any]) -> VmAddress:
    """What a document says. `UsageError`."""
    kind, _, place = str(document.get("machine", "")).partition(":")
    fleece = _absolute("fleece", document.get("fleece", FLEECING))
    if kind == _QEMU:
        agent = document.get("agent")
        return QemuAddress(_absolute("machine", place), None if agent is None else _absolute("agent", agent), fleece)
    if kind == _LIBVIRT and place:
        connect = str(document.get("connect", SYSTEM))
        socket_of(connect)
        return LibvirtAddress(place, connect, fleece)
    raise UsageError(
        f"{document.get('machine')!r} names no machine; write qemu: and its QMP socket's path, or libvirt: and its UUID"
    )


def socket_of(connect: str) -> Path:
    """The socket of a libvirt daemon. `UsageError` where this is no URI of one that the whole host has."""
    check_uri(connect)
    parts = urlsplit(connect)
    for key, value in parse_qsl(parts.query):
        if key == "socket":
            return _absolute("connect", value)
    if parts.path != "/system":
        raise UsageError(f"{connect} is the libvirt of one user; take {SYSTEM}, or name its socket by ?socket=PATH")
    return Path(_DAEMON)


def _fleece(folder: Path) -> dict[str, str]:
    return {} if folder == Path(FLEECING) else {"fleece": str(folder)}


def _absolute(key: str, path: object) -> Path:
    if not isinstance(path, str) or "\0" in path or not PurePosixPath(path).is_absolute():
        raise UsageError(f"{key} has {path!r}; it has to be an absolute path of the hypervisor's host")
    return Path(path)
