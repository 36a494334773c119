# SPDX-License-Identifier: Apache-2.0
"""The other side of a connection does not keep to the protocol."""

from __future__ import annotations

__all__ = ["Violation"]


class Violation(Exception):
    """Says what it did; it ends the connection."""
