# SPDX-License-Identifier: Apache-2.0
"""Which descriptors are open, for tests of what lets go of its own."""

from __future__ import annotations

import gc
import os

__all__ = ["descriptors"]


def descriptors() -> list[str]:
    """Those of this process, before a test. What earlier tests left as garbage is collected first: else it may be so in
    the middle of the test, and what they had open is closed then."""
    gc.collect()
    return os.listdir("/proc/self/fd")
