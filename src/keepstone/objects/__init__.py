# SPDX-License-Identifier: Apache-2.0
"""Object storage: put-if-absent, ranged reads, list, delete, over several backends; and files past the page cache."""

from __future__ import annotations

from keepstone.objects.buffers import PAGE, BufferPool, address, aligned, is_aligned, is_zero, round_up
from keepstone.objects.direct import DirectFile, DirectWriter
from keepstone.objects.failure import failure
from keepstone.objects.folder import FolderStorage
from keepstone.objects.memory import MemoryStorage
from keepstone.objects.port import Buffer, ObjectInfo, ObjectStorage, Upload
from keepstone.objects.private import replace_private, write_private

__all__ = [
    "PAGE",
    "Buffer",
    "BufferPool",
    "DirectFile",
    "DirectWriter",
    "FolderStorage",
    "MemoryStorage",
    "ObjectInfo",
    "ObjectStorage",
    "Upload",
    "address",
    "aligned",
    "failure",
    "is_aligned",
    "is_zero",
    "replace_private",
    "round_up",
    "write_private",
]
