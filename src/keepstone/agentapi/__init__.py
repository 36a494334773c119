# SPDX-License-Identifier: Apache-2.0
"""What agents on other machines ask of the service, at the same port as everything else, by their own certificates."""

from __future__ import annotations

__all__: list[str] = []
