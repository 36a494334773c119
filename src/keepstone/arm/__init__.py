# SPDX-License-Identifier: Apache-2.0
"""The ARM REST API of Microsoft.RecoveryServices, and what clients need around it: translates, decides nothing.

`table` says what an operation is, `operations` lists them all, `service` answers requests with them. Each of the other
modules has the operations of one kind of resource, and its documents.
"""

from __future__ import annotations

from keepstone.arm.failures import failure
from keepstone.arm.filters import parse_filter
from keepstone.arm.routing import Routes

__all__ = ["Routes", "failure", "parse_filter"]
