# SPDX-License-Identifier: Apache-2.0
"""Every action of the portal: its request is one that an operation answers, its `keepstone` commands are ones that the
command line takes, and its `az` commands are ones that ask for that operation.

What machines' actions plan is in test_planned_restores.py, and what they do in tests/portal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import click
import pytest

from keepstone.arm.operations import OPERATIONS
from keepstone.arm.routing import Routes
from keepstone.arm.service import Service
from keepstone.arm.table import Operation
from keepstone.cli.program import keepstone
from keepstone.control import users
from keepstone.identity import Principal
from keepstone.portal.actions.action import Plan, equivalents
from keepstone.portal.actions.known import ACTIONS
from keepstone.portal.api import Client, quoted
from keepstone.portal.visit import Visit

from .client import ADDRESS
from .protecting import Vault

pytestmark = [pytest.mark.service, pytest.mark.portal]
OF_MACHINES = {"restore-machine", "drill", "protect-machine"}
OF_DISKS = {"restore-disk"}
OTHERS = {"acknowledge-alert", "close-alert", "undelete-vault", "revoke-agent"}
"""What needs something that only other tests have: an alert, a deleted vault, an agent."""


@dataclass(frozen=True)
class Things:
    """The ids of what there is."""

    vault: str
    group: str
    item: str
    point: str
    job: str
    policy: str


@pytest.fixture
def things(vault: Vault, tmp_path: Path) -> Things:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "one").write_text("1")
    item = vault.protect(tmp_path / "kept")
    assert vault.back_up(item)["status"] == "Completed"
    (point,) = vault.points(item)
    job = vault.client.arm("GET", f"{vault.path}/backupJobs")["value"][0]["id"]
    return Things(vault.path, vault.group, item, str(point["id"]), job, vault.policy("FilesPolicy"))


@pytest.fixture
def user(vault: Vault) -> str:
    name = f"u{vault.group.rpartition('/')[2]}".replace("_", "-").casefold()
    users.create(vault.plane, name, None, "correct horse battery", role="Reader", scope=vault.path)
    return f"/providers/Keepstone.Identity/users/{name}"


def samples(things: Things, user: str, folder: Path, client: Client) -> dict[str, dict[str, str]]:
    """What is given to each action."""
    held = things.item.partition("/protectedItems/")[0]
    roles = client.get(f"{things.vault}/providers/Microsoft.Authorization/roleAssignments")["value"]
    return {
        "first-item": {"id": things.vault, "path": "/srv/x y"},
        "credentials": {"id": things.vault, "name": "web"},
        "register-hypervisor": {"id": things.vault, "name": "lab", "kind": "qemu", "place": str(folder)},
        "find-machines": {"id": things.vault},
        "unregister": {"id": held},
        "backup-now": {"id": things.item, "until": "2199-12-31"},
        "stop": {"id": things.item, "keep": "policy"},
        "delete-data": {"id": things.item},
        "undelete": {"id": things.item},
        "resume": {"id": things.item, "policy": "FilesPolicy"},
        "release-snapshots": {"id": things.item},
        "cancel-job": {"id": things.job},
        "retry-job": {"id": things.job},
        "own-password": {"current": "x" * 12, "password": "y" * 12, "again": "y" * 12},
        "create-user": {"name": "someone", "role": "Backup Reader", "scope": things.vault},
        "reset-password": {"id": user},
        "rename-user": {"id": user, "display": "Some One"},
        "delete-user": {"id": user},
        "give-role": {"id": things.vault, "user": user.rpartition("/")[2], "role": "Backup Operator"},
        "take-role": {"id": roles[-1]["id"]},
        "policy-save": {"id": things.policy},
        "policy-delete": {"id": things.policy},
        "protect-path": {"id": things.vault, "path": "/srv/a b", "exclude": "*.tmp\n-x", "disk": "yes"},
        "download-kit": {"id": things.vault},
        "download-key": {"id": things.vault},
        "confirm-kit": {"id": things.vault, "kit": "12345678", "key": "12345678", "kept": "yes"},
        "restore-files": {"id": things.point, "to": "other", "target": str(folder / "out"), "conflict": "skip"},
        "create-vault": {"group": "g9", "vault": "v9"},
        "delete-vault": {"id": things.vault},
        "soft-delete": {"id": things.vault, "days": "20"},
        "immutability": {"id": things.vault, "state": "Unlocked"},
        "vault-tags": {"id": things.vault, "tags": "a=b c"},
    }


def taken(command: list[str]) -> None:
    """That the command line takes this: the command is there, and so is each of its options."""
    context = click.Context(keepstone, info_name="keepstone")
    found: click.Command = keepstone
    rest = command
    while isinstance(found, click.Group):
        name, *rest = rest
        inner = found.get_command(context, name)
        assert inner is not None, command
        context = click.Context(inner, parent=context, info_name=name)
        found = inner
    found.make_context(command[-1], list(rest), parent=context.parent)


def test_all_are_what_they_say(
    things: Things, user: str, vault: Vault, service: Service, principal: Callable[..., Principal], tmp_path: Path
) -> None:
    routes: Routes[Operation] = Routes()
    for operation in OPERATIONS:
        routes.add(operation.verb, operation.template, operation)
    client = Client(service, principal("Owner"), ADDRESS)
    given = samples(things, user, tmp_path, client)
    assert set(given) | OF_MACHINES | OF_DISKS | OTHERS == set(ACTIONS)
    for name, form in given.items():
        values: dict[str, Any] = {key: [value] for key, value in form.items()}
        visit = Visit(plane=vault.plane, client=client, path=f"/do/{name}", query={}, form=values)
        ACTIONS[name].fields(visit)
        plan: Plan = ACTIONS[name].plan(visit)
        operation, _ = routes.find(plan.request.verb, quoted(plan.request.path))
        assert operation.since != "later", name
        assert plan.keepstone or plan.az, name
        for command in plan.keepstone:
            taken(list(command))
        for command in plan.az:
            asked = " ".join(command)
            assert any(asked.startswith(words) for one in OPERATIONS for words in one.az), asked
        texts = {one.label: one.text for one in equivalents(plan, ADDRESS)}
        assert unquote(plan.request.path) in unquote(texts["REST"])
        assert "x" * 12 not in str(texts)
        assert "y" * 12 not in str(texts)
