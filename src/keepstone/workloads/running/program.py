# SPDX-License-Identifier: Apache-2.0
"""QEMU on this host: where it is, and what of it really works.

Whether KVM does is not a question of `/dev/kvm` being there: in a guest of some clouds it opens, and then QEMU fails or
hangs. So a program of one sector is booted by it that does what kernels do: it enters long mode, takes a step that
emulators of KVM lack (`lock cmpxchg16b`), and counts to fifty million, which takes hundredths of a second on a
processor and minutes where each instruction is emulated. Only where it says in time that it is done, KVM is used.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import IO

from keepstone.env import Env
from keepstone.errors import Unsupported
from keepstone.workloads.running.keeper import Keeper
from keepstone.workloads.running.values import Hardware

__all__ = ["Accel", "Qemu", "qemu_for", "runs"]

_ARCHITECTURES = {"x86_64": "qemu-system-x86_64", "i386": "qemu-system-x86_64"}
_SANDBOX = ("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
_PROBE = 5.0  # seconds
_DONE = 33  # isa-debug-exit ends QEMU with twice what was written, plus one
_PROGRAM = bytes.fromhex(
    # cli; ds = es = 0; cr3 = 0x1000; clear 0x1000 to 0x4000; PML4, PDPT, PD: the first 2 MiB
    "fa31c08ed88ec066bf001000000f22df6631c066b9000c0000fc66f3ab66c70600100320000066c70600200330000066c706003083000000"
    # cr4.PAE; EFER.LME; cr0.PE and PG; lgdt; ljmp to 64 bits
    "66b8200000000f22e066b9800000c00f32660d000100000f300f20c0660d010000800f22c00f0116a87cea677c0800"
    # lock cmpxchg16b [0x3ff0] of zeros; jnz stop; count down from 50,000,000; out 0xf4, 0x10; stop: hlt
    "bff03f000031c031d2bb01000000b902000000f0480fc70f750db980f0fa02ffc975fcb010e6f4f4ebfd"
    # GDT: null, 64-bit code; its pointer
    "0f1f8000000000000000000000000000000000009a20000f00987c"
)


class Accel(StrEnum):
    """What runs the guest: the processor, or QEMU instruction by instruction."""

    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, slots=True)
class Qemu:
    """`machines`: the types that it knows. `sandbox`: words that lock it up."""

    program: str
    accel: Accel
    machines: frozenset[str]
    sandbox: tuple[str, ...]

    @property
    def processor(self) -> list[str]:
        """The words for what runs the guest."""
        if self.accel is Accel.KVM:
            return ["-accel", "kvm", "-cpu", "host"]
        return ["-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max"]


def qemu_for(env: Env, hardware: Hardware, accel: Accel | None = None) -> Qemu:
    """QEMU for a machine; `accel`: use this one and do not ask. `Unsupported` where there is none."""
    name = _ARCHITECTURES.get(hardware.architecture)
    if name is None:
        raise Unsupported(
            f"the machine has the architecture {hardware.architecture!a:.40}, and only those of PCs "
            f"({', '.join(_ARCHITECTURES)}) are started; restore its disks and start it elsewhere"
        )
    program = shutil.which(name)
    if program is None or shutil.which("qemu-img") is None:
        raise Unsupported(f"starting a machine takes {name} and qemu-img; install them (qemu-system-x86, qemu-utils)")
    machines, sandbox = _known(program)
    chosen = accel or (Accel.KVM if runs(program) else Accel.TCG)
    return Qemu(program, chosen, machines, sandbox)


@lru_cache(maxsize=8)
def _known(program: str) -> tuple[frozenset[str], tuple[str, ...]]:
    def said(*words: str) -> str | None:
        done = subprocess.run(
            [program, *words], input="quit\n", capture_output=True, text=True, check=False, timeout=30
        )
        return None if done.returncode else done.stdout

    nothing = ("-M", "none", "-nodefaults", "-display", "none", "-monitor", "stdio")
    machines = said("-machine", "help") or ""
    locked = said(*_SANDBOX, *nothing) is not None
    return frozenset(line.split()[0] for line in machines.splitlines() if line), _SANDBOX if locked else ()


@lru_cache(maxsize=8)
def runs(program: str, accel: str = "kvm", processor: str = "host") -> bool:
    """Whether a guest really runs by it, at a processor's pace."""
    if accel == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    with tempfile.TemporaryFile() as sector:
        return _boots(sector, program, accel, processor)


def _boots(sector: IO[bytes], program: str, accel: str, processor: str) -> bool:
    sector.write(_PROGRAM.ljust(510, b"\0") + b"\x55\xaa")
    sector.flush()
    command = [program, "-accel", accel, "-cpu", processor, "-M", "pc", "-m", "16", "-nodefaults", "-display", "none"]
    command += ["-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=1"]
    # The keeper has the file open under the same number, and QEMU after it.
    drive = f"driver=raw,node-name=disk,file.driver=file,file.locking=off,file.filename=/proc/self/fd/{sector.fileno()}"
    command += ["-blockdev", drive, "-device", "ide-hd,drive=disk"]
    keeper = Keeper(hold=[sector.fileno()])
    try:
        keeper.start(command)
        ended = keeper.wait(_PROBE)
        return ended is not None and ended.status == _DONE
    finally:
        keeper.kill()
        keeper.close()
