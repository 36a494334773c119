# SPDX-License-Identifier: Apache-2.0
"""`keepstone agent …`: the commands of a protected machine."""

from __future__ import annotations

__all__: list[str] = []
