# SPDX-License-Identifier: Apache-2.0
"""What groups, locks and resources around a vault may be called (Microsoft Learn, "Naming rules and restrictions for
Azure resources")."""

from __future__ import annotations

import re

from keepstone.errors import InvalidRequest

__all__ = ["check_name"]

_NAME = re.compile(r"[\w.()-]{0,89}[\w()-]")


def check_name(name: str) -> None:
    """`InvalidRequest` for what is no name: 1 to 90 letters, digits, and `-_.()`, not a point at the end."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name[:100]!r} is no name; take 1 to 90 letters, digits, hyphens, underscores, points and parentheses, "
            "and no point at the end",
            target="name",
            code="InvalidResourceName",
        )
