# SPDX-License-Identifier: Apache-2.0
"""A guest that is up in some seconds without KVM: Debian's cloud kernel, busybox, and the real QEMU guest agent.

Words on its kernel's command line: `agent=no`, and `prompt=ttyS0` for a login prompt there.

Its packages are downloaded once, into the user's cache folder. Two agents run in it: one is the hypervisor's, with a
hook that tests can make slow; through the other one tests reach the guest, also while the first one is busy or its
file systems are frozen.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import itertools
import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import platformdirs
import pytest

__all__ = ["Guest", "Shell", "agent_until", "initramfs", "make_disk", "monitor", "tools", "until"]

_TOOLS = (
    "qemu-system-x86_64",
    "qemu-img",
    "mke2fs",
    "e2fsck",
    "cpio",
    "gzip",
    "dpkg-deb",
    "apt-get",
    "ldd",
)
_PCI = ("virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci")
_MODULES = (
    "virtio_ring",
    "virtio",
    *_PCI,
    "virtio_blk",
    "virtio_console",
)  # each needs those before it
_INIT = f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/usr/sbin:/bin
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev
for m in {" ".join(_MODULES)}; do insmod /mod/$m.ko; done
mkdir -p /dev/virtio-ports /run/first /run/second /a /b
agent() {{  # port, folder, options; the port comes later, or never
  while [ ! -e /dev/virtio-ports/$1 ]; do
    for p in /sys/class/virtio-ports/*; do
      [ -s $p/name ] && ln -sf /dev/${{p##*/}} /dev/virtio-ports/$(cat $p/name)
    done
    sleep 0.05
  done
  exec qemu-ga -m virtio-serial -p /dev/virtio-ports/$1 -t /run/$2 -f /run/$2/pid $3
}}
ln -s /proc/mounts /etc/mtab
[ -b /dev/vda ] && mount -t ext4 /dev/vda /a
[ -b /dev/vdb ] && mount -t ext4 /dev/vdb /b
[ "$agent" = no ] || agent org.qemu.guest_agent.0 first -F/hook &
agent test.0 second &
[ -z "$prompt" ] || getty 115200 $prompt &
while [ ! -f /run/off ]; do sleep 0.2; done
umount /a /b; sync; poweroff -f
"""
_SHUTDOWN = """#!/bin/sh
touch /run/off
"""
_SIGNS = itertools.count(1)
_HOOK = """#!/bin/sh
[ -f /run/slow-$1 ] && sleep $(cat /run/slow-$1)
exit 0
"""


def tools() -> None:
    """Skip the test where a program that it needs is missing."""
    missing = [name for name in _TOOLS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}; scripts/tools.sh installs them")


def _run(*command: str | Path, cwd: Path | None = None) -> str:
    return subprocess.run([*map(str, command)], cwd=cwd, check=True, capture_output=True, text=True).stdout


def _unpacked(cache: Path, package: str) -> Path:
    """The content of a Debian package; a skip where it cannot be downloaded."""
    place = cache / package
    if not place.is_dir():
        try:
            _run("apt-get", "download", "-q", package, cwd=cache)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"the package {package} cannot be downloaded: {error.stderr.strip().splitlines()[-1:]}")
        (archive,) = cache.glob(f"{package}_*.deb")
        _run("dpkg-deb", "-x", archive, cache / "part")
        archive.unlink()
        (cache / "part").rename(place)
    return place


def initramfs() -> tuple[Path, Path]:
    """(kernel, initramfs), made where they are not there yet."""
    tools()
    cache = platformdirs.user_cache_path("keepstone-tests", appauthor=False) / "guest"
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(cache / "part", ignore_errors=True)
        depends = re.search(r"Depends: (linux-image-\S+)", _run("apt-cache", "depends", "linux-image-cloud-amd64"))
        if depends is None:
            pytest.skip("apt knows no linux-image-cloud-amd64; run `apt-get update`")
        kernel = _unpacked(cache, depends[1])
        busybox = _unpacked(cache, "busybox-static") / "bin/busybox"
        agent = _unpacked(cache, "qemu-guest-agent") / "usr/sbin/qemu-ga"
        version = next(kernel.glob("boot/vmlinuz-*")).name.removeprefix("vmlinuz-")
        form = hashlib.sha256("\0".join([_INIT, _HOOK, _SHUTDOWN, version]).encode()).hexdigest()[:16]
        image = cache / f"{form}.img"
        if not image.exists():
            tree = cache / "part"
            _fill(tree, kernel, busybox, agent)
            packed = f"find . | cpio -o -H newc --quiet | gzip -1 > {cache}/part.img"
            subprocess.run(["sh", "-c", packed], cwd=tree, check=True)
            (cache / "part.img").rename(image)
            shutil.rmtree(tree)
        return kernel / f"boot/vmlinuz-{version}", image


