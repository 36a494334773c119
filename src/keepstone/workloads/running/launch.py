# SPDX-License-Identifier: Apache-2.0
"""A machine of a point, started in QEMU.

Invariants
* The process and its sockets end with us, whatever happens to us, until the machine is released (`keeper`).
* What the machine is started on is made of our own words (`command`). Of files of this host it gets the images in its
  folder, the host's firmware, and the kernel that it was started by where that is one: nothing else that a point names.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from dataclasses import dataclass, replace
from pathlib import Path

from keepstone.env import Env
from keepstone.errors import KeepstoneError, SourceFailed, SourceMissing, TargetExists, UsageError
from keepstone.objects import failure
from keepstone.workloads.images import PointDisk
from keepstone.workloads.kvm.qmp import Gone, Monitor
from keepstone.workloads.machines import Disk, PointOfMachine, Role
from keepstone.workloads.running.command import Surroundings, command
from keepstone.workloads.running.definition import hardware_of
from keepstone.workloads.running.disks import Drive, Served, needs_point, nvram, overlay
from keepstone.workloads.running.firmware import Firmware, firmware
from keepstone.workloads.running.keeper import Ended, Keeper
from keepstone.workloads.running.kernels import check_kernel
from keepstone.workloads.running.program import Accel, qemu_for
from keepstone.workloads.running.values import Hardware

__all__ = ["Launch", "Limits", "fitting", "reachable"]

_LONGEST = 107  # bytes of the path of a socket, unix(7)
_LEAST = 64 << 20  # bytes of memory
_STARTS = 30.0  # seconds until QEMU has its monitor
_SECOND = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`memory`: bytes that it gets, whatever it had. `most`: bytes that it gets at most otherwise. `largest`: bytes of
    a file that QEMU may write. `accel`: use this one and do not ask."""

    memory: int | None = None
    most: int | None = None
    cpus: int = 64
    largest: int | None = None
    accel: Accel | None = None


class Launch:
    """Starts a machine on images in `folder`; those that are not there yet are made. It ends with `close`, or with us.

    `Unsupported` where this host or this version cannot start such a machine, `SourceMissing` where a kernel that it
    was started by is not here, `SourceFailed` where QEMU does not start; what `Served` raises. The keeper stays its
    owner's, who closes it after a failure too.
    """

    def __init__(
        self,
        env: Env,
        machine: PointOfMachine,
        folder: Path,
        keeper: Keeper,
        limits: Limits,
        around: Surroundings,
    ) -> None:
        self._env = env
        self._keeper = keeper
        self.around = around
        self.served: Served | None = None
        self.hardware = fitting(hardware_of(machine.about), limits)
        if self.hardware.kernel is not None:
            check_kernel(env, self.hardware.kernel)
        qemu = qemu_for(env, self.hardware, limits.accel)
        self.accel = qemu.accel
        found = self._firmware(machine)
        with contextlib.ExitStack() as stack:
            self.drives = self._drives(machine, folder, found, stack)
            words = command(qemu, self.hardware, self.drives, around, found, _plain(machine.about.name))
            self.begun = env.boot_time()
            self.process = keeper.start(words, largest=limits.largest)
            self._starting()
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Stop serving, when the machine has ended or needs no point any more. Harmless when repeated."""
        self._stack.close()

    @property
    def read(self) -> int:
        """Bytes that were read of the point."""
        return 0 if self.served is None else self.served.read

    @property
    def failure(self) -> KeepstoneError | None:
        """Why something of the point could not be read, if that was so."""
        return None if self.served is None else self.served.failure

    def ended(self, seconds: float | None = 0) -> Ended | None:
        """How it ended, if it does within this time."""
        return self._keeper.wait(seconds)

    def monitor(self) -> Monitor:
        """Talk to its QEMU; one at a time. What `Monitor` raises."""
        return Monitor(self._env, self.around.monitor)

    def _firmware(self, machine: PointOfMachine) -> Firmware | None:
        if not self.hardware.uefi:
            return None
        kept = next((disk.size for disk in machine.about.disks if disk.role is Role.NVRAM), None)
        return firmware(self._env, self.hardware.architecture, secure=self.hardware.secure, nvram=kept)

    def _drives(
        self, machine: PointOfMachine, folder: Path, found: Firmware | None, stack: contextlib.ExitStack
    ) -> list[Drive]:
        env = self._env
        drives, waiting = list[Drive](), list[Drive]()
        for disk, reader in machine.disks:
            if disk.role is Role.NVRAM and found is not None:
                drive = Drive(disk, folder / f"{disk.name}.fd")
                if not _there(env, drive.image):
                    with PointDisk(env, reader) as source:
                        nvram(env, source, drive.image)
                drives.append(drive)
            elif disk.role is Role.DISK:
                drive = Drive(disk, folder / f"{disk.name}.qcow2")
                drives.append(drive)
                if not _there(env, drive.image) or needs_point(env, drive.image):
                    waiting.append(drive)
        if found is not None and not any(drive.disk.role is Role.NVRAM for drive in drives):
            drives.append(self._fresh(folder, found))
        if not waiting:
            return drives
        self.served = served = stack.enter_context(Served(env, machine, folder))
        for drive in waiting:
            base = served.address(drive.disk.name)
            if not _there(env, drive.image):
                overlay(env, drive.image, drive.disk.size, base)
            drives[drives.index(drive)] = replace(drive, base=base)
        return drives

    def _fresh(self, folder: Path, found: Firmware) -> Drive:
        """An empty NVRAM."""
        from keepstone.disks import RawSource

        with RawSource(self._env, found.template) as template:
            drive = Drive(Disk("nvram", template.size, Role.NVRAM), folder / "nvram.fd")
            if not _there(self._env, drive.image):
                nvram(self._env, template, drive.image)
        return drive

    def _starting(self) -> None:
        """Until its monitor answers."""
        end = self._env.boot_time() + int(_STARTS * _SECOND)
        while True:
            ended = self._keeper.wait(0)
            if ended is not None:
                raise SourceFailed(f"QEMU does not start the machine: {ended.said or f'it ended with {ended.status}'}")
            try:
                with self.monitor():
                    return
            except (SourceMissing, Gone):
                if self._env.boot_time() > end:
                    raise
                self._env.sleep(0.02)


def fitting(hardware: Hardware, limits: Limits) -> Hardware:
    """What of this a machine gets here."""
    memory = limits.memory or min(hardware.memory, limits.most or hardware.memory)
    processors = len(os.sched_getaffinity(0))
    return replace(hardware, memory=max(memory, _LEAST), cpus=min(hardware.cpus, limits.cpus, processors))


def reachable(path: Path) -> Path:
    """The path of a socket. `UsageError` where it is too long for one."""
    if len(os.fsencode(path)) > _LONGEST:
        raise UsageError(f"{path}: a socket's path has at most {_LONGEST} bytes; take a folder with a shorter one")
    return path


def _there(env: Env, path: Path) -> bool:
    """Whether there is such a file. `TargetExists` for what is none: behind a link may be any file."""
    try:
        if not stat.S_ISREG(env.fs.lstat(path).st_mode):
            raise TargetExists(f"{path} is no file that a machine wrote; take it away, or choose another folder")
    except FileNotFoundError:
        return False
    except OSError as error:
        raise failure(error, str(path)) from error
    return True


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._ -]", "_", name)[:60] or "machine"
