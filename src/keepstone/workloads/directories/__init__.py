# SPDX-License-Identifier: Apache-2.0
"""What is in directories of this machine, as a backup writes it down: for a process that does nothing but look, too.

`columns` (how entries are written down) -> `scan` (one directory) -> `scout` (a tree, by a process of its own, before
the backup comes there) -> `ahead` (what it tells). Nothing beyond these is imported here: that process is to begin at
once.
"""

from __future__ import annotations

__all__: list[str] = []
