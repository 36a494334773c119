# SPDX-License-Identifier: Apache-2.0
"""Recovery points in the tree of the machine, by the kernel's FUSE: looked at with any program, and not restored."""

from __future__ import annotations

from keepstone.mount.device import sweep
from keepstone.mount.mounted import Mount, mount_point

__all__ = ["Mount", "mount_point", "sweep"]
