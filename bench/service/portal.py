# SPDX-License-Identifier: Apache-2.0
"""Pages of the portal: one at a time, over one connection, of a server that has nothing else to do.

Times are from the first byte of the request to the last one of the page, without the files that browsers keep.
"""

from __future__ import annotations

from bench.service.estate import Estate
from bench.service.pages import figures_of
from bench.service.served import Served

__all__ = ["measure"]

_VIEWS = (
    "/", "/protectable", "/items", "/items?health=Unhealthy", "/jobs", "/jobs?status=Failed", "/policies", "/restore",
    "/drills", "/alerts", "/reports", "/security", "/infrastructure", "/settings", "/api",
)  # fmt: skip


def measure(server: Served, estate: Estate, count: int) -> dict[str, float]:
    """In milliseconds, of the slowest view and of the pages of items; `count` requests of each at least."""
    vault = estate.vault
    views = [server.ask([server.page(path)] * count) for path in _VIEWS]
    slowest = max(views, key=lambda answers: answers.quantile(0.95))
    items = server.ask([server.page("/item", id=vault + item) for item in estate.items[:count]])
    return figures_of("portal_view", slowest) | figures_of("portal_item", items)
