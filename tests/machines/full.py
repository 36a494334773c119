# SPDX-License-Identifier: Apache-2.0
"""A whole Debian as a guest: SeaBIOS, extlinux, kernel, systemd, the guest agent, on one ext4 disk of 2 GiB.

It is built once, from the mirrors that this machine's apt has, and kept in the user's cache folder under a digest of
everything that it is made of. No device is mounted for it: `mke2fs -d` fills the file system, and the boot loader is
put in by the guest itself, which is started with its kernel from outside that one time. As the tiny guest it has two
agents, the second for the tests.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import platformdirs
import pytest

from tests.machines.guest import Guest, agent_until, monitor, tools

__all__ = ["OFFSET", "FullGuest", "full_disk"]

OFFSET = 1 << 20
"""Where on the disk the file system begins, in bytes."""
_SIZE = 2 << 30
_SUITE = "bookworm"
_PACKAGES = (
    "linux-image-cloud-amd64",
    "initramfs-tools",
    "systemd-sysv",
    "udev",
    "qemu-guest-agent",
    "extlinux",
    "syslinux-common",
    "e2fsprogs",
)
_LEFT_OUT = ("doc", "man", "locale", "info")  # of /usr/share
_UUID = "11111111-2222-3333-4444-555555555555"
_APPEND = f"root=UUID={_UUID} rw console=ttyS0 quiet"
_FILES = {
    "etc/fstab": f"UUID={_UUID} / ext4 errors=remount-ro 0 1\n",
    "etc/hostname": "full\n",
    "etc/systemd/system/test-agent.service": """[Service]
ExecStart=/usr/sbin/qemu-ga -m virtio-serial -p /dev/virtio-ports/test.0 -t /run/test-agent -f /run/test-agent/pid
RuntimeDirectory=test-agent
Restart=always
RestartSec=0.2
""",
    "etc/udev/rules.d/90-test-agent.rules": (
        'SUBSYSTEM=="virtio-ports", ATTR{name}=="test.0", TAG+="systemd", ENV{SYSTEMD_WANTS}="test-agent.service"\n'
    ),
    "boot/extlinux/extlinux.conf": f"""DEFAULT debian
PROMPT 0
LABEL debian
  KERNEL /vmlinuz
  INITRD /initrd.img
  APPEND {_APPEND}
""",
}
_MASKED = ("apt-daily.timer", "apt-daily-upgrade.timer", "fstrim.timer", "e2scrub_all.timer", "e2scrub_reap.service")
_TABLE = "label: dos\nstart=2048, type=83, bootable\n"
_FEATURES = "^metadata_csum_seed,^64bit"  # which extlinux cannot read
_INSTALL = "extlinux --install /boot/extlinux && systemctl is-system-running --wait && sync"
_MACHINE = ("-m", "512", "-smp", "2", "-device", "virtio-rng-pci")
_PATIENCE = 300.0


class FullGuest(Guest):
    """A Debian that boots from `disk`."""

    def __init__(self, folder: Path, disk: Path, *, extra: Sequence[str] = ()) -> None:
        self._began = time.monotonic()
        super().__init__(folder, [("d0", disk)], boots=False, extra=[*_MACHINE, *extra])
        try:
            with monitor(self.qmp) as ask:
                ask("cont")
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> FullGuest:
        return self

    def answers(self) -> float:
        """Seconds from the start of QEMU until the guest's agent answered."""
        agent_until(self.qga, "thawed", _PATIENCE)
        return time.monotonic() - self._began

    def settles(self) -> str:
        """What `systemctl is-system-running` says when the guest has come up."""
        self.answers()
        return self.sh("systemctl is-system-running --wait || true").strip()

    def sh(self, script: str, *, wait: bool = True, seconds: float = _PATIENCE) -> str:
        """See `Guest`; with more patience, for there is more of everything."""
        return super().sh(script, wait=wait, seconds=seconds)

    def off(self) -> None:
        """Shut the guest down in good order. Without D-Bus the agent's own command does not."""
        self.sh("systemctl poweroff", wait=False)
        self.process.wait(_PATIENCE)


def full_disk() -> Path:
    """Its disk, a qcow2 that nobody may write; made where it is not there yet, which takes some minutes."""
    tools()
    missing = [name for name in ("mmdebstrap", "sfdisk") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}; scripts/tools.sh installs them")
    cache = platformdirs.user_cache_path("keepstone-tests", appauthor=False) / "full"
    cache.mkdir(parents=True, exist_ok=True)
    recipe = [_SUITE, _PACKAGES, _LEFT_OUT, _FILES, _MASKED, _TABLE, _FEATURES, _INSTALL, _SIZE, OFFSET]
    disk = cache / f"{hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]}.qcow2"
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not disk.exists():
            if os.geteuid() != 0:
                pytest.skip("a Debian is made by root only, once; run this test as root for the first time")
            part = cache / "part"
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            _build(part)
            (part / "disk.qcow2").rename(disk)
            shutil.rmtree(part)
    return disk


def _run(*command: object, text: str | None = None) -> None:
    done = subprocess.run([*map(str, command)], input=text, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{command[0]}: {done.stdout[-2000:]}{done.stderr[-2000:]}"


def _build(folder: Path) -> None:
    tree, raw, disk = folder / "tree", folder / "disk.raw", folder / "disk.qcow2"
    without = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _LEFT_OUT]
    debian = ["--variant=minbase", f"--include={','.join(_PACKAGES)}", "--format=directory", *without]
    _run("mmdebstrap", *debian, '--aptopt=Acquire::Languages "none"', _SUITE, tree, "-", text=_mirrors())
    for name, content in _FILES.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(content)
    for unit in _MASKED:
        (tree / "etc/systemd/system" / unit).symlink_to("/dev/null")
    with raw.open("wb") as file:
        file.truncate(_SIZE)
    _run("sfdisk", "-q", raw, text=_TABLE)
    options = ["-t", "ext4", "-O", _FEATURES, "-U", _UUID, "-E", f"offset={OFFSET},lazy_itable_init=0"]
    _run("mke2fs", "-q", "-F", *options, "-d", tree, raw, f"{(_SIZE - OFFSET) >> 10}k")
    with raw.open("r+b") as file:
        file.write((tree / "usr/lib/EXTLINUX/mbr.bin").read_bytes()[:440])
    _run("qemu-img", "convert", "-O", "qcow2", raw, disk)
    kernel = ["-kernel", str(tree / "vmlinuz"), "-initrd", str(tree / "initrd.img"), "-append", _APPEND]
    with FullGuest(folder, disk, extra=kernel) as guest:
        guest.answers()
        guest.sh(_INSTALL)
        guest.off()
    disk.chmod(0o444)


def _mirrors() -> str:
    """Where this machine's apt has the suite from, as lines for it."""
    asked = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"]
    lines = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.splitlines()
    found = sorted({line for line in lines if line.split()[1].partition("-")[0] == _SUITE and line.endswith(" main")})
    if not found:
        pytest.skip(f"apt knows no mirror of {_SUITE}; run `apt-get update` on a Debian of that name")
    return "".join(f"deb {line}\n" for line in found)
