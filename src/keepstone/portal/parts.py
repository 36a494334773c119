# SPDX-License-Identifier: Apache-2.0
"""Lists whose pages are longer than those of the portal: a page of it is a part of one of them."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit

from keepstone.portal.api import Document, Request
from keepstone.portal.visit import Visit

__all__ = ["SHOWN", "part_of", "token_of"]

SHOWN = 100
"""Rows of a page that has several addresses in each."""


def part_of(visit: Visit, address: str, place: str, query: Mapping[str, str]) -> tuple[Document, list[Document], str]:
    """What an operation answers, the rows of it that are shown from `place` on, and the place behind them; empty at the
    end. A place is how many rows of a page were shown, and the token of that page."""
    begin, _, token = place.partition(" ")
    at = int(begin) if begin.isdecimal() and len(begin) < 6 else 0
    following = {"$skipToken": token} if token else {}
    found = visit.client.send(Request("GET", address, query={**query, **following})).body
    rows = found["value"]
    if at + SHOWN < len(rows):
        return found, rows[at : at + SHOWN], f"{at + SHOWN} {token}"
    next_token = token_of(found)
    return found, rows[at:], f"0 {next_token}" if next_token else ""


def token_of(page: Document) -> str:
    """The token of the page behind this one; empty at the end."""
    return dict(parse_qsl(urlsplit(page.get("nextLink") or "").query)).get("$skipToken", "")
