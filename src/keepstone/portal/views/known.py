# SPDX-License-Identifier: Apache-2.0
"""All views, by verb and path."""

from __future__ import annotations

from keepstone.portal.views import (
    doing,
    entering,
    infrastructure,
    item,
    items,
    job,
    jobs,
    overview,
    protectable,
    reference,
)
from keepstone.portal.views import doing, entering, item, items, job, jobs, overview, policies, policy
from keepstone.portal.views import doing, entering, item, items, job, jobs, overview, security, settings, welcome
from keepstone.portal.views import compare, doing, entering, item, items, job, jobs, overview, point, restore
from keepstone.portal.visit import View

__all__ = ["VIEWS"]

_MODULES = (
    entering,
    overview,
    protectable,
    items,
    item,
    jobs,
    job,
    infrastructure,
    reference,
    doing,
)
_MODULES = (entering, overview, items, item, jobs, job, policies, policy, doing)
_MODULES = (entering, overview, items, item, jobs, job, security, settings, welcome, doing)
_MODULES = (entering, overview, items, item, point, jobs, job, restore, compare, doing)
VIEWS: dict[tuple[str, str], View] = {}
for _module in _MODULES:
    for _key, _view in _module.views:
        assert _key not in VIEWS, _key
        VIEWS[_key] = _view
