# SPDX-License-Identifier: Apache-2.0
"""What somebody has to be allowed to do, as Azure names it after the path of a request.

Beneath its provider a path has types and names by turns; an action is the types, and then `read`, `write` or `delete`.
What is posted is a type itself, and ends with `action` (Azure Resource Manager, "Resource provider operations").
"""

from __future__ import annotations

__all__ = ["action_of"]

_VERBS = {"GET": "read", "HEAD": "read", "PUT": "write", "PATCH": "write", "DELETE": "delete", "POST": "action"}


def action_of(verb: str, template: str) -> str:
    """Such as `Microsoft.RecoveryServices/Vaults/backupJobs/cancel/action`."""
    provider, *path = template.rpartition("/providers/")[2].strip("/").split("/")
    types = ["Vaults" if one == "vaults" else one for one in path[::2]]
    return "/".join([provider, *types, _VERBS[verb]])
