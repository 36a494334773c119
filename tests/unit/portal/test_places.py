# SPDX-License-Identifier: Apache-2.0
"""Where things are, as pages say it."""

from __future__ import annotations

import pytest

from keepstone.portal.places import trail

VAULT = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.RecoveryServices/vaults/main"
ITEM = f"{VAULT}/backupFabrics/Azure/protectionContainers/Windows;web/protectedItems/FileFolder;1"


@pytest.mark.parametrize(
    ("identity", "shown"),
    [
        (VAULT, "rg / main"),
        (f"{VAULT}/backupPolicies/Daily", "rg / main / Daily"),
        (f"{VAULT}/backupJobs/7", "rg / main / 7"),
        (ITEM, "rg / main / Windows;web / FileFolder;1"),
        (f"{ITEM}/recoveryPoints/12", "rg / main / Windows;web / FileFolder;1 / 12"),
        ("/providers/Keepstone.Identity/users/dora", "dora"),
        ("<b>", "<b>"),
        ("", ""),
    ],
)
def test_where_something_is(identity: str, shown: str) -> None:
    assert trail(identity) == shown
