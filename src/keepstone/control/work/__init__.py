# SPDX-License-Identifier: Apache-2.0
"""What the jobs do: one handler for each kind. A worker runs them; see `jobs/worker.py` for what a handler promises."""

from __future__ import annotations

from keepstone.control.work.handlers import handlers, standing

__all__ = ["handlers", "standing"]
