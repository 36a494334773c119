# SPDX-License-Identifier: Apache-2.0
"""Policies of which somebody says which state he knows; and when policies run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from keepstone.arm.service import Service
from keepstone.control.plane import Plane
from keepstone.errors import PreconditionFailed
from keepstone.identity import Principal

from .client import ADDRESS, VERSION, Client
from .exercised import exercises
from .protecting import Vault
from .test_whatif import policy

pytestmark = pytest.mark.service


def asked(client: Client, address: str, days: int, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.ask("PUT", address, {"properties": policy(days=days)}, headers=named)


def kept(client: Client, address: str) -> int:
    shown = client.arm("GET", address)["properties"]
    return int(shown["retentionPolicy"]["dailySchedule"]["retentionDuration"]["count"])


@exercises("protection_policies.create_or_update", "protection_policies.get")
def test_a_policy_is_changed_by_who_knows_its_state(vault: Vault, client: Client) -> None:
    address = vault.policy("FilesPolicy")
    first = client.arm("GET", address)["eTag"]
    changed = asked(client, address, 9, If_Match=first)
    assert changed.status == 200
    assert changed.body["eTag"] != first

    refused = asked(client, address, 5, If_Match=first)

    assert (refused.status, refused.code) == (412, "PreconditionFailed")
    assert "eTag" in refused.message
    assert kept(client, address) == 9
    assert asked(client, address, 8, If_Match=f'"other", {changed.body["eTag"]}').status == 200
    assert asked(client, address, 7, If_Match="*").status == 200
    assert asked(client, address, 6).status == 200  # who names no state overwrites, as ever
    assert kept(client, address) == 6


def test_a_policy_is_made_where_there_is_none(vault: Vault, client: Client) -> None:
    address = vault.policy("Mine")
    assert asked(client, address, 9, If_Match="*").status == 412
    client.refused("GET", address, status=404)
    assert asked(client, address, 9, If_None_Match="*").status == 200
    assert asked(client, address, 5, If_None_Match="*").code == "PreconditionFailed"
    tag = client.arm("GET", address)["eTag"]
    assert asked(client, address, 5, If_None_Match=tag).status == 412
    assert asked(client, address, 5, If_None_Match='"another"').status == 200


def test_of_many_who_know_one_state_one_changes_it(
    vault: Vault, client_of: Callable[..., Client], principal: Callable[..., Principal]
) -> None:
    who = principal("Owner")
    address = vault.policy("FilesPolicy")
    tag = client_of(who).arm("GET", address)["eTag"]
    together = threading.Barrier(8)
    came: list[int] = []

    def change(days: int) -> None:
        mine = client_of(who)
        together.wait()
        came.append(asked(mine, address, days, If_Match=tag).status)

    threads = [threading.Thread(target=change, args=(days,)) for days in range(10, 18)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(came) == [200] + [412] * 7


def test_a_surface_of_this_process_has_headers_too(vault: Vault, service: Service, client: Client) -> None:
    address = vault.policy("FilesPolicy")
    assert client.who is not None
    given: dict[str, Any] = {"query": {"api-version": VERSION}, "body": {"properties": policy(days=9)}, "base": ADDRESS}
    with pytest.raises(PreconditionFailed, match="FilesPolicy"):
        service.ask(client.who, "PUT", address, headers={"if-match": '"old"'}, **given)
    assert service.ask(client.who, "PUT", address, **given).status == 200


@exercises("keepstone.policy_runs", "keepstone.policy_runs_foreseen")
def test_when_policies_run(vault: Vault, client: Client, plane: Plane) -> None:
    client.arm("PUT", vault.policy("Berlin"), {"properties": policy(days=9, zone="W. Europe Standard Time")})
    found = {one["name"]: one["properties"] for one in client.arm("GET", f"{vault.path}/backupPolicyRuns")["value"]}
    assert found.keys() == {"Berlin", "DefaultPolicy", "EnhancedPolicy", "FilesPolicy", "HourlyLogBackup"}
    moments = [datetime.fromisoformat(one["time"]) for one in found["Berlin"]["nextRuns"]]
    assert len(moments) == 10
    assert timedelta() < moments[0] - plane.env.utc() <= timedelta(days=1)
    assert all(one["localTime"][10:16] == "T16:00" for one in found["Berlin"]["nextRuns"])
    assert all(one["localTime"][-6:] in ("+01:00", "+02:00") for one in found["Berlin"]["nextRuns"])
    # a window from 08:00 to 20:00, and logs every hour beside a daily point
    assert [found[name]["longestGapInMinutes"] for name in ("EnhancedPolicy", "HourlyLogBackup")] == [720, 60]

    (one,) = client.arm("GET", f"{vault.path}/backupPolicyRuns?$filter=policyName eq 'berlin'")["value"]
    assert one["name"] == "Berlin"
    client.refused("GET", f"{vault.path}/backupPolicyRuns?$filter=policyName eq 'none'", status=404)

    address = f"{vault.path}/backupPolicyRuns"
    weekly = policy(days=9)
    weekly["schedulePolicy"] |= {
        "scheduleRunFrequency": "Weekly", "scheduleRunDays": ["Sunday"], "scheduleWeeklyFrequency": 2
    }  # fmt: skip
    said = client.arm("POST", address, {"properties": weekly})["properties"]
    assert said["longestGapInMinutes"] == 14 * 1440
    assert {datetime.fromisoformat(one["time"]).weekday() for one in said["nextRuns"]} == {6}
    refused = client.refused("POST", address, {"properties": weekly | {"timeZone": "Nowhere"}}, status=400)
    assert refused.code == "BMSUserErrorInvalidPolicyInput"


def test_a_schedule_may_count_its_weeks_from_the_first_day_of_all(vault: Vault, client: Client) -> None:
    """Clients write the year 1 where only the time of the day matters."""
    weekly = policy(days=9)
    weekly["schedulePolicy"] |= {
        "scheduleRunFrequency": "Weekly", "scheduleRunDays": ["Sunday"], "scheduleRunTimes": ["0001-01-01T16:00:00Z"],
    }  # fmt: skip
    client.arm("PUT", vault.policy("First"), {"properties": weekly})
    (one,) = client.arm("GET", f"{vault.path}/backupPolicyRuns?$filter=policyName eq 'First'")["value"]
    assert one["properties"]["longestGapInMinutes"] == 7 * 1440
