# SPDX-License-Identifier: Apache-2.0
"""Images of a machine that is off are read while nobody writes to them, and nobody gets to."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from keepstone.env import Env
from keepstone.errors import Conflict, SourceMissing, Unsupported
from keepstone.workloads.libvirt.chain import unread
from keepstone.workloads.libvirt.domains import DomainDisk
from keepstone.workloads.libvirt.images import Image
from tests.libvirt.images import writing
from tests.machines.guest import tools

pytestmark = pytest.mark.vm

_MIB = 1 << 20


@pytest.fixture(params=["raw", "qcow2"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> DomainDisk:
    tools()
    path = tmp_path / f"disk.{request.param}"
    subprocess.run(["qemu-img", "create", "-q", "-f", request.param, path, "1M"], check=True)
    return DomainDisk("vda", str(path), "file", request.param, _MIB, "virtio", read_only=False)


def write(disk: DomainDisk) -> str:
    """What QEMU says when it wants to."""
    command = ["qemu-io", "-f", disk.format, "-c", "write -P 7 0 64k", disk.source]
    return subprocess.run(command, check=False, capture_output=True, text=True).stderr


def test_nobody_writes_while_it_is_read(disk: DomainDisk) -> None:
    image = Image(Env(), disk, "token", unread)
    try:
        assert 'Failed to get "write" lock' in write(disk)
        assert (image.size, image.token()) == (_MIB, "token")
    finally:
        image.close()
    assert write(disk) == ""
    image = Image(Env(), disk, None, unread)
    try:
        buffer = memoryview(bytearray(4096))
        assert image.pread_into(buffer, 0) == 4096
        assert bytes(buffer) == b"\7" * 4096
    finally:
        image.close()


def test_it_is_not_read_while_somebody_writes(disk: DomainDisk, tmp_path: Path) -> None:
    socket, said = tmp_path / "socket", "is in use by somebody who writes to it"
    with writing(disk.source, disk.format, socket), pytest.raises(Conflict, match=said):
        Image(Env(), disk, None, unread)


def test_what_only_the_machine_reads(tmp_path: Path) -> None:
    far = DomainDisk("vda", "pool/image", "network", "raw", None, "virtio", read_only=False)
    with pytest.raises(Unsupported, match="start the machine, or leave the disk out"):
        Image(Env(), far, None, unread)
    gone = DomainDisk("vda", str(tmp_path / "gone"), "file", "raw", None, "virtio", read_only=False)
    with pytest.raises(SourceMissing):
        Image(Env(), gone, None, unread)
