# SPDX-License-Identifier: Apache-2.0
"""The machines that a libvirt has, and what of them can be backed up."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import dataclass

from keepstone.errors import NotFound, SourceFailed, SourceMissing
from keepstone.workloads.libvirt.markup import Element, parsed, text_of
from keepstone.workloads.libvirt.virsh import Virsh
from keepstone.workloads.machines.root import is_name

__all__ = ["OFF", "RUNNING", "Backing", "Domain", "DomainDisk", "chosen", "domains", "find", "lasting"]

RUNNING, OFF = "running", "shut off"
_AGENT = "org.qemu.guest_agent.0"
_LARGEST = 1 << 60


@dataclass(frozen=True, slots=True)
class Backing:
    """An image beneath that of a disk, which the description of the domain names. All three as of a `DomainDisk`."""

    source: str
    kind: str
    format: str


@dataclass(frozen=True, slots=True)
class DomainDisk:
    """A fixed disk. `target`: its name in the machine; `source`: a path, or what else it is made of; `kind`: `file`,
    `block`, `network`, and others of libvirt, `encrypted` or `sliced` where that is not all of it, or `lun` where it is
    passed through as a whole; `format`: of the image; `size`: in bytes, None where libvirt cannot tell; `bus`: how the
    guest sees it; `discard`: what the guest frees becomes holes of the image; `backing`: what is beneath its image, one
    beneath the other, as far as the description says; `whole`: nothing is beneath the last of these, whatever its
    header says."""

    target: str
    source: str
    kind: str
    format: str
    size: int | None
    bus: str
    read_only: bool
    discard: bool = False
    backing: tuple[Backing, ...] = ()
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Domain:
    """A machine. `state`: as libvirt says it, such as `running`, `paused`, `shut off`; `persistent`: it is still there
    when it is off; `agent`: it has a channel to a guest agent, which may or may not run; `firmware`: `efi` or `bios`;
    `nvram`, `kernel`, `initrd`: paths, empty where it has none; `tpm`: it has one that is emulated; `description`: its
    XML as it is now."""

    uuid: str
    name: str
    state: str
    persistent: bool
    disks: tuple[DomainDisk, ...]
    agent: bool
    os_type: str
    firmware: str
    nvram: str
    kernel: str
    initrd: str
    tpm: bool
    description: str

    @property
    def address(self) -> str:
        """Names it for people and for the record of a point."""
        return f"libvirt:{self.name}"

    @property
    def runs(self) -> bool:
        """Whether there is a QEMU of it."""
        return self.state != OFF


def domains(virsh: Virsh) -> list[Domain]:
    """All of them, by name. One that vanishes meanwhile is left out. `SourceMissing`, `Refused`, `Gone`."""
    persistent = set(virsh.ask("list", "--all", "--persistent", "--uuid").split())
    found = []
    for uuid in virsh.uuids():
        with contextlib.suppress(SourceMissing):
            found.append(_domain(virsh, uuid, uuid in persistent))
    return sorted(found, key=lambda domain: domain.name)


def find(virsh: Virsh, name: str) -> Domain:
    """The one of this name or UUID. `NotFound`."""
    persistent = set(virsh.ask("list", "--all", "--persistent", "--uuid").split())
    names = []
    for uuid in virsh.uuids():
        with contextlib.suppress(SourceMissing):
            called = virsh.ask("domname", uuid).strip()
            if name in (called, uuid):
                return _domain(virsh, uuid, uuid in persistent)
            names.append(called)
    known = ", ".join(sorted(names)[:20])
    raise NotFound(f"libvirt at {virsh.uri} has no machine {name!r}; it has {known or 'none'}")


def lasting(description: str) -> dict[str, DomainDisk]:
    """The disks of this XML of a domain, by target, without their sizes."""
    root = parsed(description, "the description of the machine")
    return {one.target: one for disk in root.iterfind("devices/disk") if _fixed(disk) for one in [_disk(disk, {})]}


def _domain(virsh: Virsh, uuid: str, persistent: bool) -> Domain:
    text = virsh.ask("dumpxml", uuid)
    root = parsed(text, f"the description of {uuid}")
    sizes = _sizes(virsh, uuid)
    loader = root.find("os/loader")
    efi = root.find("os[@firmware='efi']") is not None
    return Domain(
        uuid=uuid,
        name=text_of(root, "name"),
        state=virsh.ask("domstate", uuid).strip(),
        persistent=persistent,
        disks=tuple(_disk(disk, sizes) for disk in root.iterfind("devices/disk") if _fixed(disk)),
        agent=any(target.get("name") == _AGENT for target in root.iterfind("devices/channel/target")),
        os_type=text_of(root, "os/type"),
        firmware="efi" if efi or (loader is not None and loader.get("type") == "pflash") else "bios",
        nvram=text_of(root, "os/nvram") or _file(root.find("os/nvram/source")),
        kernel=text_of(root, "os/kernel"),
        initrd=text_of(root, "os/initrd"),
        tpm=root.find("devices/tpm/backend[@type='emulator']") is not None,
        description=text,
    )


def _file(source: Element | None) -> str:
    return "" if source is None else source.get("file", "")


def _fixed(disk: Element) -> bool:
    return disk.get("device", "disk") in ("disk", "lun") and disk.find("target") is not None


def _disk(disk: Element, sizes: dict[str, int]) -> DomainDisk:
    target, driver, source = disk.find("target"), disk.find("driver"), disk.find("source")
    assert target is not None
    name = target.get("dev", "")
    if not is_name(name):
        raise SourceFailed(f"libvirt calls a disk {name[:100]!r}; it cannot be backed up by that name")
    backing, whole = _backing(disk)
    return DomainDisk(
        target=name,
        source=_path(source),
        kind="lun" if disk.get("device") == "lun" else _kind(disk),
        format="raw" if driver is None else driver.get("type", "raw"),
        size=sizes.get(name),
        bus=target.get("bus", ""),
        read_only=disk.find("readonly") is not None,
        discard=driver is not None and driver.get("discard") == "unmap",
        backing=backing,
        whole=whole,
    )


def _path(source: Element | None) -> str:
    keys = ("file", "dev", "name", "volume", "dir")
    return next((value for key in keys if source is not None and (value := source.get(key))), "")


def _kind(image: Element) -> str:
    """Of a disk, or of what is beneath one."""
    if image.find("encryption") is not None or image.find("source/encryption") is not None:
        return "encrypted"
    return "sliced" if image.find("source/slices") is not None else image.get("type", "")


def _backing(disk: Element) -> tuple[tuple[Backing, ...], bool]:
    """What is beneath it (libvirt, formatdomain.html, `backingStore`), and whether it ends there."""
    found: list[Backing] = []
    below = disk.find("backingStore")
    while below is not None:
        source, format = below.find("source"), below.find("format")
        if source is None:
            return tuple(found), True
        found.append(Backing(_path(source), _kind(below), "" if format is None else format.get("type", "")))
        below = below.find("backingStore")
    return tuple(found), False


def _sizes(virsh: Virsh, uuid: str) -> dict[str, int]:
    """By target, the length of the disk; none of those that libvirt cannot look at."""
    found = {}
    for line in virsh.names("domblkinfo", uuid, "--all"):
        fields = line.split()
        if len(fields) == 4 and fields[1].isascii() and fields[1].isdecimal() and int(fields[1]) <= _LARGEST:
            found[fields[0]] = int(fields[1])
    return found


def chosen(domain: Domain, exclude: Collection[str]) -> tuple[list[DomainDisk], list[str]]:
    """(what is left without these disks, the names of what is left out); they go by targets. `NotFound`."""
    names = [disk.target for disk in domain.disks]
    for name in exclude:
        if name not in names:
            raise NotFound(f"the machine has no disk {name!r} to exclude; it has {', '.join(names) or 'none'}")
    return [disk for disk in domain.disks if disk.target not in exclude], [name for name in names if name in exclude]
