# SPDX-License-Identifier: Apache-2.0
"""The commands on a service, its data folder and its processes."""

from __future__ import annotations

__all__: list[str] = []
