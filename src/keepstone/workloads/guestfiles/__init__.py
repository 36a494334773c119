# SPDX-License-Identifier: Apache-2.0
"""Files out of the file systems that a disk holds, without mounting it.

The disk is looked at by `child.py`, a process that can reach nothing; `reader.py` shows what that tells as the tree of
a point of files. Whoever wants one imports that: the child imports as little as it can.
"""

from __future__ import annotations

from keepstone.workloads.guestfiles.wire import Volume

__all__ = ["Volume"]
