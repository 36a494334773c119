# SPDX-License-Identifier: Apache-2.0
"""What the builder of policies would ask for, and the same for programs: without a browser."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from keepstone.arm.service import Service
from keepstone.control import people
from keepstone.control.installation import Installation
from keepstone.env import Env
from keepstone.errors import InvalidPolicy, InvalidRequest, PreconditionFailed
from keepstone.identity import Principal
from keepstone.portal.actions import policies
from keepstone.portal.actions.action import equivalents
from keepstone.portal.api import Client, Request
from keepstone.portal.policies import form
from keepstone.portal.rendering import render
from keepstone.portal.visit import Visit
from tests.portal.house import HOSTILE

pytestmark = pytest.mark.portal
BASE = "https://localhost:8443"
Plans = Callable[..., Visit]


@pytest.fixture(scope="module")
def visiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plans]:
    """Makes visits of an Owner to a vault of his own: what he gives, over what the form has."""
    installation = Installation(Env(), tmp_path_factory.mktemp("plans") / "keepstone")
    installation.begin("onprem1")
    plane = installation.plane()
    with plane.change() as change:
        made = people.add(change, "app", "owner", "owner")
        people.assign(change, "/", made.id, "Owner")
    service = Service(plane, installation.issuer(plane.place.tenant))
    client = Client(service, Principal(made.id, made.login, "app", made.name), BASE)
    group = f"/subscriptions/{plane.place.subscription}/resourceGroups/g1"
    vault = f"{group}/providers/Microsoft.RecoveryServices/vaults/v1"
    for path in (group, vault):
        client.send(Request("PUT", path, {"location": "onprem1"}))

    def visit(policy: str = "", *, part: bool = False, sent: bool = False, **given: Any) -> Visit:
        identity = f"{vault}/backupPolicies/{policy}" if policy else vault
        shown = form.filled(client.get(identity)["properties"] if policy else None) if given else {}
        texts = {name.replace("_", "-"): [value] if isinstance(value, str) else value for name, value in given.items()}
        values = {"id": [identity], **shown, **texts}
        return Visit(plane=plane, client=client, path="/do/policy-save", query={} if sent else values,
                     form=values if sent else {}, part=part)  # fmt: skip

    yield visit
    plane.database.close()


def test_a_machines_policy_is_a_command_of_az_too(visiting: Plans) -> None:
    plan = policies.save(visiting(name="Mine", kind="V2"))
    (az,), (keepstone,) = plan.az, plan.keepstone
    assert az[:9] == ("backup", "policy", "create", "-g", "g1", "-v", "v1", "-n", "Mine")
    assert az[-2:] == ("--backup-management-type", "AzureIaasVM")
    assert json.loads(az[10]) == json.loads(keepstone[9]) == plan.request.body
    assert plan.request.headers == {"If-None-Match": "*"}
    assert "If-None-Match: *" in equivalents(plan, BASE)[-1].text


@pytest.mark.parametrize("given", [{"kind": "MAB"}, {"kind": "V1", "frequency": "Interval"}])
def test_what_az_has_no_word_for_is_none_of_it(visiting: Plans, given: dict[str, str]) -> None:
    plan = policies.save(visiting(name="Mine", **given))
    assert plan.az == []
    assert plan.keepstone


def test_a_change_names_the_state_that_was_seen(visiting: Plans) -> None:
    first = policies.save(visiting("DefaultPolicy"))
    (az,) = first.az
    assert az[2] == "set"
    assert json.loads(az[10])["name"] == "DefaultPolicy"
    tag = first.request.headers["If-Match"]
    visit = visiting("DefaultPolicy", daily_count="40", etag=tag)
    visit.client.send(policies.save(visit).request)

    late = visiting("DefaultPolicy", daily_count="50", etag=tag)

    with pytest.raises(PreconditionFailed):
        late.client.send(policies.save(late).request)
    found = {label: (mine, now) for label, mine, now in policies._builder(late)["conflict"]}
    assert found["Keeps every point"] == ("50 days", "40 days")
    assert len({label for label, (mine, now) in found.items() if mine != now}) == 1
    assert policies._builder(visiting("DefaultPolicy"))["conflict"] == []


def test_what_is_no_policy_is_no_plan(visiting: Plans) -> None:
    with pytest.raises(InvalidPolicy, match="366"):
        policies.save(visiting("DefaultPolicy", drill="9999"))
    with pytest.raises(InvalidPolicy, match="day of the week"):
        policies.save(visiting(name="Mine", frequency="Weekly", weekday=[]))
    for name in ("", "a/whatIf"):
        with pytest.raises(InvalidRequest, match="needs a name"):
            policies.save(visiting(name=name, kind="MAB", sent=True))
    assert policies.save(visiting()).shown["runs"]["nextRuns"]  # before anything is given it shows what it would do


def test_points_of_very_many_items_are_judged_when_that_is_asked_for(
    visiting: Plans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies, "_AT_ONCE", -1)
    changed = policies.save(visiting("FilesPolicy", part=True, daily_count="3")).shown
    assert changed["foreseen"] is None
    assert changed["runs"]["longestGapInMinutes"] == 1440
    assert policies.save(visiting("FilesPolicy", part=True, daily_count="3", look="1")).shown["foreseen"]["kept"] == 0
    assert policies.save(visiting("FilesPolicy")).shown["foreseen"] is None
    assert policies.save(visiting("FilesPolicy", sent=True, daily_count="3")).shown["foreseen"]["kept"] == 0


def test_names_are_text(visiting: Plans) -> None:
    visit = visiting(name=HOSTILE.replace("/", ""), kind="MAB", zone=HOSTILE)
    shown = {
        **policies._builder(visit),
        "identity": HOSTILE,
        "where": HOSTILE,
        "policy": HOSTILE,
        "failed": HOSTILE,
        "wrong": HOSTILE,
    }
    shown |= {"plan": None, "may": True, "asked": True, "equivalents": [], "once": "x", "who": visit.client.who}
    shown |= {"part": False, "notice": "", "path": "", "navigation": (), "now": None}
    shown |= {"conflict": [(HOSTILE, HOSTILE, HOSTILE)], "action": next(iter(policies.actions))}
    text = render("policy-save.html", shown)
    assert "<img src=x" not in text
    assert "&lt;img src=x" in text
    assert "{{7*7}}" in text
