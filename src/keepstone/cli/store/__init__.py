# SPDX-License-Identifier: Apache-2.0
"""The commands on a store: one module for one, or for two that belong together."""

from __future__ import annotations

from keepstone.cli.store.group import store

__all__ = ["store"]
