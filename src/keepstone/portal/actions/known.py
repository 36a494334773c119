# SPDX-License-Identifier: Apache-2.0
"""All actions, by name."""

from __future__ import annotations

from keepstone.portal.actions import (
    alerts,
    first,
    infrastructure,
    items,
    jobs,
    machine_restores,
    people,
    policies,
    protecting,
    recovery,
    restores,
    vaults,
)
from keepstone.portal.actions.action import Action

__all__ = ["ACTIONS"]

_MODULES = (
    alerts,
    first,
    infrastructure,
    items,
    jobs,
    machine_restores,
    people,
    policies,
    protecting,
    recovery,
    restores,
    vaults,
)
ACTIONS: dict[str, Action] = {}
for _module in _MODULES:
    for _action in _module.actions:
        assert _action.name not in ACTIONS, _action.name
        ACTIONS[_action.name] = _action
