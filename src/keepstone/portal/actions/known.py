# SPDX-License-Identifier: Apache-2.0
"""All actions, by name."""

from __future__ import annotations

from keepstone.portal.actions import infrastructure, items, jobs, protecting
from keepstone.portal.actions import items, jobs, policies
from keepstone.portal.actions import first, items, jobs, people, recovery, vaults
from keepstone.portal.actions import items, jobs, machine_restores, restores
from keepstone.portal.actions.action import Action

__all__ = ["ACTIONS"]

ACTIONS: dict[str, Action] = {}
for _module in (protecting, items, jobs, infrastructure):
for _module in (items, jobs, policies):
for _module in (items, jobs, first, people, recovery, vaults):
for _module in (items, jobs, restores, machine_restores):
    for _action in _module.actions:
        assert _action.name not in ACTIONS, _action.name
        ACTIONS[_action.name] = _action
