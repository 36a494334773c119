# SPDX-License-Identifier: Apache-2.0
"""The views of the portal, one module a view. `known` has them all."""

from __future__ import annotations

__all__: list[str] = []
