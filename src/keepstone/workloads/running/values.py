# SPDX-License-Identifier: Apache-2.0
"""What a machine is made of, as far as it matters to its guest.

These are values of ours: whatever a point says of its machine was compared with what is known before it became one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["MODELS", "SCSI", "Hardware", "Kernel", "Nic"]

SCSI = ("virtio-scsi-pci", "lsi53c895a", "megasas", "pvscsi", "mptsas1068")
"""Controllers of disks of the type scsi-hd."""
MODELS = ("virtio-net-pci", "e1000", "e1000e", "rtl8139", "vmxnet3")
"""Network cards."""


@dataclass(frozen=True, slots=True)
class Nic:
    """A network card: one of `MODELS`, and its address where that is known."""

    model: str
    mac: str = ""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel that QEMU starts itself: files of this host, and the kernel's command line."""

    kernel: Path
    initrd: Path | None = None
    append: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """`architecture`: as QEMU calls it. `machine`: QEMU's type, `q35` or `pc` or a version of them. `memory`: bytes.
    `sata`: ATA disks are at an AHCI controller also where the type has none. `secure`: UEFI with Secure Boot.
    `localtime`: its clock has the local time. `agent`: it had, or may have had, a port for a guest agent."""

    architecture: str = "x86_64"
    machine: str = "q35"
    memory: int = 1 << 30
    cpus: int = 1
    uefi: bool = False
    secure: bool = False
    sata: bool = False
    scsi: str = SCSI[0]
    uuid: str = ""
    localtime: bool = False
    agent: bool = True
    nics: tuple[Nic, ...] = ()
    kernel: Kernel | None = None
