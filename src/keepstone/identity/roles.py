# SPDX-License-Identifier: Apache-2.0
"""Who may do what: role definitions, their assignments, and the decision, as Azure Resource Manager makes it.

An action is a string such as `Microsoft.RecoveryServices/Vaults/backupPolicies/write`. A role allows the actions that
one of its `actions` matches and none of its `not_actions`; `*` stands for anything, slashes too, and case does not
count. An assignment gives a principal a role at a scope, which is the path of a resource, and on everything beneath
it. What any assignment allows is allowed: `not_actions` of one role take nothing away from another (Microsoft Learn,
"Understand Azure role definitions", Actions and NotActions).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["Assignment", "Role", "is_allowed", "is_beneath"]


@dataclass(frozen=True, slots=True)
class Role:
    """`id`: the GUID that assignments name, the same as in Azure for its built-in roles."""

    id: str
    name: str
    description: str
    actions: tuple[str, ...]
    not_actions: tuple[str, ...] = ()

    def allows(self, action: str) -> bool:
        """Whether this role alone allows the action."""
        return _matches(self.actions, action) and not _matches(self.not_actions, action)


@dataclass(frozen=True, slots=True)
class Assignment:
    """A principal, by its object id, has a role at a scope."""

    principal: str
    role: Role
    scope: str


def is_allowed(assignments: Iterable[Assignment], principals: Iterable[str], action: str, scope: str) -> bool:
    """Whether one of these principals (somebody, and the groups that he is in) may do this to the resource at
    `scope`."""
    who = frozenset(principals)
    return any(
        assignment.principal in who and is_beneath(scope, assignment.scope) and assignment.role.allows(action)
        for assignment in assignments
    )


def is_beneath(path: str, scope: str) -> bool:
    """Whether a resource is the one at this scope, or beneath it. Case does not count, nor does a slash at the end."""
    path, scope = path.casefold().strip("/"), scope.casefold().strip("/")
    return not scope or path == scope or path.startswith(f"{scope}/")


def _matches(patterns: tuple[str, ...], action: str) -> bool:
    return _compiled(patterns).fullmatch(action) is not None


@lru_cache(maxsize=256)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """One expression for all of them; of no pattern one that matches nothing."""
    if not patterns:
        return re.compile(r"(?!)")
    parts = (".*".join(map(re.escape, pattern.split("*"))) for pattern in patterns)
    return re.compile("|".join(f"(?:{part})" for part in parts), re.IGNORECASE | re.DOTALL)
