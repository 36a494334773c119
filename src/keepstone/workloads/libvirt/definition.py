# SPDX-License-Identifier: Apache-2.0
"""What one needs to make a domain anew, beside its disks: its XML, its NVRAM, and the state of its TPM.

NVRAM and TPM are files that libvirt's backup does not know. They are small, and read whole at the moment of the disks;
one that changes meanwhile is read again. In the point they are disks of their roles, each the file to the byte.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from keepstone.disks import Extent
from keepstone.env import Env
from keepstone.errors import SourceFailed
from keepstone.objects import PAGE, failure
from keepstone.workloads.libvirt.domains import Domain
from keepstone.workloads.libvirt.virsh import Virsh
from keepstone.workloads.machines import Disk, Part, Role

__all__ = ["DOCUMENT", "FACTS", "NVRAM", "definition", "state", "state_file"]

DOCUMENT = "domain.xml"
FACTS = "libvirt.json"
NVRAM = "nvram"
_LARGEST = 64 << 20
_AGAIN = 5
_TPM_FILES = ("tpm2/tpm2-00.permall", "tpm1.2/tpm-00.permall")


def definition(virsh: Virsh, domain: Domain) -> dict[str, bytes]:
    """`domain.xml`: how it will be at its next start, with its secrets; `libvirt.json`: where it was, and which files
    of its host it needs that are not in the point. `Refused`, `Gone`."""
    text = virsh.ask("dumpxml", domain.uuid, "--inactive", "--security-info")
    facts = {
        "uri": virsh.uri,
        "uuid": domain.uuid,
        "name": domain.name,
        "state": domain.state,
        "firmware": domain.firmware,
        "nvram": domain.nvram,
        "kernel": domain.kernel,
        "initrd": domain.initrd,
        "disks": {disk.target: {"source": disk.source, "format": disk.format} for disk in domain.disks},
    }
    return {DOCUMENT: text.encode("utf-8", "surrogateescape"), FACTS: msgspec.json.encode(facts)}


def state(env: Env, virsh: Virsh, domain: Domain, warn: Callable[[str], None]) -> list[Part]:
    """What its firmware and its TPM keep, as it is now. What cannot be read is told, and left out."""
    parts = []
    if domain.nvram:
        parts += _part(env, Path(domain.nvram), Disk(NVRAM, 0, Role.NVRAM), warn)
    if domain.tpm:
        folder = _tpm_folder(virsh.uri) / domain.uuid
        found = [folder / name for name in _TPM_FILES if _is_there(env, folder / name)]
        if not found:
            warn(f"the state of its TPM is not in {folder}, and is not part of the point")
        for path in found:
            parts += _part(env, path, Disk(path.name, 0, Role.TPM), warn)
    return parts


def state_file(virsh: Virsh, domain: Domain, disk: Disk) -> Path | None:
    """Where the domain has what this is of a point: a file of its firmware or its TPM; None where it has none."""
    if disk.role is Role.NVRAM:
        return Path(domain.nvram) if domain.nvram else None
    known = [Path(name) for name in _TPM_FILES if Path(name).name == disk.name]
    return _tpm_folder(virsh.uri) / domain.uuid / known[0] if domain.tpm and known else None


def _tpm_folder(uri: str) -> Path:
    """Where libvirt has swtpm keep it (libvirt, src/qemu/qemu_conf.c)."""
    if "/system" in uri.partition("?")[0]:
        return Path("/var/lib/libvirt/swtpm")
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "libvirt/qemu/swtpm"


def _is_there(env: Env, path: Path) -> bool:
    """As far as we may see."""
    try:
        env.fs.stat(path)
    except OSError:
        return False
    return True


def _part(env: Env, path: Path, disk: Disk, warn: Callable[[str], None]) -> list[Part]:
    try:
        content = _settled(env, path)
    except OSError as error:
        warn(f"{path} is not part of the point: {failure(error, str(path))}")
        return []
    except SourceFailed as error:
        warn(str(error))
        return []
    return [Part(Disk(disk.name, len(content), disk.role), _Bytes(content))]


def _settled(env: Env, path: Path) -> bytes:
    """The file as it was at one time."""
    before = _whole(env, path)
    for _ in range(_AGAIN):
        now = _whole(env, path)
        if now == before:
            return now
        before = now
    raise SourceFailed(f"{path} is not part of the point: it changes all the time")


def _whole(env: Env, path: Path) -> bytes:
    fd = env.fs.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        size = env.fs.fstat(fd).st_size
        if size > _LARGEST:
            raise SourceFailed(f"{path} is not part of the point: it has more than {_LARGEST >> 20} MiB")
        return env.fs.pread(fd, size, 0)
    finally:
        env.fs.close(fd)


class _Bytes:
    """The `BlockSource` of a file that was read already."""

    block_size = PAGE

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size = len(content)

    def token(self) -> str | None:
        return None

    def extents(self, since: str | None = None) -> Iterator[Extent]:
        if self.size:
            yield Extent(0, self.size, zero=False)

    def pread_into(self, buffer: memoryview, offset: int) -> int:
        found = self._content[offset : offset + len(buffer)]
        buffer[: len(found)] = found
        return len(found)

    def close(self) -> None:
        """There is nothing to let go of."""
