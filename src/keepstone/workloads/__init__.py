# SPDX-License-Identifier: Apache-2.0
"""One package per kind of datasource; each reads a source into recovery points and restores them."""

from __future__ import annotations

__all__: list[str] = []
