# SPDX-License-Identifier: Apache-2.0
"""Keepstone: a Recovery Services vault that its users own.

The package shows nothing but its version. Each floor is imported by the name of its room, so that a command line, an
agent and a server each load only what they use.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.2.0"
