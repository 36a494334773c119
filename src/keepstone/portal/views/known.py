# SPDX-License-Identifier: Apache-2.0
"""All views, by verb and path."""

from __future__ import annotations

from keepstone.portal.views import (
    alerts,
    compare,
    doing,
    drills,
    entering,
    infrastructure,
    item,
    items,
    job,
    jobs,
    overview,
    point,
    policies,
    policy,
    protectable,
    reference,
    reports,
    restore,
    security,
    settings,
    welcome,
)
from keepstone.portal.visit import View

__all__ = ["VIEWS"]

_MODULES = (
    alerts,
    compare,
    doing,
    drills,
    entering,
    infrastructure,
    item,
    items,
    job,
    jobs,
    overview,
    point,
    policies,
    policy,
    protectable,
    reference,
    reports,
    restore,
    security,
    settings,
    welcome,
)
VIEWS: dict[tuple[str, str], View] = {}
for _module in _MODULES:
    for _key, _view in _module.views:
        assert _key not in VIEWS, _key
        VIEWS[_key] = _view
