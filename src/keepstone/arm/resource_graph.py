# SPDX-License-Identifier: Apache-2.0
"""Azure Resource Graph, as far as a client of vaults asks it: which items a deleted vault has. Source:
Microsoft.ResourceGraph, resources 2021-03-01; the query is the one of `az backup deleted-vault list-containers`."""

from __future__ import annotations

import re

from keepstone.arm.table import Answer, Call, Table
from keepstone.errors import Unsupported

__all__ = ["table"]

table = Table()
_ITEMS = "microsoft.recoveryservices/locations/deletedvaults/backupfabrics/protectioncontainers/protecteditems"
_QUERY = re.compile(
    rf"""\s* recoveryservicesresources
    \s*\|\s* where \s+ type \s*==\s* "{re.escape(_ITEMS)}"
    (\s*\|\s* (
        extend \s+ dataSourceType \s*=\s* strcat\(properties\.backupManagementType,\s*'/',\s*properties\.workloadType\)
      | where \s+ tostring\(id\) \s+ contains \s+ "[^"]*"
      | project \s+ \w+ (\s*,\s*\w+)*
    ))* \s*""",
    re.IGNORECASE | re.VERBOSE,
)


@table("POST", "/providers/Microsoft.ResourceGraph/resources", "resource_graph.resources",
       action="Microsoft.ResourceGraph/resources/read", filtered=True,
       az=("backup deleted-vault list-containers",))  # fmt: skip
def query(call: Call) -> Answer:
    """The items of deleted vaults: none, since a vault can be deleted when all its items have gone. `Unsupported` for
    any other query."""
    if not _QUERY.fullmatch(call.text("query")):
        raise Unsupported(
            "this service answers one query of Resource Graph, that of `az backup deleted-vault list-containers`; list "
            "resources with `az resource list`, and what is in a vault with `az backup`"
        )
    return Answer(body={"totalRecords": 0, "count": 0, "data": [], "facets": [], "resultTruncated": "false"})
