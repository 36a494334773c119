# SPDX-License-Identifier: Apache-2.0
"""A command line of QEMU for a machine: made of our own words and of values that were checked, never of foreign words.

Disks come to the guest in their order, each at a bus of the kind that it had, so that the same drivers find them; slots
and addresses on the buses are not those that it had. A read or write that fails stops the machine rather than telling
the guest, whose file system would not survive it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keepstone.workloads.machines import Role
from keepstone.workloads.running.disks import Drive
from keepstone.workloads.running.firmware import Firmware
from keepstone.workloads.running.program import Qemu
from keepstone.workloads.running.values import Hardware, Nic

__all__ = ["Network", "Surroundings", "base_of", "command", "node_of"]

_OWN = "own-"  # how ids begin that are no disk's
_ID = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")  # QEMU, util/id.c
_AHCI = 6  # ports of a controller
_IDE = 4  # disks at the two channels of a PC


@dataclass(frozen=True, slots=True)
class Network:
    """`none`, `user` (it reaches others by this host, nobody reaches it) or `bridge`, which has a name."""

    kind: str = "none"
    bridge: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What is around the machine. `monitor`, `agent`, `console`: unix sockets that QEMU makes; without `console` it
    keeps the last of the serial console for the monitor (`ringbuf-read`). `second`: one more monitor. `vnc`: as QEMU's
    option has it. `throwaway`: nothing of it has to be durable."""

    monitor: Path
    agent: Path
    console: Path | None = None
    second: Path | None = None
    network: Network = Network()
    vnc: str = ""
    throwaway: bool = False


def command(
    qemu: Qemu, hardware: Hardware, drives: Sequence[Drive], around: Surroundings, firmware: Firmware | None, name: str
) -> list[str]:
    """All the words, the program first. The nodes of the disks are called `node_of`."""
    family = "q35" if "q35" in hardware.machine or (firmware is not None and firmware.smm) else "pc"
    kind = hardware.machine if hardware.machine in qemu.machines and family in hardware.machine else family
    smm = firmware is not None and firmware.smm
    words = [qemu.program, *qemu.sandbox] if around.network.kind != "bridge" else [qemu.program]  # starts a helper
    words += [*qemu.processor, "-nodefaults", "-no-user-config", "-name", f"guest={_escaped(name)}"]
    machine = f"{kind},smm={'on' if smm else 'off'}" if smm else kind
    words += ["-m", f"{hardware.memory >> 20}", "-smp", str(hardware.cpus)]
    if hardware.uuid:
        words += ["-uuid", hardware.uuid]
    words += ["-rtc", f"base={'localtime' if hardware.localtime else 'utc'}"]
    words += ["-display", "none", "-device", "VGA", *(["-vnc", around.vnc] if around.vnc else [])]
    if around.vnc:
        words += ["-device", f"qemu-xhci,id={_OWN}input", "-device", f"usb-tablet,bus={_OWN}input.0"]
    for monitor in filter(None, (around.monitor, around.second)):
        words += ["-qmp", _escaped(f"unix:{monitor}") + ",server=on,wait=off"]
    words += _ports(around)
    if firmware is not None:
        nvram = next((drive for drive in drives if drive.disk.role is Role.NVRAM), None)
        words += _node({"driver": "raw", "node-name": "code", "read-only": True, "file": _file(firmware.code)})
        machine += ",pflash0=code"
        if nvram is not None:
            words += _node({"driver": "raw", "node-name": "nvram", "file": _file(nvram.image)})
            machine += ",pflash1=nvram"
        if smm:
            words += ["-global", "driver=cfi.pflash01,property=secure,value=on"]
    words += ["-machine", machine]
    words += _disks(hardware, [drive for drive in drives if drive.disk.role is Role.DISK], family, around)
    words += _network(hardware, around.network)
    if hardware.kernel is not None:
        words += ["-kernel", str(hardware.kernel.kernel)]
        words += ["-initrd", str(hardware.kernel.initrd)] if hardware.kernel.initrd is not None else []
        words += ["-append", hardware.kernel.append]
    return words


def node_of(number: int) -> str:
    """What the node of a disk is called, counted from 0; that of its point is `base_of`."""
    return f"disk-{number}"


def base_of(number: int) -> str:
    """See `node_of`."""
    return f"point-{number}"


def _escaped(text: str) -> str:
    """Of a value within an option a comma is written twice."""
    return text.replace(",", ",,")


def _node(options: dict[str, Any]) -> list[str]:
    return ["-blockdev", json.dumps(options)]


