# SPDX-License-Identifier: Apache-2.0
"""Guests that run, seen and written to by their agents, whichever hypervisor they have."""

from __future__ import annotations

from keepstone.workloads.inside.filesback import files_back
from keepstone.workloads.inside.restore import IntoGuest

__all__ = ["IntoGuest", "files_back"]
