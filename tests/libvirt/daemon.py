# SPDX-License-Identifier: Apache-2.0
"""A libvirt of the tests' own: its settings, sockets and state in one folder, so that nothing of the machine's is
touched, and as many as there are tests can run at once.

It is one of a session. Root's would be the system's, so root has it in a user namespace in which it is somebody else.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.machines.guest import Shell, initramfs, make_disk, until

__all__ = ["Daemon", "Defined", "Little", "with_two_disks"]

_SETTINGS = """security_driver = "none"
cgroup_controllers = []
namespaces = []
remember_owner = 0
stdio_handler = "file"
"""
_REAP = """cat >/dev/null
for file in "$0"/RUNTIME_DIR/libvirt/qemu/run/*.pid "$0"/pid; do [ -f "$file" ] && kill -9 "$(cat "$file")"; done
rm -rf "$0"
"""
_UNLIKE_ROOT = ("unshare", "--user", "--map-user=1000", "--map-group=1000")


class Daemon:
    """It runs. `uri`: where; `environment`: with which it, and what looks for its files, is started."""

    def __init__(self) -> None:
        missing = [name for name in ("libvirtd", "virsh") if shutil.which(name, path=_path()) is None]
        if missing:
            pytest.skip(f"needs {', '.join(missing)}; scripts/tools.sh installs them")
        self.folder = Path(tempfile.mkdtemp(prefix="kslv-", dir="/tmp"))  # sockets have short paths
        self.environment = {"HOME": str(self.folder), "PATH": _path()}
        for name in ("CONFIG_HOME", "RUNTIME_DIR", "CACHE_HOME", "DATA_HOME", "STATE_HOME"):
            self.environment[f"XDG_{name}"] = str(self.folder / name)
        settings = self.folder / "CONFIG_HOME/libvirt"
        settings.mkdir(parents=True)
        (settings / "qemu.conf").write_text(_SETTINGS)
        (settings / "libvirtd.conf").write_text(f'log_outputs = "3:file:{self.folder}/log"\n')
        socket = self.folder / "RUNTIME_DIR/libvirt/libvirt-sock"
        self.uri = f"qemu:///session?socket={socket}"
        self._start = ["libvirtd", "-f", str(settings / "libvirtd.conf"), "-p", str(self.folder / "pid")]
        if os.geteuid() == 0:
            if subprocess.run([*_UNLIKE_ROOT, "true"], check=False, capture_output=True).returncode:
                pytest.skip("root needs a user namespace for a libvirt of its own, and gets none here")
            self._start = [*_UNLIKE_ROOT, *self._start]
        # Machines outlive the daemon, and would outlive a run of tests that is killed; this one hears of it.
        self._reaper = subprocess.Popen(
            ["sh", "-c", _REAP, str(self.folder)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        """As after `stop`."""
        with (self.folder / "said").open("ab") as said:
            self.process = subprocess.Popen(
                self._start,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        until(self._answers, f"an answer of libvirtd ({(self.folder / 'said').read_text()})", 30)
        return self.process

    def _answers(self) -> bool:
        assert self.process.poll() is None, (self.folder / "said").read_text()
        return self._run("list").returncode == 0

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = ["virsh", "--quiet", "--connect", self.uri, *words]
        return subprocess.run(
            command, check=False, capture_output=True, text=True, env={**self.environment, "LC_ALL": "C"}
        )

    def virsh(self, *words: str) -> str:
        """What it says."""
        done = self._run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def define(self, description: str) -> None:
        """A new domain."""
        path = self.folder / "new.xml"
        path.write_text(description)
        self.virsh("define", str(path))

    def stop(self) -> None:
        """The daemon; its machines go on."""
        self.process.terminate()
        self.process.wait(30)

    def close(self) -> None:
        """And all its machines."""
        if self.process.poll() is None:
            for uuid in self._run("list", "--uuid").stdout.split():
                self._run("destroy", uuid)
            self.stop()
        assert self._reaper.stdin is not None
        self._reaper.stdin.close()
        self._reaper.wait(30)


def _path() -> str:
    return os.environ["PATH"] + ":/usr/sbin:/sbin"


class Defined:
    """A domain that there is."""

    def __init__(self, daemon: Daemon, name: str) -> None:
        self.daemon, self.name = daemon, name

    def frozen(self) -> bool:
        """Whether the agent says so."""
        status = ("qemu-agent-command", self.name, '{"execute":"guest-fsfreeze-status"}')
        return "frozen" in self.daemon.virsh(*status)

    def checkpoints(self) -> list[str]:
        return self.daemon.virsh("checkpoint-list", self.name, "--name").split()

    def job(self) -> bool:
        """Whether it has a backup job."""
        return self.daemon._run("backup-dumpxml", self.name).returncode == 0


class Little(Defined):
    """The tiny guest as a domain that runs. `disks`: (target, image) of each; a TCG machine of 256 MiB."""

    def __init__(self, daemon: Daemon, disks: list[tuple[str, Path]], name: str) -> None:
        super().__init__(daemon, name)
        self.disks = disks
        self._test = daemon.folder / f"{name}.test"
        kernel, image = initramfs()
        devices = "".join(
            f"<disk type='file' device='disk'><driver name='qemu' type='{_format(path)}' discard='unmap'/>"
            f"<source file='{path}'/><target dev='{target}' bus='virtio'/></disk>"
            for target, path in disks
        )
        daemon.define(f"""<domain type='qemu'><name>{name}</name><memory unit='MiB'>256</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><kernel>{kernel}</kernel><initrd>{image}</initrd>
<cmdline>console=ttyS0 quiet panic=-1</cmdline></os><features><acpi/></features><cpu mode='maximum'/>
<devices><emulator>{shutil.which("qemu-system-x86_64")}</emulator>{devices}
<disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>
<serial type='file'><source path='{daemon.folder}/{name}.serial'/></serial>
<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
<channel type='unix'><source mode='bind' path='{self._test}'/><target type='virtio' name='test.0'/></channel>
<memballoon model='none'/></devices></domain>""")
        self._shell = Shell(self._test)
        self.start()

    def start(self) -> None:
        """Boot it."""
        self.daemon.virsh("start", self.name)

    def again(self) -> None:
        """It has begun anew; wait for it where it is asked next."""
        self._shell.close()

    def sh(self, script: str, *, wait: bool = True) -> str:
        """See `Shell.sh`."""
        return self._shell.sh(script, wait=wait)

    def agent(self) -> None:
        """Wait until its own agent answers."""
        ping = ("qemu-agent-command", self.name, '{"execute":"guest-ping"}')
        until(lambda: self.daemon._run(*ping).returncode == 0, "the guest agent")

    def destroy(self) -> None:
        """End it at once; where that is done already, nothing."""
        self._shell.close()
        self.daemon._run("destroy", self.name)

    def off(self) -> None:
        """Shut the guest down in good order."""
        self.sh("touch /run/off")
        self._shell.close()
        until(lambda: self.daemon.virsh("domstate", self.name).strip() == "shut off", "the end of the guest")

    def close(self) -> None:
        """Take it away."""
        self._shell.close()
        with contextlib.suppress(AssertionError):
            self.daemon.virsh("destroy", self.name)
        self.daemon.virsh("undefine", self.name, "--checkpoints-metadata", "--nvram")


def _format(path: Path) -> str:
    return "qcow2" if path.suffix == ".qcow2" else "raw"


def with_two_disks(daemon: Daemon, name: str, *sizes: int, old: int) -> Little:
    """One of these MiB that keeps its record of changes, with `old` MiB of noise, and one that cannot."""
    folder = daemon.folder / name
    folder.mkdir()
    disks = [("vda", make_disk(folder / "d0.qcow2", sizes[0])), ("vdb", make_disk(folder / "d1.raw", sizes[1], "raw"))]
    little = Little(daemon, disks, name)
    little.sh(f"dd if=/dev/urandom of=/a/old bs=1M count={old} 2>/dev/null; date > /b/small; sync")
    little.agent()
    return little