def _fill(tree: Path, kernel: Path, busybox: Path, agent: Path) -> None:
    for folder in ("bin", "dev", "etc", "mod", "proc", "run", "sbin", "sys", "tmp", "usr/sbin", "var/run", "lib64"):
        (tree / folder).mkdir(parents=True)
    shutil.copy(busybox, tree / "bin/busybox")
    for name in _MODULES:
        shutil.copy(next(kernel.glob(f"lib/modules/*/kernel/**/{name}.ko")), tree / "mod")
    shutil.copy(agent, tree / "usr/sbin/qemu-ga")
    for library in re.findall(r"(/\S+\.so\S*)", _run("ldd", agent)):
        place = tree / "lib64" if "ld-linux" in library else tree / Path(library).parent.relative_to("/")
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, place)
    for name, text in (("init", _INIT), ("hook", _HOOK), ("sbin/shutdown", _SHUTDOWN)):
        (tree / name).write_text(text)
        (tree / name).chmod(0o755)


def make_disk(path: Path, mebibytes: int, form: str = "qcow2", label: str = "") -> Path:
    """A disk with an empty ext4 file system."""
    raw = path.with_suffix(".ext4")
    with raw.open("wb") as file:
        file.truncate(mebibytes << 20)
    _run("mke2fs", "-q", "-F", "-t", "ext4", "-L", label, "-E", "lazy_itable_init=0,lazy_journal_init=0", raw)
    _run("qemu-img", "convert", "-O", form, raw, path)
    raw.unlink()
    return path


