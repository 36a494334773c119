# SPDX-License-Identifier: Apache-2.0
"""qcow2 by way of QEMU: nothing of it stays behind, and nothing else is read."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from keepstone.disks import open_disk
from keepstone.env import Env
from keepstone.errors import SourceFailed, Unsupported
from tests.unit.disks.foreign import MIB, noise, qemu_image, read_all, scattered

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(not shutil.which("qemu-nbd"), reason="needs qemu-img and qemu-nbd (apt install qemu-utils)"),
]


def create(path: Path, *options: str) -> Path:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, path, "1M"], check=True, cwd=path.parent)
    return path


def servers() -> list[str]:
    """Those that this process has started and that still run."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name, _, fields = (process / "stat").read_text().rpartition(")")
            if name.endswith("(qemu-nbd") and int(fields.split()[1]) == os.getpid():
                found.append(process.name)
    return found


def test_only_what_is_stored_is_read_and_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    content = scattered(tmp_path / "disk.raw", 9 * MIB)
    image = qemu_image(tmp_path / "disk.raw", tmp_path / "disk.qcow2", "qcow2", "compression_type=zstd")
    before = sorted(os.listdir(tmp_path))

    with open_disk(Env(threads=2), image) as disk:
        assert len(servers()) == 1
        assert read_all(disk) == content
        stored = sum(extent.length for extent in disk.extents() if not extent.zero)
        assert 0 < stored <= 20 * (300_000 + 2 * (64 << 10))
    assert servers() == []
    assert sorted(os.listdir(tmp_path)) == before


def test_another_file_is_never_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(noise(MIB))
    for options in (["-b", "secret", "-F", "raw"], ["-o", "data_file=secret.data"]):
        image = create(tmp_path / "disk.qcow2", *options)
        with pytest.raises(Unsupported, match="in another file; back up what `qemu-img convert"):
            open_disk(Env(), image)
        assert servers() == []


def encrypted(path: Path, *options: str) -> Path:
    """qemu-img measures its own CPU time for a key, and gives up now and then ("Unable to get accurate CPU usage")."""
    for _ in range(4):
        with contextlib.suppress(subprocess.CalledProcessError):
            return create(path, *options)
        path.unlink(missing_ok=True)
    return create(path, *options)


def test_encrypted(tmp_path: Path) -> None:
    secret = ["--object", "secret,id=s,data=x", "-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"]
    with pytest.raises(Unsupported, match="is encrypted"):
        open_disk(Env(), encrypted(tmp_path / "disk.qcow2", *secret))


def test_what_qemu_does_not_take(tmp_path: Path) -> None:
    image = create(tmp_path / "disk.qcow2")
    data = bytearray(image.read_bytes())
    data[40:48] = b"\xff" * 8  # where its table is
    image.write_bytes(data)
    with pytest.raises(SourceFailed, match=r"disk\.qcow2: QEMU does not read it: .*[Ii]nvalid"):
        open_disk(Env(), image)
    image.write_bytes(data[:100])
    with pytest.raises(SourceFailed, match="cut short"):
        open_disk(Env(), image)
    assert servers() == []


def test_without_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = create(tmp_path / "disk.qcow2")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unsupported, match=r"install it .*or back up what `qemu-img convert -O raw"):
        open_disk(Env(), image)
