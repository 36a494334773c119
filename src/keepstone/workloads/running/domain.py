# SPDX-License-Identifier: Apache-2.0
"""From the description of a domain of libvirt to the hardware that it is started on (libvirt, formatdomain.html).

The document is foreign: what is not known here is left at `Hardware()`, and so is all of one that cannot be read.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from keepstone.errors import KeepstoneError
from keepstone.workloads.libvirt.markup import Element, parsed, text_of
from keepstone.workloads.running.values import Hardware, Kernel, Nic

__all__ = ["of_domain"]

_AGENT = "org.qemu.guest_agent.0"
_UNITS = {"b": 1, "bytes": 1, "KB": 1000, "k": 1 << 10, "KiB": 1 << 10, "MB": 10**6, "M": 1 << 20, "MiB": 1 << 20,
          "GB": 10**9, "G": 1 << 30, "GiB": 1 << 30, "TB": 10**12, "T": 1 << 40, "TiB": 1 << 40}  # fmt: skip
_SCSI = {"virtio-scsi": "virtio-scsi-pci", "lsilogic": "lsi53c895a", "lsisas1068": "mptsas1068", "vmpvscsi": "pvscsi"}
_NICS = {
    "virtio": "virtio-net-pci",
    "virtio-transitional": "virtio-net-pci",
    "virtio-non-transitional": "virtio-net-pci",
    **{name: name for name in ("e1000", "e1000e", "rtl8139", "vmxnet3")},
}
_MEMORY = 1 << 44  # bytes; more is no machine's
_CPUS, _CARDS, _APPEND = 1024, 8, 4096
_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def of_domain(document: bytes, nvram: bool, fits: Callable[[str], bool]) -> Hardware:
    """`nvram`: whether the machine has some; `fits`: whether a type of machine is one that can be started."""
    try:
        root = parsed(document, "the description of the machine")
    except KeepstoneError:
        return Hardware(uefi=nvram)
    usual = Hardware()
    kind, loader = root.find("os/type"), root.find("os/loader")
    machine = "" if kind is None else kind.get("machine", "")
    cpus = text_of(root, "vcpu")
    uuid = text_of(root, "uuid").lower()
    controllers = [one.get("model", "") for one in root.iterfind("devices/controller") if one.get("type") == "scsi"]
    return Hardware(
        machine=machine if fits(machine) else usual.machine,
        memory=_memory(root) or usual.memory,
        cpus=min(int(cpus), _CPUS) if cpus.isascii() and cpus.isdecimal() and int(cpus) else usual.cpus,
        uefi=nvram or root.find("os[@firmware='efi']") is not None or _is(loader, "type", "pflash"),
        secure=_is(loader, "secure", "yes"),
        sata=any(_is(target, "bus", "sata") for target in root.iterfind("devices/disk/target")),
        scsi=next((_SCSI[model] for model in controllers if model in _SCSI), usual.scsi),
        uuid=uuid if _UUID.fullmatch(uuid) else "",
        localtime=_is(root.find("clock"), "offset", "localtime"),
        agent=any(_is(target, "name", _AGENT) for target in root.iterfind("devices/channel/target")),
        nics=tuple(_nic(one) for one in root.iterfind("devices/interface"))[:_CARDS],
        kernel=_kernel(root),
        architecture=usual.architecture if kind is None else kind.get("arch", usual.architecture),
    )


def _is(element: Element | None, key: str, value: str) -> bool:
    return element is not None and element.get(key) == value


def _memory(root: Element) -> int:
    """Bytes; 0 where it does not say."""
    found = root.find("memory")
    text = "" if found is None else (found.text or "").strip()
    unit = _UNITS.get("KiB" if found is None else found.get("unit", "KiB"), 0)
    size = int(text) * unit if text.isascii() and text.isdecimal() and len(text) < 20 else 0
    return size if size <= _MEMORY else 0


def _nic(interface: Element) -> Nic:
    model, mac = interface.find("model"), interface.find("mac")
    address = "" if mac is None else mac.get("address", "").lower()
    card = "rtl8139" if model is None else _NICS.get(model.get("type", ""), "virtio-net-pci")
    return Nic(card, address if _MAC.fullmatch(address) else "")


def _kernel(root: Element) -> Kernel | None:
    kernel, initrd, line = (text_of(root, f"os/{name}") for name in ("kernel", "initrd", "cmdline"))
    if not kernel or "\0" in kernel + initrd:
        return None
    return Kernel(Path(kernel), Path(initrd) if initrd else None, line if len(line) <= _APPEND else "")
