# SPDX-License-Identifier: Apache-2.0
"""Restores of a disk into an image of another format, through the API."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.service.protecting import Vault
from tests.unit.disks_writing.images import QEMU, needs_qemu, qemu

pytestmark = pytest.mark.vm

ELSEWHERE = {"objectType": "ImageRestoreRequest", "recoveryType": "AlternateLocation"}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    image = tmp_path / "disk.img"
    image.write_bytes(os.urandom(1 << 20) + bytes(3 << 20) + b"end")
    return image


@pytest.fixture
def point(vault: Vault, image: Path) -> dict[str, Any]:
    item = vault.protect(image, sourceType="DiskImage")
    assert vault.back_up(item)["status"] == "Completed"
    return vault.points(item)[0]


@needs_qemu
@pytest.mark.parametrize("name", ["vhd", "vhdx", "vmdk", "qcow2"])
def test_into_a_new_file(vault: Vault, image: Path, point: dict[str, Any], tmp_path: Path, name: str) -> None:
    target = tmp_path / f"restored.{name}"
    assert vault.restore(point, **ELSEWHERE, targetPath=str(target), format=name)["status"] == "Completed"
    qemu("compare", "-f", "raw", "-F", QEMU.get(name, name), image, target)
    assert vault.restore(point, **ELSEWHERE, targetPath=str(target), format=name)["status"] == "Failed"


def test_raw_unless_somebody_says_so(vault: Vault, image: Path, point: dict[str, Any], tmp_path: Path) -> None:
    for wanted in ({"targetPath": str(tmp_path / "a")}, {"targetPath": str(tmp_path / "b.vhdx"), "format": "raw"}):
        assert vault.restore(point, **ELSEWHERE, **wanted)["status"] == "Completed"
        assert Path(wanted["targetPath"]).read_bytes() == image.read_bytes()
    back = {"objectType": "ImageRestoreRequest", "recoveryType": "OriginalLocation"}
    assert vault.restore(point, **back)["status"] == "Completed"
    assert vault.restore(point, **back, format="raw")["status"] == "Completed"


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ({**ELSEWHERE, "targetPath": "/somewhere/disk.vhdx"}, "choose properties.format vhdx"),
        ({**ELSEWHERE, "targetPath": "/somewhere/disk", "format": "vdi"}, "choose one of raw, vhd"),
        ({**ELSEWHERE, "targetPath": "/somewhere/disk", "format": ["vhd"]}, "choose one of raw, vhd"),
        ({**ELSEWHERE, "recoveryType": "OriginalLocation", "format": "vhdx"}, "AlternateLocation"),
    ],
)
def test_what_is_refused(vault: Vault, point: dict[str, Any], wanted: dict[str, Any], why: str) -> None:
    answered = vault.client.ask("POST", f"{point['id']}/restore", {"properties": wanted})
    assert answered.status == 400
    assert answered.body["error"]["target"] == "properties.format"
    assert why in answered.body["error"]["message"]


def test_files_have_no_format(vault: Vault, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").write_bytes(b"a")
    item = vault.protect(folder)
    vault.back_up(item)
    (point,) = vault.points(item)
    wanted = {"objectType": "FilesRestoreRequest", "recoveryType": "OriginalLocation", "format": "vhdx"}
    answered = vault.client.ask("POST", f"{point['id']}/restore", {"properties": wanted})
    assert answered.status == 400
    assert "is for disks" in answered.body["error"]["message"]
