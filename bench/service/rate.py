# SPDX-License-Identifier: Apache-2.0
"""How many reads a second the server answers, of what its clients ask.

Clients wait for what they have begun: most requests ask how an operation or a job is. People and scripts look at
vaults, items and policies meanwhile, and now and then somebody lists all items, 200 on a page. First as many are asked
as are answered, by several connections; then so many a second as were promised, each timed from the moment at which it
was due.
"""

from __future__ import annotations

import random

from bench.service.estate import Estate
from bench.service.served import Served

__all__ = ["MIX", "PROMISED", "measure"]

MIX = {"operation": 45, "job": 35, "vault": 10, "item": 6, "policies": 3, "items": 1}
"""Per cent."""
PROMISED = 1000
"""Reads a second."""
_CONNECTIONS = 16
_REQUESTS = 5000  # that are asked again and again


def measure(server: Served, estate: Estate, seconds: float) -> dict[str, float]:
    """Requests a second, CPU milliseconds of a request, and milliseconds until the answer."""
    vault = estate.vault
    kinds = {
        "operation": [server.get(f"{vault}/backupOperations/{one}") for one in estate.operations],
        "job": [server.get(f"{vault}/backupJobs/{one}") for one in estate.jobs],
        "vault": [server.get(vault)],
        "item": [server.get(vault + one) for one in estate.items],
        "policies": [server.get(f"{vault}/backupPolicies")],
        "items": [server.get(f"{vault}/backupProtectedItems")],
    }
    chance = random.Random(1)
    mix = [chance.choice(kinds[kind]) for kind in chance.choices(list(MIX), list(MIX.values()), k=_REQUESTS)]
    server.ask(mix, connections=_CONNECTIONS, seconds=1)  # so that nobody is the first to
    most = server.ask(mix, connections=_CONNECTIONS, seconds=seconds)
    paced = server.ask(mix, connections=_CONNECTIONS, seconds=seconds, rate=PROMISED)
    return {
        "reads_per_s": len(most.seconds) / most.wall_s,
        "read_cpu_ms": most.server_s / len(most.seconds) * 1000,
        "asker_cpu_ms": most.asker_s / len(most.seconds) * 1000,
        "read_p50_ms": most.quantile(0.5) * 1000,
        "read_p95_ms": most.quantile(0.95) * 1000,
        "read_p99_ms": most.quantile(0.99) * 1000,
        "paced_reads_per_s": len(paced.seconds) / paced.wall_s,
        "paced_p50_ms": paced.quantile(0.5) * 1000,
        "paced_p95_ms": paced.quantile(0.95) * 1000,
        "paced_p99_ms": paced.quantile(0.99) * 1000,
    }
