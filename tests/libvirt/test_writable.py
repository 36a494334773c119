# SPDX-License-Identifier: Apache-2.0
"""Images that are open for writing: on a block device as in a file, with holes where its machine makes some."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keepstone.disks.nbd import NbdSink
from keepstone.env import Env
from keepstone.errors import SourceFailed, StorageError, Unsupported
from keepstone.workloads.libvirt.chain import unread
from keepstone.workloads.libvirt.domains import DomainDisk
from keepstone.workloads.libvirt.writable import Writable, check_image

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(shutil.which("qemu-nbd") is None, reason="needs qemu-nbd; scripts/tools.sh installs it"),
]
MIB = 1 << 20


@pytest.fixture
def env() -> Env:
    return Env(threads=2)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    backing = tmp_path / "backing"
    backing.write_bytes(b"\xff" * (8 * MIB))
    attach: Any = subprocess.run(["losetup", "-f", "--show", backing], capture_output=True, text=True, check=False)
    if attach.returncode:
        pytest.skip(f"block devices need root and loop devices: {attach.stderr.strip()}")
    yield Path(attach.stdout.strip())
    subprocess.run(["losetup", "-d", attach.stdout.strip()], check=True)


def disk(path: Path, format: str, *, kind: str = "file", discard: bool = False) -> DomainDisk:
    return DomainDisk("vda", str(path), kind, format, 4 * MIB, "virtio", read_only=False, discard=discard)


def put(sink: NbdSink) -> None:
    sink.write(MIB, b"\5" * 65536)
    sink.zero(2 * MIB, MIB)
    sink.finish()


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_a_block_device(env: Env, device: Path, format: str) -> None:
    if format == "qcow2":
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", device, "4M"], check=True)
    one = disk(device, format, kind="block")
    check_image(env, one, lambda path: None, unread)

    with Writable(env, one, unread) as image:
        assert image.sink.size == image.existing.size == (8 if format == "raw" else 4) * MIB
        put(image.sink)

    read: list[str | Path] = ["qemu-io", "-r", "-f", format, "-c", "read -P 5 1M 64k", "-c", "read -P 0 2M 1M", device]
    said = subprocess.run(read, capture_output=True, text=True, check=True).stdout
    assert "verification failed" not in said
    assert said.count("ops;") == 2


@pytest.mark.parametrize("discard", [False, True])
def test_holes_where_its_machine_makes_some(env: Env, tmp_path: Path, discard: bool) -> None:
    path = tmp_path / "x.raw"
    path.write_bytes(b"\xff" * (4 * MIB))

    with Writable(env, disk(path, "raw", discard=discard), unread) as image:
        put(image.sink)

    assert path.read_bytes() == b"\xff" * MIB + b"\5" * 65536 + b"\xff" * (MIB - 65536) + bytes(MIB) + b"\xff" * MIB
    assert (os.stat(path).st_blocks * 512 < 4 * MIB) is discard


def test_what_is_none(env: Env, tmp_path: Path) -> None:
    path = tmp_path / "x.qcow2"
    path.write_bytes(bytes(MIB))
    with pytest.raises(SourceFailed, match=r"x\.qcow2 is no qcow2 image"):
        Writable(env, disk(path, "qcow2"), unread)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "4M"], check=True)
    with path.open("r+b") as file:
        file.seek(40)
        file.write(b"\xff" * 8)  # where its table is
    with pytest.raises(StorageError, match=r"QEMU does not open it for writing: .*[Ii]nvalid"):
        Writable(env, disk(path, "qcow2"), unread)
    with pytest.raises(Unsupported, match="vda is on network storage, which only its machine writes to"):
        check_image(env, disk(path, "raw", kind="network"), lambda path: None, unread)
