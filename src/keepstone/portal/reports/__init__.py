# SPDX-License-Identifier: Apache-2.0
"""Reports: what each asks of the operations, as rows that a page shows and a file has."""

from __future__ import annotations

__all__: list[str] = []
