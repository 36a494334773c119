# SPDX-License-Identifier: Apache-2.0
"""How what a backup has in a hypervisor is called, so that it is known as ours, and nothing else is."""

from __future__ import annotations

import hashlib

__all__ = ["prefix_of"]


def prefix_of(owner: str) -> str:
    """How everything begins that belongs to this item of this store; names of QEMU's nodes have 31 characters at
    most."""
    return f"keepstone-{hashlib.sha256(owner.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}-"
