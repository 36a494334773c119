# SPDX-License-Identifier: Apache-2.0
"""Block sources and sinks: disks as ranges of bytes, some of which are known to be zero."""

from __future__ import annotations

from keepstone.disks.detecting import FORMATS, SUFFIXES, detect, refuse_image
from keepstone.disks.opening import Disk, open_disk
from keepstone.disks.port import BlockSink, BlockSource, Extent
from keepstone.disks.raw import RawSink, RawSource

__all__ = [
    "FORMATS",
    "SUFFIXES",
    "BlockSink",
    "BlockSource",
    "Disk",
    "Extent",
    "RawSink",
    "RawSource",
    "detect",
    "open_disk",
    "refuse_image",
]
