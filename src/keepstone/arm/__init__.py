# SPDX-License-Identifier: Apache-2.0
"""The ARM REST API of Microsoft.RecoveryServices: translates, decides nothing."""

from __future__ import annotations

from keepstone.arm.failures import failure
from keepstone.arm.filters import parse_filter
from keepstone.arm.policies import parse_policy
from keepstone.arm.routing import Routes

__all__ = ["Routes", "failure", "parse_filter", "parse_policy"]
