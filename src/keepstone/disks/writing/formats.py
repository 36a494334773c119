# SPDX-License-Identifier: Apache-2.0
"""The formats that a disk is restored into: one table for the command, the service and the agent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath

from keepstone.disks.port import BlockSink, BlockSource
from keepstone.disks.raw import RawSink
from keepstone.disks.writing import qcow2, vhd, vhdx, vmdk
from keepstone.disks.writing.sink import ImageSink, Layout
from keepstone.disks.writing.streamed import Advance, write_vmdk
from keepstone.env import Env
from keepstone.errors import UsageError

__all__ = ["FORMATS", "RAW", "Format", "chosen", "open_sink"]

RAW = "raw"


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """`suffixes`: what its files end with, in small letters. `about`: for people. `limit`: the longest disk, in bytes;
    None: no limit. `unit`: the disk is padded with zeros to whole ones, in bytes; at least one.

    Either `sink` opens one, or `stream` reads a disk in order into a new file, and tells how far it is.
    """

    name: str
    suffixes: tuple[str, ...]
    about: str
    limit: int | None = None
    unit: int = 512
    sink: Callable[[Env, Path, int], BlockSink] | None = None
    stream: Callable[[Env, Path, BlockSource, Advance], None] | None = None

    def check(self, path: Path, size: int) -> None:
        """`UsageError` where it has no room for a disk of `size` bytes."""
        if self.limit is not None and size > self.limit:
            raise UsageError(
                f"{path}: the disk has {size} bytes, and a {self.name} can have {self.limit}; choose another format, "
                "vhdx or qcow2"
            )


def _image(layout: Callable[[Env, int], Layout], env: Env, path: Path, size: int) -> BlockSink:
    return ImageSink(env, path, size, layout(env, size))


FORMATS = {
    one.name: one
    for one in (
        Format(
            name=RAW,
            suffixes=(".raw", ".img", ".dd"),
            about="the bytes of the disk, nothing else; what is zero is a hole of the file",
            unit=1,
            sink=RawSink,
        ),
        Format(
            name="vhd",
            suffixes=(".vhd",),
            about="VHD of fixed size, as Azure takes it; what is zero is a hole of the file",
            limit=vhd.LIMIT,
            unit=1 << 20,
            sink=partial(_image, vhd.FixedVhd),
        ),
        Format(
            name="vhd-dynamic",
            suffixes=(".vhd",),
            about="VHD that grows, for Hyper-V of generation 1",
            limit=vhd.LIMIT,
            sink=partial(_image, vhd.DynamicVhd),
        ),
        Format(
            name="vhdx",
            suffixes=(".vhdx",),
            about="VHDX that grows, for Hyper-V",
            limit=vhdx.LIMIT,
            sink=partial(_image, vhdx.Vhdx),
        ),
        Format(
            name="vmdk",
            suffixes=(".vmdk",),
            about="VMDK streamOptimized, compressed, for OVF and the import of vSphere",
            limit=vmdk.LIMIT,
            unit=vmdk.GRAIN,
            stream=write_vmdk,
        ),
        Format(
            name="vmdk-sparse",
            suffixes=(".vmdk",),
            about="VMDK monolithicSparse, for VMware Workstation and VirtualBox",
            limit=vmdk.LIMIT,
            unit=vmdk.GRAIN,
            sink=partial(_image, vmdk.SparseVmdk),
        ),
        Format(
            name="qcow2",
            suffixes=(".qcow2",),
            about="qcow2 of version 3, for QEMU and libvirt",
            limit=qcow2.LIMIT,
            sink=partial(_image, qcow2.Qcow2),
        ),
    )
}
"""By their names; the first one that has a suffix is what people mean by it."""


def open_sink(env: Env, path: Path, size: int, name: str) -> BlockSink:
    """A sink for a disk of `size` bytes into a new file. `TargetExists`; `UsageError` for a disk that is too long, and
    for a format that can only be written in order (`Format.stream`)."""
    wanted = FORMATS[name]
    wanted.check(path, size)
    if wanted.sink is None:
        raise UsageError(f"a {name} is written in order, from a source; it has no sink")
    return wanted.sink(env, path, size)


def chosen(path: PurePath, name: str | None, option: str = "--format") -> Format:
    """The format of this name; raw where there is none. `UsageError` where nobody chose and the file is called like
    one of another format, and for a name that is none. `option`: where one is chosen, for the message."""
    if name is not None:
        if name not in FORMATS:
            raise UsageError(f"{option} is {name!r}; choose one of {', '.join(FORMATS)}")
        return FORMATS[name]
    suffix = path.suffix.lower()
    for one in FORMATS.values():
        if suffix in one.suffixes and one.name != RAW:
            raise UsageError(
                f"{path} is called like a {one.name}, and a disk is restored as raw bytes unless {option} says "
                f"otherwise; choose {option} {one.name}, or {option} {RAW}"
            )
    return FORMATS[RAW]
