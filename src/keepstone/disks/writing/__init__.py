# SPDX-License-Identifier: Apache-2.0
"""Writers of disk images, for restores: VHD, VHDX, VMDK and qcow2, each written once."""

from __future__ import annotations

from keepstone.disks.writing.formats import FORMATS, RAW, Format, chosen, open_sink
from keepstone.disks.writing.sink import ImageSink, Layout
from keepstone.disks.writing.streamed import Advance, write_stream_optimized

__all__ = [
    "FORMATS",
    "RAW",
    "Advance",
    "Format",
    "ImageSink",
    "Layout",
    "chosen",
    "open_sink",
    "write_stream_optimized",
]
