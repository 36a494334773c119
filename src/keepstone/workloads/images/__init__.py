# SPDX-License-Identifier: Apache-2.0
"""Disk images and block devices as recovery points, whole and to the byte."""

from __future__ import annotations

from keepstone.workloads.images.backup import Report, backup_image
from keepstone.workloads.images.browse import DiskMap
from keepstone.workloads.images.diff import diff_images
from keepstone.workloads.images.formatted import restore_into
from keepstone.workloads.images.point import PointDisk
from keepstone.workloads.images.restore import Lost, image_size, restore_image

__all__ = [
    "DiskMap",
    "Lost",
    "PointDisk",
    "Report",
    "backup_image",
    "diff_images",
    "image_size",
    "restore_image",
    "restore_into",
]
