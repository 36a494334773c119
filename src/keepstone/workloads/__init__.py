# SPDX-License-Identifier: Apache-2.0
"""One package per kind of datasource; each reads a source into recovery points and restores them."""

from __future__ import annotations

from keepstone.workloads.progress import Progress, Silent

__all__ = ["Progress", "Silent"]
