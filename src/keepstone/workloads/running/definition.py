# SPDX-License-Identifier: Apache-2.0
"""From what a point says of its machine to the hardware that it is started on.

A domain of libvirt is in `domain.py`. `qemu.json` (`kvm/definition.py`) has the answers of QEMU, and its command line
where that could be seen. Both are foreign: each answer is taken by its type or not at all, and of the command line only
values that are known here. So a machine whose definition is damaged, or says nothing, gets the hardware of
`Hardware()`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from keepstone.workloads.kvm.definition import DOCUMENT
from keepstone.workloads.libvirt.definition import DOCUMENT as DOMAIN
from keepstone.workloads.machines import Machine, Role
from keepstone.workloads.running.domain import of_domain
from keepstone.workloads.running.values import Hardware, Kernel, Nic

__all__ = ["READERS", "hardware_of"]

T = TypeVar("T")
_TYPE = re.compile(r"(?:pc|q35)(?:-(?:q35|i440fx)-[0-9]{1,2}\.[0-9]{1,2}(?:\.[0-9]{1,2})?)?|pc-[0-9]\.[0-9]{1,2}")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")
_GIVEN = re.compile(r"\bmac\"?[=:]\s*\"?([0-9A-Fa-f:]{17})\b")
_SECURE = re.compile(r"secboot|secure|\.ms\.|snakeoil", re.IGNORECASE)
_UEFI = re.compile(r"OVMF|edk2|efi", re.IGNORECASE)
_AGENT = "org.qemu.guest_agent.0"
_MEMORY = 1 << 44  # bytes; more is no machine's
_CPUS = 1024
_CARDS = 8
_APPEND = 4096  # characters
_LARGEST = 16 << 20  # bytes of a document

_Q35, _I440FX = (0x8086, 0x29C0), (0x8086, 0x1237)
_SATA, _NETWORK = 0x0106, 0x0200  # PCI classes
_SCSI = {
    (0x1AF4, 0x1004): "virtio-scsi-pci",
    (0x1AF4, 0x1048): "virtio-scsi-pci",
    (0x1000, 0x0012): "lsi53c895a",
    (0x1000, 0x0060): "megasas",
    (0x15AD, 0x07C0): "pvscsi",
    (0x1000, 0x0054): "mptsas1068",
}
_NICS = {
    (0x1AF4, 0x1000): "virtio-net-pci",
    (0x1AF4, 0x1041): "virtio-net-pci",
    (0x8086, 0x100E): "e1000",
    (0x8086, 0x10D3): "e1000e",
    (0x10EC, 0x8139): "rtl8139",
    (0x15AD, 0x07B0): "vmxnet3",
}


class _Arch(msgspec.Struct, frozen=True):
    arch: str


class _Uuid(msgspec.Struct, frozen=True):
    uuid: str = msgspec.field(name="UUID")


class _Memory(msgspec.Struct, frozen=True):
    base: int = msgspec.field(name="base-memory")
    plugged: int = msgspec.field(name="plugged-memory", default=0)


class _Class(msgspec.Struct, frozen=True):
    number: int = msgspec.field(name="class")


class _Id(msgspec.Struct, frozen=True):
    vendor: int
    device: int


class _Bridge(msgspec.Struct, frozen=True):
    devices: list[_Device] = []


class _Device(msgspec.Struct, frozen=True):
    kind: _Class = msgspec.field(name="class_info")
    id: _Id
    bridge: _Bridge | None = msgspec.field(name="pci_bridge", default=None)


class _Filter(msgspec.Struct, frozen=True):
    mac: str = msgspec.field(name="main-mac")


class _File(msgspec.Struct, frozen=True):
    file: str = ""


class _Block(msgspec.Struct, frozen=True):
    qdev: str = ""
    inserted: _File | None = None


def hardware_of(machine: Machine) -> Hardware:
    """By the first document of its definition that is known here; `Hardware()` with what its disks say where there is
    none."""
    nvram = any(disk.role is Role.NVRAM for disk in machine.disks)
    for name, read in READERS.items():
        if name in machine.definition and len(machine.definition[name]) <= _LARGEST:
            return read(machine.definition[name], nvram)
    return Hardware(uefi=nvram)


def _of_qemu(document: bytes, nvram: bool) -> Hardware:
    try:
        told: Any = msgspec.json.decode(document)
    except (msgspec.MsgspecError, RecursionError):
        told = None
    if not isinstance(told, dict):
        return Hardware(uefi=nvram)

    def answer(query: str, kind: type[T], otherwise: T) -> T:
        try:
            return msgspec.convert(told.get(query), kind)
        except (msgspec.MsgspecError, RecursionError):
            return otherwise

    words = _Words(answer("command", list[str], []))
    devices = [device for bridge in answer("pci", list[_Bridge], []) for device in _all(bridge)]
    ids = [(device.id.vendor, device.id.device) for device in devices]
    kinds = [device.kind.number for device in devices]
    memory = answer("memory-size-summary", _Memory, _Memory(0))
    uuid = answer("uuid", _Uuid, _Uuid("")).uuid.lower()
    flash = [block for block in answer("block", list[_Block], []) if block.qdev.startswith("/machine/system.flash")]
    firmware = [block.inserted.file for block in flash if block.inserted is not None] + words.all("-bios")
    cards = [_NICS[id] for id, kind in zip(ids, kinds, strict=True) if kind == _NETWORK and id in _NICS][:_CARDS]
    filters = [found.mac.lower() for found in answer("rx-filter", list[_Filter], [])]
    given = [mac.lower() for value in words.all("-device", "-nic", "-net") for mac in _GIVEN.findall(value)]
    macs = next((macs for macs in (filters, given) if len(macs) == len(cards)), [""] * len(cards))
    size = memory.base + memory.plugged
    return Hardware(
        machine=_machine(words, ids),
        memory=size if 0 < size <= _MEMORY else Hardware().memory,
        cpus=min(max(1, len(answer("cpus-fast", list[Any], []))), _CPUS),
        uefi=nvram or any(map(_UEFI.search, firmware)),
        secure=any(map(_SECURE.search, firmware)),
        sata=_SATA in kinds,
        scsi=next((_SCSI[id] for id in ids if id in _SCSI), Hardware().scsi),
        uuid=uuid if _UUID.fullmatch(uuid) and uuid.strip("0-") else "",
        localtime="base=localtime" in words.parts("-rtc"),
        agent=not words.words or any(_AGENT in word for word in words.words),
        nics=tuple(Nic(card, mac if _MAC.fullmatch(mac) else "") for card, mac in zip(cards, macs, strict=True)),
        kernel=_kernel(words),
        architecture=answer("target", _Arch, _Arch(Hardware().architecture)).arch,
    )


READERS: dict[str, Callable[[bytes, bool], Hardware]] = {
    DOCUMENT: _of_qemu,
    DOMAIN: lambda document, nvram: of_domain(document, nvram, lambda kind: _TYPE.fullmatch(kind) is not None),
}
"""By the name of a document: what reads it; it is told whether the machine has NVRAM."""


class _Words:
    """A command line of QEMU."""

    def __init__(self, words: list[str]) -> None:
        self.words = [word for word in words if "\0" not in word]

    def all(self, *options: str) -> list[str]:
        """The values of these options, in order."""
        found = zip(self.words, self.words[1:], strict=False)
        return [value for option, value in found if (option[1:] if option.startswith("--") else option) in options]

    def parts(self, *options: str) -> list[str]:
        """The same, at commas."""
        return [part for value in self.all(*options) for part in value.split(",")]


def _all(bridge: _Bridge, depth: int = 8) -> Iterator[_Device]:
    for device in bridge.devices:
        yield device
        if device.bridge is not None and depth:
            yield from _all(device.bridge, depth - 1)


def _machine(words: _Words, ids: list[tuple[int, int]]) -> str:
    for part in words.parts("-M", "-machine"):
        kind = part.removeprefix("type=")
        if _TYPE.fullmatch(kind):
            return kind
    return "pc" if _I440FX in ids and _Q35 not in ids else Hardware().machine


def _kernel(words: _Words) -> Kernel | None:
    kernel, initrd, append = (words.all(option)[-1:] for option in ("-kernel", "-initrd", "-append"))
    if not kernel:
        return None
    line = append[0] if append and len(append[0]) <= _APPEND else ""
    return Kernel(Path(kernel[0]), Path(initrd[0]) if initrd else None, line)
