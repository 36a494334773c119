# SPDX-License-Identifier: Apache-2.0
"""The process on a protected machine: it asks a service for jobs, and reads and writes what this machine allows."""

from __future__ import annotations

__all__: list[str] = []