def until(condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """What the condition gives, as soon as that is something."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"{what} did not come"
        time.sleep(0.02)
    return value


class _Lines:
    """JSON lines over a unix socket."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(60)
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise
        self._file = self._socket.makefile("rb")

    def send(self, message: dict[str, Any], prefix: bytes = b"") -> None:
        self._socket.sendall(prefix + json.dumps(message).encode() + b"\n")

    def read(self) -> dict[str, Any]:
        line = self._file.readline()
        if not line:
            raise EOFError
        return dict(json.loads(line.rpartition(b"\xff")[2]))

    def patience(self, seconds: float) -> None:
        self._socket.settimeout(seconds)

    def close(self) -> None:
        self._file.close()
        self._socket.close()


@contextlib.contextmanager
def monitor(path: Path) -> Iterator[Callable[..., Any]]:
    """A function that executes a command of QMP; QEMU talks to one client at a time."""
    lines = _Lines(path)

    def execute(command: str, **arguments: Any) -> Any:
        lines.send({"execute": command, "arguments": {name.replace("_", "-"): arguments[name] for name in arguments}})
        while True:
            answer = lines.read()
            if "error" in answer:
                raise RuntimeError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    try:
        lines.read()
        execute("qmp_capabilities")
        yield execute
    finally:
        lines.close()


class _Agent:
    """A guest agent, as soon as it answers."""

    def __init__(self, path: Path, seconds: float = 90) -> None:
        self.lines: _Lines = until(lambda: self._answering(path), f"an answer of the agent at {path}", seconds)

    @staticmethod
    def _answering(path: Path) -> _Lines | None:
        try:
            lines = _Lines(path)
        except OSError:
            return None
        try:
            lines.patience(1)
            sign = next(_SIGNS)  # an answer to one that asked before may still come
            lines.send({"execute": "guest-sync-delimited", "arguments": {"id": sign}}, b"\xff")
            while lines.read().get("return") != sign:
                pass
        except (OSError, EOFError):
            lines.close()
            return None
        lines.patience(60)
        return lines

    def ask(self, command: str, **arguments: Any) -> Any:
        self.lines.send({"execute": command, "arguments": arguments})
        answer = self.lines.read()
        if "error" in answer:
            raise RuntimeError(f"{command}: {answer['error']}")
        return answer["return"]


def agent_until(path: Path, state: str, seconds: float = 30) -> None:
    """Wait until the agent at this socket says that its file systems are `frozen` or `thawed`."""
    agent = _Agent(path, seconds)
    until(lambda: agent.ask("guest-fsfreeze-status") == state, state, seconds)
    agent.lines.close()


class Shell:
    """The guest's shell, by an agent that nobody else talks to, whose socket this is; as soon as it answers."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._agent: _Agent | None = None

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._agent is not None:
            self._agent.lines.close()
            self._agent = None

    def sh(self, script: str, *, wait: bool = True, seconds: float = 60) -> str:
        """Run a script in the guest; what it says within so many seconds. Without `wait` it runs on by itself."""
        if self._agent is None:
            self._agent = _Agent(self._socket)
        agent = self._agent
        asked: dict[str, Any] = {"path": "/bin/sh", "arg": ["-c", script], "capture-output": wait}
        pid = agent.ask("guest-exec", **asked)["pid"]
        if not wait:
            return ""
        state = until(lambda: (told := agent.ask("guest-exec-status", pid=pid))["exited"] and told, script, seconds)
        said = base64.b64decode(state.get("out-data", "")) + base64.b64decode(state.get("err-data", ""))
        assert state.get("exitcode") == 0, f"{script}: {said.decode()}"
        return said.decode()


class Guest:
    """A running machine. `disks`: (id, image) of each; `qmp`, `qga`: sockets of its monitor and its agent."""

    def __init__(
        self, folder: Path, disks: Sequence[tuple[str, Path]], *, extra: Sequence[str] = (), boots: bool = True
    ) -> None:
        self.folder, self.disks = folder, disks
        self.qmp, self.qga = folder / "qmp", folder / "qga"
        command = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-M", "q35", "-m", "256"]
        command += ["-name", "little", "-nodefaults", "-display", "none", "-no-reboot"]
        command += ["-qmp", f"unix:{self.qmp},server=on,wait=off", "-serial", f"file:{folder}/serial"]
        command += ["-device", "virtio-serial"]
        for name, place, port in (("qga", self.qga, "org.qemu.guest_agent.0"), ("test", folder / "test", "test.0")):
            command += ["-chardev", f"socket,path={place},server=on,wait=off,id={name}"]
            command += ["-device", f"virtserialport,chardev={name},name={port}"]
        for number, (name, image) in enumerate(disks):
            form = "qcow2" if image.suffix == ".qcow2" else "raw"
            block = f"driver={form},node-name={name},discard=unmap,file.driver=file,file.filename={image}"
            command += ["-blockdev", block, "-device", f"virtio-blk-pci,drive={name},id=disk{number}"]
        if boots:
            kernel, image = initramfs()
            command += [
                "-kernel",
                str(kernel),
                "-initrd",
                str(image),
                "-append",
                "console=ttyS0 quiet panic=-1 no_timer_check",
            ]
        else:
            command += ["-S"]
        self.qmp.unlink(missing_ok=True)  # of one that was here before
        self.process = subprocess.Popen([*command, *extra], stdin=subprocess.DEVNULL)
        until(lambda: self.qmp.exists() and self.process.poll() is None, "QEMU's monitor")
        self._shell = Shell(folder / "test")

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *_: object) -> None:
        self._shell.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def sh(self, script: str, *, wait: bool = True, seconds: float = 60) -> str:
        """See `Shell.sh`."""
        return self._shell.sh(script, wait=wait, seconds=seconds)

    def again(self) -> None:
        """It has begun anew; wait for it where it is asked next."""
        self._shell.close()

    def off(self) -> None:
        """Shut the guest down in good order."""
        self.sh("touch /run/off")
        self.process.wait(30)
