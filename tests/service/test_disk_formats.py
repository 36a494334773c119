# SPDX-License-Identifier: Apache-2.0
"""Disks of the service's own machine that are in images of other programs; and what such an image may lead to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.service.protecting import Vault
from tests.unit.disks.foreign import MIB, Vhdx, noise

pytestmark = pytest.mark.vm

ELSEWHERE = {"objectType": "ImageRestoreRequest", "recoveryType": "AlternateLocation"}
ID = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"


def test_the_point_has_the_disk_and_what_its_parent_has(vault: Vault, tmp_path: Path) -> None:
    Vhdx(2 * MIB, {1: (6, noise(MIB))}, id=ID).write(tmp_path / "base.vhdx")
    child = Vhdx(2 * MIB, {0: (6, noise(MIB, 1))}, parent=("base.vhdx", ID)).write(tmp_path / "child.vhdx")
    item = vault.protect(child, sourceType="DiskImage")
    assert vault.back_up(item)["status"] == "Completed"
    (point,) = vault.points(item)

    target = tmp_path / "restored"
    assert vault.restore(point, **ELSEWHERE, targetPath=str(target))["status"] == "Completed"
    assert target.read_bytes() == noise(MIB, 1) + noise(MIB)


@pytest.mark.parametrize("gone", [False, True])
def test_an_image_is_not_overwritten_by_the_bytes_of_its_disk(vault: Vault, tmp_path: Path, gone: bool) -> None:
    image = Vhdx(2 * MIB, {0: (6, noise(MIB))}, id=ID).write(tmp_path / "disk.vhdx")
    before = image.read_bytes()
    item = vault.protect(image, sourceType="DiskImage")
    assert vault.back_up(item)["status"] == "Completed"
    (point,) = vault.points(item)
    if gone:
        image.unlink()

    back = {"objectType": "ImageRestoreRequest", "recoveryType": "OriginalLocation"}
    job: dict[str, Any] = vault.restore(point, **back)
    assert job["status"] == "Failed"
    assert "restore into a new file, with --format vhdx" in job["errorDetails"][0]["errorString"]
    assert not image.exists() if gone else image.read_bytes() == before


def test_a_part_that_is_out_of_reach(vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image may be read, and what it names beside itself may not: the service asks for each of them."""
    image = tmp_path / "disk.vmdk"
    (tmp_path / "neighbour").write_bytes(noise(MIB))
    image.write_text('# Disk DescriptorFile\nCID=1\nparentCID=ffffffff\nRW 2048 FLAT "neighbour" 0\n')
    item = vault.protect(image, sourceType="DiskImage")
    reach = type(vault.plane.reach)
    monkeypatch.setattr(vault.plane, "reach", reach(vault.plane.root, [image]))

    job: dict[str, Any] = vault.back_up(item)
    assert job["status"] == "Failed"
    assert "neighbour is none of the paths" in job["errorDetails"][0]["errorString"]
