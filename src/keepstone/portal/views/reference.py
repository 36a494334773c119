# SPDX-License-Identifier: Apache-2.0
"""The operations of the API, out of the service's own description: to be read where nothing else can be reached."""

from __future__ import annotations

import re

from keepstone.portal.visit import Answer, Page, Views, Visit

__all__ = ["views"]

views = Views()
_ORDER = ("get", "head", "put", "patch", "post", "delete")


@views("GET", "/api")
def reference(visit: Visit) -> Answer:
    """Those in which all the words that were given occur."""
    description = visit.client.get("/openapi.json")
    words = visit.text("find").casefold().split()
    shown = []
    for path, verbs in description["paths"].items():
        for verb in sorted(verbs, key=_ORDER.index):
            about = verbs[verb]
            commands = about.get("x-keepstone-az", [])
            text = " ".join((verb, path, about["operationId"], about["summary"], *commands)).casefold()
            if all(word in text for word in words):
                shown.append((verb.upper(), path, re.sub(r"_\d+$", "", about["operationId"]), about))
    return Page(
        "reference.html", {"operations": shown, "find": visit.text("find"), "about": description["info"]}, part="list"
    )
