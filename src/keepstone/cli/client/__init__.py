# SPDX-License-Identifier: Apache-2.0
"""The commands on vaults: a client of the service's ARM API with the nouns of `az backup`, one module for each noun."""

from __future__ import annotations

__all__: list[str] = []
