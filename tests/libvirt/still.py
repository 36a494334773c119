# SPDX-License-Identifier: Apache-2.0
"""A domain without a system, which costs a second to start."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.libvirt.daemon import Daemon, Defined

__all__ = ["Still"]


class Still(Defined):
    """A domain without a system, which writes nothing by itself. `disks`: by target, the image of each. `beneath`: what
    that of `vda`, a qcow2 image, is above."""

    def __init__(self, daemon: Daemon, folder: Path, name: str, *, more: str = "", beneath: Path | None = None) -> None:
        super().__init__(daemon, name)
        self.disks = {"vda": folder / "d0.qcow2", "vdb": folder / "d1.raw"}
        for path, size in zip(self.disks.values(), ("24M", "16M"), strict=True):
            base = ("-b", beneath, "-F", beneath.suffix[1:]) if beneath and path.suffix == ".qcow2" else ()
            subprocess.run(["qemu-img", "create", "-q", "-f", path.suffix[1:], *base, path, size], check=True)
        devices = "".join(
            f"<disk type='file' device='disk'><driver name='qemu' type='{path.suffix[1:]}' discard='unmap'/>"
            f"<source file='{path}'/><target dev='{target}' bus='virtio'/></disk>"
            for target, path in self.disks.items()
        )
        daemon.define(f"""<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory>
<os><type arch='x86_64' machine='q35'>hvm</type></os><devices><emulator>{shutil.which("qemu-system-x86_64")}</emulator>
{devices}{more}<memballoon model='none'/></devices></domain>""")
        daemon.virsh("start", name)

    @property
    def state(self) -> str:
        return self.daemon.virsh("domstate", self.name).strip()

    def description(self) -> str:
        """As it is at its next start."""
        return self.daemon.virsh("dumpxml", self.name, "--inactive", "--security-info")

    def write(self, target: str, *commands: str) -> None:
        """Let QEMU itself write to a disk, as the guest would."""
        device = f"/machine/peripheral/virtio-disk{list(self.disks).index(target)}/virtio-backend"
        for command in commands:
            said = self.daemon.virsh("qemu-monitor-command", self.name, "--hmp", f'qemu-io -d {device} "{command}"')
            assert "error" not in said.lower(), said

    def content(self, folder: Path) -> dict[str, bytes]:
        """What its disks have, as QEMU's own program reads them."""
        folder.mkdir(exist_ok=True)
        found = {}
        for target, image in self.disks.items():
            raw = folder / target
            form = image.suffix[1:]
            subprocess.run(["qemu-img", "convert", "-U", "-f", form, "-O", "raw", image, raw], check=True)
            found[target] = raw.read_bytes()
        return found

    def again(self) -> None:
        """It runs, whatever it did, and nothing is left of a test."""
        if self.state == "paused":
            self.daemon.virsh("resume", self.name)
        if self.state == "shut off":
            self.daemon.virsh("start", self.name)

    def close(self) -> None:
        self.daemon._run("destroy", self.name)
        self.daemon._run("undefine", self.name, "--checkpoints-metadata", "--managed-save")
