# SPDX-License-Identifier: Apache-2.0
"""What people wait for: one request at a time, over one connection, of a server that has nothing else to do.

Times are from the first byte of the request to the last one of the answer, as the client sees them.
"""

from __future__ import annotations

import random

from bench.service.estate import VAULT, Estate
from bench.service.served import Answers, Served

__all__ = ["FILTERS", "figures_of", "measure", "policy"]

FILTERS = {
    "all": "",
    "failed": "status eq 'Failed'",
    "in progress": "status eq 'InProgress'",
    "restores": "operation eq 'Restore'",
    "never asked for": "operation eq 'Undelete'",
    "of folders": "backupManagementType eq 'MAB'",
    "of databases": "backupManagementType eq 'AzureWorkload'",
    "failed restores of machines": "status eq 'Failed' and operation eq 'Restore' and "
    "backupManagementType eq 'AzureIaasVM'",
}
"""Of jobs: common ones, rare ones, and some that nothing matches."""
_ITEMS = (
    "",
    "backupManagementType eq 'AzureIaasVM' and itemType eq 'VM'",
    "policyName eq 'bench-MAB'",
    "friendlyName eq 'vm-00617'",
)


def measure(server: Served, estate: Estate, count: int) -> dict[str, float]:
    """Medians and 95th percentiles in milliseconds, of `count` requests of each kind at least."""
    vault, chance = estate.vault, random.Random(1)
    group, subscription = vault.rpartition("/vaults/")[0], f"/subscriptions/{estate.subscription}"
    some = [chance.choice(estate.items) for _ in range(count)]
    asked = {
        "vault_list": [server.get(f"{subscription}/providers/Microsoft.RecoveryServices/vaults")] * count,
        "vault_get": [server.get(vault)] * count,
        "policy_list": [server.get(f"{vault}/backupPolicies")] * count,
        "policy_create": [
            server.put(f"{group}/vaults/{VAULT}/backupPolicies/made-{number}", {"properties": policy(number)})
            for number in range(count)
        ],
        "item_get": [server.get(vault + item) for item in some],
        "item_page": [server.get(f"{vault}/backupProtectedItems", each) for each in _ITEMS] * -(-count // len(_ITEMS)),
        "job_get": [server.get(f"{vault}/backupJobs/{job}") for job in chance.choices(estate.jobs, k=count)],
        "operation_get": [
            server.get(f"{vault}/backupOperations/{one}") for one in chance.choices(estate.operations, k=count)
        ],
        "point_page": [server.get(f"{vault}{item}/recoveryPoints") for item in some],
    }
    figures: dict[str, float] = {}
    for what, requests in asked.items():
        figures |= figures_of(what, server.ask(requests))
    pages = [server.ask([server.get(f"{vault}/backupJobs", each)] * (count // 4)) for each in FILTERS.values()]
    slowest = max(pages, key=lambda answers: answers.quantile(0.95))
    return figures | figures_of("job_page", slowest)


def figures_of(what: str, answers: Answers) -> dict[str, float]:
    """What is said of an answer: median and 95th percentile, and CPU of the server, in milliseconds."""
    return {
        f"{what}_p50_ms": answers.quantile(0.5) * 1000,
        f"{what}_p95_ms": answers.quantile(0.95) * 1000,
        f"{what}_cpu_ms": answers.server_s / len(answers.seconds) * 1000,
    }


def policy(number: int) -> dict[str, object]:
    """The properties of a policy as `az backup policy create` sends them."""
    at = f"2026-01-01T{number % 24:02}:30:00Z"
    return {
        "backupManagementType": "AzureIaasVM",
        "instantRpRetentionRangeInDays": 2,
        "timeZone": "UTC",
        "schedulePolicy": {
            "schedulePolicyType": "SimpleSchedulePolicy",
            "scheduleRunFrequency": "Daily",
            "scheduleRunTimes": [at],
        },
        "retentionPolicy": {
            "retentionPolicyType": "LongTermRetentionPolicy",
            "dailySchedule": {
                "retentionTimes": [at],
                "retentionDuration": {"count": 30 + number % 100, "durationType": "Days"},
            },
        },
    }
