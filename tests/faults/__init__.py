# SPDX-License-Identifier: Apache-2.0
"""A network that fails as it is told to."""

from __future__ import annotations

__all__: list[str] = []
