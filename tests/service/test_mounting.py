# SPDX-License-Identifier: Apache-2.0
"""Asking for mounts and for their end: who gets the job, what it says, and what is refused. The mounts themselves are
in tests/agents/test_mounts.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from keepstone.control.mounting import MOST, MOUNT
from keepstone.control.sessions import machine as machines
from keepstone.remote.wire import Beat, End

from .exercised import exercises
from .machines import Machine, Register
from .protecting import Vault

pytestmark = pytest.mark.service


@pytest.fixture
def point(vault: Vault, tmp_path: Path) -> str:
    """A point of the service's own machine."""
    (tmp_path / "file").write_text("x")
    item = vault.protect(tmp_path)
    vault.back_up(item)
    (made,) = vault.points(item)
    return str(made["id"])


def ask(vault: Vault, point: str, machine: Machine, target: object = "/srv/look", **more: Any) -> str:
    """Ask for a mount there; its job."""
    body = {"targetPath": target, "targetInfo": {"containerId": machine.path}, **more}
    answered = vault.client.ask("POST", f"{point}/mount", {"properties": body})
    assert answered.status == 202, answered
    operation = answered.headers["azure-asyncoperation"].partition("?")[0].rpartition("/")[2]
    return str(vault.client.arm("GET", f"{vault.path}/backupOperations/{operation}")["properties"]["jobId"])


def shown(vault: Vault, job: str) -> tuple[str, dict[str, str]]:
    properties = vault.client.arm("GET", f"{vault.path}/backupJobs/{job}")["properties"]
    return properties["status"], properties["extendedInfo"]["propertyBag"]


@exercises("keepstone.mount", "keepstone.unmount")
def test_from_the_request_to_its_end(vault: Vault, machine: Register, point: str) -> None:
    web, name = machine(), point.rpartition("/")[2]
    job = ask(vault, point, web, allowOther=True)

    work = machines.claim(vault.plane, web.id)

    assert work is not None
    assert (work.job, work.operation) == (job, MOUNT)
    assert work.arguments == {"target": "/srv/look", "shared": True, "point": name}
    assert shown(vault, job) == ("InProgress", {})
    assert machines.beat(vault.plane, web.id, [Beat(job, work.token, target="/srv/look")]) == []
    assert shown(vault, job)[1]["Target"] == "/srv/look"
    assert shown(vault, job)[1]["Recovery Point"] == name
    answered = vault.client.arm("POST", f"{point}/unmount", status=202)
    assert answered == {"properties": {"jobIds": [job]}}
    (told,) = machines.beat(vault.plane, web.id, [Beat(job, work.token, target="/srv/look")])
    assert told.cancelled
    machines.end(vault.plane, web.id, End(job=job, token=work.token, status="Cancelled", target="/srv/look"))
    status, bag = shown(vault, job)
    assert (status, bag["Target"], "Files" in bag) == ("Cancelled", "/srv/look", False)
    vault.client.refused("POST", f"{point}/unmount", status=404)


def test_a_mount_that_its_agent_left_is_over(vault: Vault, machine: Register, point: str) -> None:
    web = machine()
    job = ask(vault, point, web)
    assert machines.claim(vault.plane, web.id) is not None
    vault.plane.queue.bury(machines.owner(web.id))

    assert machines.claim(vault.plane, web.id) is None

    assert shown(vault, job)[0] == "Cancelled"


def test_only_on_one_machine(vault: Vault, machine: Register, point: str) -> None:
    one, other = machine("one"), machine("other")
    jobs = [ask(vault, point, one), ask(vault, point, other)]
    body = {"properties": {"targetInfo": {"containerId": other.path}}}

    vault.client.arm("POST", f"{point}/unmount", body, status=202)

    assert [shown(vault, job)[0] for job in jobs] == ["InProgress", "Cancelled"]
    vault.client.refused("POST", f"{point}/unmount", body, status=404)


def test_a_machine_has_so_many(vault: Vault, machine: Register, point: str) -> None:
    web = machine()
    for number in range(MOST):
        ask(vault, point, web, f"/srv/{number}")
    body = {"properties": {"targetPath": "/srv/more", "targetInfo": {"containerId": web.path}}}
    assert "has 8 points mounted" in vault.client.refused("POST", f"{point}/mount", body, status=409).message
    vault.client.arm("POST", f"{point}/unmount", status=202)
    ask(vault, point, web)


@pytest.mark.parametrize(
    ("properties", "status", "words"),
    [
        ({"targetPath": "/srv/x"}, 400, "has no agent, and only an agent mounts"),
        ({}, 400, "targetPath"),
        ({"targetPath": ""}, 400, "targetPath"),
        ({"targetPath": 7}, 400, "targetPath"),
        ({"targetPath": "relative", "there": True}, 400, "absolute path"),
        ({"targetPath": "/srv/x", "there": True, "allowOther": "yes"}, 400, "allowOther"),
        ({"targetPath": "/srv/x", "targetInfo": {"containerId": "Windows;nobody"}}, 404, "nobody"),
    ],
)
def test_what_is_refused(
    vault: Vault,
    machine: Register,
    point: str,
    properties: dict[str, Any],
    status: int,
    words: str,
) -> None:
    given = dict(properties)
    if given.pop("there", False):
        given["targetInfo"] = {"containerId": machine().path}
    answered = vault.client.refused("POST", f"{point}/mount", {"properties": given}, status=status)
    assert words in answered.message
