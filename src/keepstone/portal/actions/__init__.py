# SPDX-License-Identifier: Apache-2.0
"""What can be done at the portal. Each action says once what it asks of the operations, and what the same is as a
command of `az` and of `keepstone`: what is shown is what is done. `known` has them all."""

from __future__ import annotations

__all__: list[str] = []