def _file(path: Path) -> dict[str, Any]:
    return {"driver": "file", "filename": str(path)}


def _device(driver: str, **options: Any) -> list[str]:
    return ["-device", json.dumps({"driver": driver, **{name.replace("_", "-"): options[name] for name in options}})]


def _ports(around: Surroundings) -> list[str]:
    """The agent's port, and the first serial console."""
    words = [
        "-device",
        "virtio-serial-pci",
        "-chardev",
        f"socket,id=agent,path={_escaped(str(around.agent))},server=on,wait=off",
    ]
    words += ["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"]
    if around.console is None:
        return [*words, "-chardev", "ringbuf,id=console,size=65536", "-serial", "chardev:console"]
    socket = f"socket,id=console,path={_escaped(str(around.console))},server=on,wait=off"
    return [*words, "-chardev", socket, "-serial", "chardev:console"]


def _disks(hardware: Hardware, drives: Sequence[Drive], family: str, around: Surroundings) -> list[str]:
    words: list[str] = []
    for number, drive in enumerate(drives):
        overlay = {"driver": "qcow2", "node-name": node_of(number), "file": _file(drive.image), "backing": None}
        overlay |= {"discard": "unmap"} | ({"cache": {"no-flush": True}} if around.throwaway else {})
        if drive.base is not None:
            server = {"type": "unix", "path": drive.base.socket}
            base = {"driver": "nbd", "server": server, "export": drive.base.export, "read-only": True}
            words += _node({**base, "node-name": base_of(number)})
            overlay["backing"] = base_of(number)
        words += _node(overlay)
    return words + _Buses(hardware, family).devices(drives)


class _Buses:
    """Where disks are plugged in; controllers come when they are needed."""

    def __init__(self, hardware: Hardware, family: str) -> None:
        self._hardware = hardware
        self._sata = hardware.sata or family == "q35"
        self._builtin = family == "q35"
        self._words: list[str] = []
        self._ata = 0
        self._made: set[str] = set()

    def devices(self, drives: Sequence[Drive]) -> list[str]:
        """The words for these disks, in their order."""
        for number, drive in enumerate(drives):
            common: dict[str, Any] = {"drive": node_of(number), "rerror": "stop", "werror": "stop"}
            if self._hardware.kernel is None:  # which has the first place otherwise
                common["bootindex"] = number
            if _ID.fullmatch(drive.disk.name) and not drive.disk.name.startswith(_OWN):
                common["id"] = drive.disk.name  # so that the next backup calls it the same
            bus = drive.disk.bus
            if bus.startswith(("ide", "sata")):
                self._words += _device("ide-hd", **common, **self._next_ata())
            elif bus.startswith("scsi"):
                controller = self._hardware.scsi
                self._controller(controller, f"{_OWN}scsi")
                self._words += _device("scsi-hd", **common, bus=f"{_OWN}scsi.0")
            elif bus.startswith("nvme"):
                del common["rerror"], common["werror"]  # it has no such choice
                self._words += _device("nvme", **common, serial=drive.disk.name[:20])
            elif bus.startswith("usb"):
                self._controller("qemu-xhci", f"{_OWN}usb")
                self._words += _device("usb-storage", **common, bus=f"{_OWN}usb.0")
            else:
                self._words += _device("virtio-blk-pci", **common)
        return self._words

    def _controller(self, driver: str, name: str) -> None:
        if name not in self._made:
            self._made.add(name)
            self._words += _device(driver, id=name)

    def _next_ata(self) -> dict[str, Any]:
        at, self._ata = self._ata, self._ata + 1
        if not self._sata:
            if at < _IDE:
                return {"bus": f"ide.{at // 2}", "unit": at % 2}
            at -= _IDE
        elif self._builtin:
            if at < _AHCI:
                return {"bus": f"ide.{at}"}
            at -= _AHCI
        name = f"{_OWN}sata{at // _AHCI}"
        self._controller("ich9-ahci", name)
        return {"bus": f"{name}.{at % _AHCI}"}


def _network(hardware: Hardware, network: Network) -> list[str]:
    if network.kind == "none":
        return ["-nic", "none"]
    words: list[str] = []
    for number, nic in enumerate(hardware.nics or (Nic("virtio-net-pci"),)):
        kind = f"bridge,br={_escaped(network.bridge)}" if network.kind == "bridge" else "user"
        words += ["-netdev", f"{kind},id=net{number}"]
        words += _device(nic.model, netdev=f"net{number}", **({"mac": nic.mac} if nic.mac else {}))
    return words
